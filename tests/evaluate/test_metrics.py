from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bayling.evaluate import metrics

pytestmark = pytest.mark.unit

# target language → right, answered
ANSWERS = {
    "de": (
        ["in 5 Tagen", "Donnerstag, 21. März 2024", "24 Kilometer", "China und Deutschland"],
        ["in 5 Tagen", "Donnerstag, 21. Mai 2024", "24 Meter", "China oder Deutschland"],
    ),
    "zh": (
        ["5天后", "2024年3月21日星期四", "24公里", "中国和德国"],
        ["5天前", "2024年3月21日", "24公里", "中国或德国"],
    ),
    "ja": (
        ["5日後", "2024年3月21日木曜日", "24キロメートル", "中国、ドイツ"],
        ["5日前", "2024年3月21日", "24キロメートル", "中国またはドイツ"],
    ),
}
OTHERS = {
    "in 5 Tagen": {"en": "in 5 days", "sw": "baada ya siku 5"},
    "24 Meter": {"en": "24 meters", "sw": "mita 24"},
}


def row(target: str, output: str, target_lang: str = "de", **others: str) -> dict[str, Any]:
    return {
        "target_lang": target_lang,
        "target": target,
        "output": output,
        "in_other_languages": others,
    }


def rows(target_lang: str) -> list[dict[str, Any]]:
    pairs = zip(*ANSWERS[target_lang], strict=True)
    return [row(target, output, target_lang) for target, output in pairs]


def command_line(folder: Path, language: str, *arguments: str) -> float:
    """What `sacrebleu` prints for the same answers."""
    for name, lines in zip(("right", "answered"), ANSWERS[language], strict=True):
        (folder / name).write_text("\n".join(lines) + "\n", "utf-8")
    command = [sys.executable, "-m", "sacrebleu", str(folder / "right"), "--width", "6"]
    printed = subprocess.run(
        [*command, "-i", str(folder / "answered"), *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(json.loads(printed.stdout)["score"])


@pytest.mark.parametrize(("language", "tokenizer"), [("de", "13a"), ("zh", "zh"), ("ja", "char")])
def test_bleu_and_chrf_are_what_sacrebleu_prints(
    language: str, tokenizer: str, tmp_path: Path
) -> None:
    scores = metrics.score(rows(language))
    bleu = command_line(tmp_path, language, "-m", "bleu", "--tokenize", tokenizer, "--force")
    chrf = command_line(tmp_path, language, "-m", "chrf", "--chrf-word-order", "2")
    assert scores.bleu == pytest.approx(bleu, abs=1e-4)
    assert scores.chrf == pytest.approx(chrf, abs=1e-4)
    assert 0 < scores.bleu < 100
    assert scores.sentences == 4
    assert scores.exact_match == 0.25


def test_right_answers_score_full_marks() -> None:
    scores = metrics.score([row(text, f" {text}\n") for text in ANSWERS["de"][0]])
    assert scores.as_dict() == pytest.approx(
        {"bleu": 100, "chrf": 100, "exact_match": 1, "off_target": 0, "sentences": 4}
    )


def test_several_target_languages_are_scored_together() -> None:
    scores = metrics.score([*rows("de"), *rows("zh")])
    assert scores.sentences == 8
    assert 0 < scores.bleu < 100


def test_no_rows_have_no_score() -> None:
    with pytest.raises(ValueError, match="no rows"):
        metrics.score([])


@pytest.mark.parametrize(
    ("language", "tokenizer"),
    [("de", "13a"), ("zh", "zh"), ("zh-Hant", "zh"), ("ja", "char"), ("th", "char")],
)
def test_bleu_cuts_words_as_the_language_does(language: str, tokenizer: str) -> None:
    assert metrics.bleu_tokenizer(language) == tokenizer


@pytest.mark.parametrize(
    ("target", "output", "target_lang"),
    [
        ("in 5 Tagen", "", "de"),
        ("in 5 Tagen", "  \n", "de"),
        ("in 5 Tagen", "через 5 дней", "de"),
        ("через 5 дней", "in 5 days", "ru"),
        ("in 5 Tagen", "in 5 days", "de"),  # same script, another language
        ("in 5 Tagen", "baada ya siku 5", "de"),
        ("in 5 Tagen", "In 6 days", "de"),  # wrong, and nearer to English
    ],
)
def test_an_answer_in_another_language_is_off_target(
    target: str, output: str, target_lang: str
) -> None:
    others = OTHERS["in 5 Tagen"]
    assert metrics.off_target(row(target, output, target_lang, **others))


@pytest.mark.parametrize(
    ("target", "output"),
    [
        ("in 5 Tagen", "in 5 Tagen"),
        ("in 5 Tagen", "in 7 Tagen"),  # wrong, but German
        ("in 5 Tagen", "vor 5 Tagen"),
        ("in 5 Tagen", " in 5 Tagen\n"),
    ],
)
def test_an_answer_in_the_right_language_is_not_even_when_it_is_wrong(
    target: str, output: str
) -> None:
    assert not metrics.off_target(row(target, output, **OTHERS["in 5 Tagen"]))


def test_a_sentence_that_is_the_same_in_two_languages_is_not_off_target() -> None:
    assert not metrics.off_target(row("24 km", "24 km", sw="24 km"))
    assert not metrics.off_target(row("24 km", "25 km", sw="24 km"))


def turn(role: str, content: str, *requirements: tuple[str, list[str]]) -> dict[str, Any]:
    wanted = [{"kind": kind, "values": values} for kind, values in requirements]
    return {"role": role, "content": content, "requirements": wanted}


def conversation(*outputs: str) -> dict[str, Any]:
    return {
        "messages": [
            turn("user", "Provide …", ("script", ["de"]), ("contains", ["5"])),
            turn("assistant", "in 5 Tagen"),
            turn("user", "Make it shorter.", ("script", ["de"]), ("shorter", [])),
            turn("assistant", "in 5 T."),
        ],
        "outputs": list(outputs),
    }


def test_a_turn_is_judged_after_the_models_own_earlier_answer() -> None:
    assert metrics.satisfied_turns(conversation("in 5 Tagen", "in 5 T.")) == [True, True]
    # Shorter than the true answer before it, but not than the model's own.
    assert metrics.satisfied_turns(conversation("in 5 T", "in 5 Tage")) == [True, False]
    assert metrics.satisfied_turns(conversation("in 6 Tagen", "in 6 T.")) == [False, True]


def test_conversations_are_scored_by_turn_and_as_a_whole() -> None:
    scored = metrics.score_conversations(
        [
            conversation("in 5 Tagen", "in 5 T."),
            conversation("in 5 Tagen", "in 5 Tagen"),
            conversation("через 5 дней", "5"),
            conversation("in 5 Tagen", ""),
        ]
    )
    assert scored == pytest.approx(
        {
            "interactive_satisfaction": 5 / 8,
            "interactive_first_turn": 3 / 4,
            "interactive_later_turns": 2 / 4,
            "interactive_exact": 4 / 8,
            "interactive_conversations_met": 1 / 4,
        }
    )


def test_no_conversations_have_no_scores() -> None:
    assert metrics.score_conversations([]) == {}


def test_an_answer_too_few_is_an_error_and_not_a_score() -> None:
    with pytest.raises(ValueError, match="shorter"):
        metrics.score_conversations([conversation("in 5 Tagen")])
