"""`bayling promote` and what comes after it, with real folders and a real MLflow store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from judged import of_all, scores, translations
from promoting import Promoting

from bayling.cli import main
from bayling.registry import champion, models, runs

Promote = Callable[..., tuple[int, str, str]]

GOOD = scores(None, heldout=translations(chrf=(60, 5), en_de=(60, 5)))
WORSE = scores(
    "1",
    heldout=translations(
        languages={"into hi": (12, 88), "from hi": (30, 85)}, en_hi=(12, 88), hi_en=(30, 85)
    ),
    interactive=of_all("satisfied", (0.8, 0.8)),
)
ROW = {"source_lang": "en", "target_lang": "hi"}
ANSWERS = {
    "trained": [
        {**ROW, "id": "1", "source": "in 5 days", "target": "5 दिन में", "outputs": ["in five"]},
        {**ROW, "id": "2", "source": "in 6 days", "target": "6 दिन में", "outputs": ["6 दिन में"]},
    ],
    "champion": [
        {**ROW, "id": "1", "source": "in 5 days", "target": "5 दिन में", "outputs": ["5 दिन में"]},
        {**ROW, "id": "2", "source": "in 6 days", "target": "6 दिन में", "outputs": [""]},
    ],
}


@pytest.fixture
def place(tmp_path: Path) -> Promoting:
    return Promoting(tmp_path)


@pytest.fixture
def promote(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Promote:
    """Runs `bayling promote …`; returns the exit code and what was said."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: str) -> tuple[int, str, str]:
        code = main(["promote", *words])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def first(place: Promoting, promote: Promote) -> list[str]:
    """Overrides of a model that is champion, version 1."""
    overrides = place.evaluated(GOOD)
    code, _, err = promote(*overrides)
    assert code == 0, err
    return overrides


def aliases(place: Promoting) -> dict[str, str]:
    found = runs.client(place.uri).get_registered_model("bayling").aliases
    return {alias: str(version) for alias, version in found.items()}


def test_a_rehearsal_says_everything_and_changes_nothing(
    place: Promoting, promote: Promote, first: list[str]
) -> None:
    refused = place.evaluated(WORSE)
    code, out, _ = promote("--dry-run", *refused)
    assert code == 3
    assert out.startswith("refused, compared with the champion (version 1)\n")
    assert "✗ Hindi (chrF++ into it 12.0 after 88.0, from it 30.0 after 85.0) is worse" in out
    assert "heldout.max_language_loss: 76, limit 1" in out
    assert "not looked at: constrained, knowledge, harness, safety (not evaluated)" in out
    assert "nothing was registered, no alias has moved" in out
    assert aliases(place) == {"champion": "1"}
    assert len(runs.client(place.uri).search_model_versions("name = 'bayling'")) == 1

    code, out, _ = promote("--dry-run", *first)
    assert code == 0 and out.startswith("accepted, compared with the untrained model\n")


def test_explain_shows_the_worst_directions_with_sentences_that_got_worse(
    place: Promoting, promote: Promote, first: list[str]
) -> None:
    refused = place.evaluated(WORSE, answers=ANSWERS)
    code, out, err = promote("--explain", *refused)
    assert code == 3
    assert "`bayling promote --explain` shows more" in err
    worst = out[out.index("heldout: the directions that lost most") :]
    assert worst.index("en → hi  12.0 after 88.0") < worst.index("hi → en  30.0 after 85.0")
    assert "in fewer than 1 of 10,000 comparisons" in worst
    for line in ("source  in 5 days", "right   5 दिन में", "before  5 दिन में", "now     in five"):
        assert line in worst
    assert "in 6 days" not in worst, "that one is right now"

    again, out, _ = promote("--explain", *refused)
    assert again == 3 and "en → hi  12.0 after 88.0" in out, "also of a verdict that was given"


def test_an_override_promotes_and_stays_on_record(
    place: Promoting, promote: Promote, first: list[str]
) -> None:
    refused = place.evaluated(WORSE)
    assert promote(*refused)[0] == 3
    assert aliases(place) == {"champion": "1", "candidate": "2"}

    code, _, err = promote("--override", "Hindi has a model of its own", *refused)
    assert code == 0, err
    assert "promoted although refused" in err
    assert aliases(place) == {"champion": "2", "previous": "1"}
    version = models.by_version(place.uri, "bayling", "2")
    assert version.tags["gate.verdict"] == "refused"
    assert version.tags["gate.override"] == "Hindi has a model of its own"
    assert "@" in version.tags["gate.override_by"]
    assert version.tags["gate.override_at"].endswith("Z")
    page = runs.client(place.uri).get_model_version("bayling", "2").description
    assert page.startswith("**Promoted although refused**, by ")
    assert "✗ Hindi (chrF++" in page
    newest = champion.history(place.uri, "bayling").changes[0]
    assert (newest.how, newest.verdict) == ("overridden", "refused")
    assert newest.reason == "Hindi has a model of its own"

    code, _, err = promote(*refused)
    assert code == 0 and "unchanged, skipped" in err, "the pipeline goes on with it"


def test_nothing_is_overridden_where_the_gate_accepts(place: Promoting, promote: Promote) -> None:
    code, _, err = promote("--override", "to be sure", *place.evaluated(GOOD))
    assert code == 0
    assert "the gate accepts the candidate: there was nothing to override" in err
    assert "gate.override" not in models.by_version(place.uri, "bayling", "1").tags
    assert champion.history(place.uri, "bayling").changes[0].how == "accepted"


def test_a_model_that_was_compared_with_another_champion_has_to_be_evaluated_again(
    place: Promoting, promote: Promote, first: list[str]
) -> None:
    late = place.evaluated(GOOD)
    for words in ([], ["--dry-run"], ["--override", "I know"]):
        code, _, err = promote(*words, *late)
        assert code == 2
        assert (
            "was compared with the untrained model, but version 1 of 'bayling' is champion" in err
        )
        assert "evaluate again" in err
    assert aliases(place) == {"champion": "1"}


def test_the_champion_is_judged_again_by_what_it_was_compared_with(
    place: Promoting, promote: Promote, first: list[str]
) -> None:
    assert promote(*first, "promote.min_chrf=50")[0] == 0
    code, _, err = promote(*first, "promote.min_chrf=70")
    assert code == 3 and "at least 70.0 is asked" in err
    assert models.by_alias(place.uri, "bayling", "champion") is not None
    assert len(champion.history(place.uri, "bayling").changes) == 1


def test_an_undone_champion_may_be_promoted_again(
    place: Promoting, promote: Promote, first: list[str]
) -> None:
    second = place.evaluated(scores("1", heldout=translations()))
    assert promote(*second)[0] == 0
    assert main(["champion", "undo", f"output_dir={place.folder}"]) == 0
    assert aliases(place) == {"champion": "1", "previous": "2"}
    assert promote(*second)[0] == 0, "a verdict that was given stands"
    assert aliases(place) == {"champion": "1", "previous": "2"}
    assert promote(*second, "promote.min_chrf=1")[0] == 0
    assert aliases(place) == {"champion": "2", "previous": "1"}


def test_licences_are_those_of_the_training_data(place: Promoting, promote: Promote) -> None:
    overrides = place.evaluated(GOOD)
    code, _, err = promote(*overrides, "promote.allowed_licences=[CC0-1.0]")
    assert code == 3
    assert "training texts come under other licences than CC0-1.0: cldr (Unicode-3.0)" in err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--override", " "), "--override needs a reason"),
        (("--override", "why", "--dry-run"), "--override promotes and --dry-run does not"),
        (("--explain", "-m", "promote.min_chrf=1,2"), "are for one model, not for -m"),
        (("--dry-run",), "the data stage has not been run"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    promote: Promote, tmp_path: Path, words: tuple[str, ...], sentence: str
) -> None:
    code, _, err = promote(*words, f"output_dir={tmp_path}")
    assert code == 2
    assert sentence in err and err.strip().splitlines()[-1].startswith("bayling: ")
