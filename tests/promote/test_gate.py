from __future__ import annotations

from typing import Any

import pytest

from bayling.promote.config import PromoteConfig
from bayling.promote.gate import RULES, Verdict, judge
from bayling.promote.run import _baseline
from bayling.registry.models import Version

pytestmark = pytest.mark.unit

CONFIG = PromoteConfig()


def scores(
    *,
    chrf: float = 60.0,
    exact: float = 0.5,
    off_target: float = 0.01,
    met: float | None = 0.8,
    **directions: float,
) -> dict[str, Any]:
    """One system's scores; `en_de=50` is the chrF++ of that direction."""
    return {
        "overall": {"chrf": chrf, "exact_match": exact, "off_target": off_target},
        "directions": [
            {
                "source_lang": pair.split("_")[0],
                "target_lang": pair.split("_")[1],
                "chrf": value,
                "zero_shot": "en" not in pair.split("_"),
            }
            for pair, value in {"en_de": 60.0, "de_en": 60.0, "de_sw": 40.0, **directions}.items()
        ],
        "interactive": {} if met is None else {"interactive_satisfaction": met},
    }


def verdict(candidate: dict[str, Any], config: PromoteConfig = CONFIG, **baseline: Any) -> Verdict:
    return judge(candidate, scores(**baseline), "champion (version 3)", config)


def failed(found: Verdict) -> list[str]:
    return [finding.rule for finding in found.findings if not finding.passed]


def test_an_equal_model_is_accepted() -> None:
    found = verdict(scores())
    assert found.accepted
    assert found.reasons == []
    assert len(found.findings) == len(RULES)


def test_a_better_model_is_accepted() -> None:
    assert verdict(scores(chrf=70, exact=0.7, off_target=0.0, met=0.9, en_de=75)).accepted


# the candidate, the threshold's key and value, the rule, the sentence with its numbers
WORSE: list[tuple[dict[str, Any], dict[str, float], str, str]] = [
    (
        scores(),
        {"min_chrf": 60.5},
        "min_chrf",
        "chrF++ over the trained directions is 60.0, at least 60.5",
    ),
    (
        scores(off_target=0.06),
        {},
        "max_off_target",
        "6.0% of the answers are in the wrong language or script, at most 5.0%",
    ),
    (scores(chrf=59.4), {}, "max_chrf_loss", "is 59.4, after 60.0 for the champion (version 3)"),
    (scores(en_de=51.9), {}, "max_direction_loss", "en → de, chrF++ 51.9 after 60.0"),
    (
        scores(exact=0.46),
        {},
        "max_exact_match_loss",
        "46.0% of the answers are exactly right, after 50.0% for the champion (version 3)",
    ),
    (
        scores(met=0.74),
        {},
        "max_interactive_loss",
        "74.0% of the interactive turns meet their requirements, after 80.0% for the champion",
    ),
]


@pytest.mark.parametrize(
    ("candidate", "thresholds", "rule", "phrase"), WORSE, ids=[case[2] for case in WORSE]
)
def test_each_rule_refuses_alone_with_its_numbers(
    candidate: dict[str, Any], thresholds: dict[str, float], rule: str, phrase: str
) -> None:
    found = verdict(candidate, PromoteConfig(**thresholds))
    assert not found.accepted
    assert failed(found) == [rule]
    (reason,) = found.reasons
    assert phrase in reason


@pytest.mark.parametrize(
    ("candidate", "thresholds"),
    [
        (scores(), {"min_chrf": 60.0}),
        (scores(off_target=0.05), {}),
        (scores(chrf=59.5), {}),
        (scores(en_de=52.0), {}),
        (scores(exact=0.5), {"max_exact_match_loss": 0.0}),
        (scores(met=0.8), {"max_interactive_loss": 0.0}),
    ],
    ids=[case[2] for case in WORSE],
)
def test_what_is_just_within_a_limit_is_accepted(
    candidate: dict[str, Any], thresholds: dict[str, float]
) -> None:
    assert verdict(candidate, PromoteConfig(**thresholds)).accepted


def test_every_threshold_has_a_rule_and_every_rule_a_threshold() -> None:
    rules = {finding.rule for finding in verdict(scores()).findings}
    assert rules == set(vars(CONFIG)) - {"name"}
    assert rules == {case[2] for case in WORSE}


def test_a_rule_reports_its_number_and_its_limit() -> None:
    found = {finding.rule: finding for finding in verdict(scores(chrf=58.0)).findings}
    assert found["max_chrf_loss"].value == pytest.approx(2.0)
    assert found["max_chrf_loss"].limit == CONFIG.max_chrf_loss
    assert found["max_off_target"].value == 0.01


def test_the_direction_that_lost_most_is_the_one_named() -> None:
    found = verdict(scores(en_de=55.0, de_en=50.0))
    assert any("de → en, chrF++ 50.0 after 60.0" in reason for reason in found.reasons)


def test_zero_shot_directions_may_fall() -> None:
    assert verdict(scores(de_sw=1.0)).accepted


def test_a_direction_that_the_baseline_never_had_is_not_compared() -> None:
    assert verdict(scores(en_ru=1.0)).accepted


def test_several_reasons_are_all_given() -> None:
    found = verdict(scores(chrf=10, exact=0.0, met=0.0, en_de=0.0))
    assert failed(found) == [
        "max_chrf_loss",
        "max_direction_loss",
        "max_exact_match_loss",
        "max_interactive_loss",
    ]


def test_without_interactive_scores_on_either_side_the_rule_passes() -> None:
    for found in (verdict(scores(met=None)), verdict(scores(), met=None)):
        assert found.accepted
        assert "no interactive conversations were asked" in found.markdown()


def test_the_page_says_what_was_compared_and_why() -> None:
    text = verdict(scores(chrf=50)).markdown()
    assert text.startswith("**Gate: refused**, compared with the champion (version 3).\n")
    assert text.count("\n- ") == len(RULES)
    assert text.count("\n- ✗ ") == 1
    accepted = judge(scores(), scores(chrf=5, exact=0), "untrained model", CONFIG).markdown()
    assert accepted.startswith("**Gate: accepted**, compared with the untrained model.\n")
    assert "after 5.0 for the untrained model" in accepted


def test_without_a_champion_the_untrained_model_is_the_one_to_beat() -> None:
    result = {"trained": scores(), "untrained": scores(chrf=5.0)}
    baseline, name = _baseline("sqlite:///unused", None, result)
    assert name == "untrained model"
    found = judge(result["trained"], baseline, name, CONFIG)
    assert found.accepted
    assert found.baseline == "untrained model"
    worse = judge(scores(chrf=1.0), baseline, name, CONFIG)
    assert "is 1.0, after 5.0 for the untrained model" in worse.reasons[0]


def test_a_champion_that_was_scored_with_the_candidate_is_the_one_to_beat() -> None:
    champion = Version("bayling", "3", model_id="m-1", run_id="run")
    result = {"untrained": scores(chrf=5.0), "champion": {**scores(chrf=50.0), "version": "3"}}
    baseline, name = _baseline("sqlite:///unused", champion, result)
    assert name == "champion (version 3)"
    assert baseline["overall"]["chrf"] == 50.0
