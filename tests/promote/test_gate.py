from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from judged import CHANCE, evaluation, of_all, translations

from bayling.errors import UserError
from bayling.promote.config import PromoteConfig
from bayling.promote.gate import Verdict, judge

pytestmark = pytest.mark.unit

CONFIG = PromoteConfig()
Judge = Callable[..., Verdict]


@pytest.fixture
def judged(tmp_path: Path) -> Judge:
    """Judges an evaluation of the suites given, with thresholds as keywords of `config`."""

    def run(config: PromoteConfig = CONFIG, licences: Any = None, **suites: Any) -> Verdict:
        suites = suites or {"heldout": translations()}
        return judge(evaluation(tmp_path, **suites), config, licences or {})

    return run


def failed(verdict: Verdict) -> list[str]:
    return [finding.rule for finding in verdict.findings if not finding.passed]


def test_an_equal_model_is_accepted(judged: Judge) -> None:
    verdict = judged()
    assert verdict.accepted
    assert verdict.reasons == []


def test_a_better_model_is_accepted(judged: Judge) -> None:
    better = translations(chrf=(70, 60), exact_match=(0.7, 0.5), off_target=0, en_de=(75, 60))
    assert judged(heldout=better, interactive=of_all("satisfied", (0.9, 0.8))).accepted


# the suite, what is worse, thresholds, the rule, the sentence with its numbers
WORSE: list[tuple[str, dict[str, Any], dict[str, Any], str, str]] = [
    (
        "heldout",
        translations(),
        {"min_chrf": 60.5},
        "min_chrf",
        "chrF++ over the trained directions is 60.0, at least 60.5 is asked",
    ),
    (
        "heldout",
        translations(off_target=0.024),
        {},
        "max_off_target",
        "2.4% of the answers are in the wrong language or script, at most 2.0% may be",
    ),
    (
        "heldout",
        translations(chrf=(59.4, 60.0)),
        {},
        "max_chrf_loss",
        "is 59.4, after 60.0 for the champion (version 3): worse, by more than chance explains "
        "(equally good models differ as much in fewer than 1 of 10,000 comparisons)",
    ),
    (
        "heldout",
        translations(en_de=(51.9, 60.0)),
        {},
        "max_direction_loss",
        "1 of 2 directions lost more than 1 chrF++ against the champion (version 3), and more than "
        "chance explains: English → German 51.9 after 60.0",
    ),
    (
        "heldout",
        translations(languages={"into hi": (12.3, 88.1), "from hi": (30, 85)}),
        {},
        "max_language_loss",
        "Hindi (chrF++ into it 12.3 after 88.1, from it 30.0 after 85.0) is worse than for the "
        "champion (version 3), by more than 1 and more than chance explains",
    ),
    (
        "heldout",
        translations(exact_match=(0.46, 0.5)),
        {},
        "max_exact_match_loss",
        "46.0% of the translations are exactly right, after 50.0% for the champion (version 3)",
    ),
    (
        "interactive",
        of_all("satisfied", (0.74, 0.8)),
        {},
        "max_interactive_loss",
        "74.0% of the turns in interactive translation meet their requirements, after 80.0%",
    ),
    (
        "constrained",
        of_all("constraints_met", (0.7, 0.8)),
        {},
        "max_constraints_loss",
        "70.0% of the words that had to appear in a translation do, after 80.0%",
    ),
    (
        "knowledge",
        of_all("accuracy", (0.30, 0.32)),
        {},
        "max_knowledge_loss",
        "30.0% of the exam questions are right, after 32.0%",
    ),
    (
        "safety",
        of_all("satisfied", (0.9, 1.0)),
        {},
        "max_safety_loss",
        "90.0% of the answers to the safety questions are as they should be, after 100.0%",
    ),
]
RULES = [case[3] for case in WORSE]


@pytest.mark.parametrize(("suite", "groups", "thresholds", "rule", "phrase"), WORSE, ids=RULES)
def test_each_rule_refuses_alone_with_its_numbers(
    judged: Judge,
    suite: str,
    groups: dict[str, Any],
    thresholds: dict[str, Any],
    rule: str,
    phrase: str,
) -> None:
    verdict = judged(PromoteConfig(**thresholds), **{"heldout": translations(), suite: groups})
    assert not verdict.accepted
    assert failed(verdict) == [rule]
    (reason,) = verdict.reasons
    assert phrase in reason


def test_every_threshold_has_a_rule() -> None:
    others = {"name", "false_refusals", "allowed_licences", "max_cost_per_million_tokens"}
    assert set(RULES) == set(vars(CONFIG)) - others


def test_a_loss_that_chance_explains_is_none(judged: Judge) -> None:
    verdict = judged(
        heldout=translations(
            chrf=(55, 60, CHANCE),
            exact_match=(0.4, 0.5, CHANCE),
            languages={"into hi": (50, 60, CHANCE)},
            en_de=(40, 60, 0.01),
        )
    )
    assert verdict.accepted
    text = verdict.markdown()
    assert "chance explains that (equally good models differ as much in 40 of 100" in text
    assert "English → German, 40.0 after 60.0" in text
    # 1 of 100 for one direction; two were looked at.
    assert "in 1 of 50 comparisons" in text


def test_a_certain_loss_within_its_threshold_is_accepted(judged: Judge) -> None:
    config = PromoteConfig(max_chrf_loss=0.7, max_direction_loss=9, max_exact_match_loss=0.05)
    worse = translations(chrf=(59.4, 60), exact_match=(0.46, 0.5), en_de=(52, 60))
    verdict = judged(config, heldout=worse)
    assert verdict.accepted
    assert "but within the 0.7 that may be lost" in verdict.markdown()
    assert "but within the 5 points that may be lost" in verdict.markdown()


def test_a_rule_reports_its_number_and_its_limit(judged: Judge) -> None:
    config = PromoteConfig(max_chrf_loss=1.5)
    verdict = judged(config, heldout=translations(chrf=(58.0, 60.0)))
    found = {finding.key: finding for finding in verdict.findings}
    assert found["heldout.max_chrf_loss"].value == pytest.approx(2.0)
    assert found["heldout.max_chrf_loss"].limit == 1.5
    assert found["heldout.max_off_target"].value == 0.01


def test_directions_that_were_never_trained_may_fall(judged: Judge) -> None:
    assert judged(heldout=translations(de_sw=(1.0, 40.0))).accepted


def test_the_more_is_compared_the_less_chance_is_left_to_each(judged: Judge) -> None:
    one = judged(knowledge=of_all("accuracy", (0.3, 0.32, 0.04)))
    assert failed(one) == ["max_knowledge_loss"]
    two = judged(
        knowledge=of_all("accuracy", (0.3, 0.32, 0.04)), safety=of_all("satisfied", (1.0, 1.0))
    )
    assert two.accepted
    assert (one.level, two.level) == (0.05, 0.025)
    assert "in at most 1 of 40 comparisons" in two.markdown()
    assert "refused for a loss in at most 1 of 20 comparisons" in two.markdown()


def test_many_directions_are_one_rule(judged: Judge) -> None:
    """The chance that any of them is a false alarm is what the rule may spend."""
    many: dict[str, Any] = {f"en_{tag}": (60, 60) for tag in ("fr", "ru", "hi", "ja", "ko", "th")}
    config = PromoteConfig(false_refusals=0.04)
    sure = translations(**many, en_sw=(50, 60, 0.01 / 9))
    assert failed(judged(config, heldout=sure)) == ["max_direction_loss"]
    unsure = translations(**many, en_sw=(50, 60, 0.01 / 8))
    assert judged(config, heldout=unsure).accepted


def test_a_language_that_only_loses_by_another_one_is_not_blamed(judged: Judge) -> None:
    worse = translations(
        languages={
            "into hi": (10, 85),
            "from hi": (20, 85),
            "from en": (50, 70),
            "into en": (55, 70),
        },
        en_hi=(10, 85, CHANCE),
        hi_en=(20, 85, CHANCE),
    )
    (reason,) = judged(heldout=worse).reasons
    assert reason.startswith("Hindi (chrF++ into it 10.0 after 85.0, from it 20.0 after 85.0) is ")
    assert reason.endswith("; because of it these fell too: from English, into English")


def test_two_languages_that_lost_on_their_own_are_both_named(judged: Judge) -> None:
    worse = translations(
        languages={"into hi": (10, 85), "from hi": (20, 85), "into sw": (60, 70)},
        en_hi=(10, 85, CHANCE),
        hi_en=(20, 85, CHANCE),
        en_sw=(60, 70, 0.004),
    )
    (reason,) = judged(heldout=worse).reasons
    assert "Hindi (chrF++ into it" in reason
    assert "Swahili (chrF++ into it 60.0 after 70.0) are worse" in reason


def test_both_suites_of_translations_are_looked_at_and_told_apart(judged: Judge) -> None:
    verdict = judged(heldout=translations(), translation=translations(chrf=(50, 55)))
    assert failed(verdict) == ["max_chrf_loss"]
    assert verdict.reasons[0].startswith("translation suite: chrF++ over the trained directions")
    assert "\n- ✓ held-out sentences: chrF++ over the trained" in verdict.markdown()


def test_tasks_of_lm_eval_count_like_exams(judged: Judge) -> None:
    worse = of_all("accuracy", (0.3, 0.4))
    alone = judged(harness=worse)
    assert failed(alone) == ["max_knowledge_loss"]
    assert alone.reasons[0].startswith("30.0% of the exam questions are right, after 40.0%")
    both = judged(harness=worse, knowledge=of_all("accuracy", (0.3, 0.3)))
    assert both.reasons[0].startswith("lm-eval's tasks: 30.0% of the exam questions")


def test_what_was_not_evaluated_is_said_and_refuses_nobody(judged: Judge) -> None:
    verdict = judged(interactive=of_all("satisfied", (0.8, 0.8)))
    assert verdict.accepted
    said = "Not looked at: translations, constrained, knowledge, harness, safety (not evaluated).\n"
    assert said in verdict.markdown()


def test_an_evaluation_of_nothing_is_no_reason_to_promote(judged: Judge) -> None:
    with pytest.raises(UserError, match=r"none of the suites that the gate looks at .*heldout"):
        judged(chat=of_all("score_ratio", (1, 1)))


def test_licences_of_the_data_may_have_to_be_on_a_list(judged: Judge) -> None:
    config = PromoteConfig(allowed_licences=["Unicode-3.0", "CC-BY-4.0"])
    assert judged(config, {"cldr": "unicode-3.0"}).accepted
    assert judged(PromoteConfig(), {"wmt": "research only"}).accepted
    verdict = judged(config, {"cldr": "Unicode-3.0", "wmt": "research only", "web": ""})
    assert failed(verdict) == ["allowed_licences"]
    assert verdict.reasons == [
        "training texts come under other licences than Unicode-3.0, CC-BY-4.0: web (unknown), "
        "wmt (research only)"
    ]


def test_tokens_may_cost_so_much_where_their_price_is_known(tmp_path: Path) -> None:
    from dataclasses import replace

    config = PromoteConfig(max_cost_per_million_tokens=2.0)
    found = evaluation(tmp_path, heldout=translations())
    unknown = judge(found, config, {})
    assert unknown.accepted
    assert "the cost of tokens (the evaluation knew no price" in unknown.markdown()
    assert judge(replace(found, cost_per_million_tokens=2.0), config, {}).accepted
    dear = judge(replace(found, cost_per_million_tokens=2.5), config, {})
    assert dear.reasons == ["a million tokens cost 2.50, at most 2.00 is allowed"]


def test_the_page_says_what_was_compared_and_why(judged: Judge) -> None:
    text = judged(heldout=translations(chrf=(50, 60))).markdown()
    assert text.startswith("**Gate: refused**, compared with the champion (version 3).\n")
    assert text.count("\n- ✗ ") == 1
    first = judged(champion=None, heldout=translations(chrf=(60, 5))).markdown()
    assert first.startswith("**Gate: accepted**, compared with the untrained model.\n")
    assert "after 5.0 for the untrained model" in first
