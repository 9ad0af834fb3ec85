from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bayling.errors import UserError
from bayling.evaluate import translation
from bayling.evaluate.translation import Metrics

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


def score(language: str, **changed: Any) -> dict[str, float]:
    right, answered = ANSWERS[language]
    made = translation.score(answered, right, language, Metrics(**changed))
    return {name: sample.value for name, sample in made.items()}


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
def test_figures_are_what_sacrebleu_prints(language: str, tokenizer: str, tmp_path: Path) -> None:
    scores = score(language)
    bleu = command_line(tmp_path, language, "-m", "bleu", "--tokenize", tokenizer, "--force")
    chrf = command_line(tmp_path, language, "-m", "chrf", "--chrf-word-order", "2")
    ter = command_line(tmp_path, language, "-m", "ter")
    assert scores["bleu"] == pytest.approx(bleu, abs=1e-4)
    assert scores["chrf"] == pytest.approx(chrf, abs=1e-4)
    assert scores["ter"] == pytest.approx(ter, abs=1e-4)
    assert 0 < scores["bleu"] < 100
    assert scores["exact_match"] == 0.25


def test_right_answers_score_full_marks() -> None:
    right = ANSWERS["de"][0]
    made = translation.score([f" {text}\n" for text in right], right, "de", Metrics())
    values = {name: sample.value for name, sample in made.items()}
    assert values == pytest.approx(
        {
            "bleu": 100,
            "chrf": 100,
            "ter": 0,
            "exact_match": 1,
            "off_target": 0,
            "empty": 0,
            "loops": 0,
            "length_ratio": 1,
        }
    )


def test_several_directions_are_what_their_sentences_add_up_to() -> None:
    german, chinese = (
        translation.score(*reversed(ANSWERS[tag]), tag, Metrics()) for tag in ("de", "zh")
    )
    both = translation.together([german, chinese])
    assert len(both["chrf"]) == 8
    assert both["exact_match"].value == pytest.approx(0.25)
    assert (
        min(german["chrf"].value, chinese["chrf"].value)
        < both["chrf"].value
        < max(german["chrf"].value, chinese["chrf"].value)
    )


def test_nothing_has_no_score() -> None:
    with pytest.raises(ValueError, match="no translations"):
        translation.score([], [], "de", Metrics())


@pytest.mark.parametrize(
    ("language", "tokenizer"),
    [("de", "13a"), ("zh", "zh"), ("zh-Hant", "zh"), ("ja", "char"), ("th", "char")],
)
def test_bleu_cuts_words_as_the_language_does(language: str, tokenizer: str) -> None:
    assert translation.bleu_tokenizer(language) == tokenizer
    assert f"tok:{tokenizer}" in Metrics().signatures(language)["bleu"]


def test_a_tokenizer_that_is_not_there_is_named_with_the_way_out() -> None:
    with pytest.raises(UserError, match=r"no tokenizer 'mecab' for ja: it has .*ja-mecab"):
        Metrics({"ja": "mecab"}).check(["ja"])
    with pytest.raises(UserError, match=r"ja-mecab for ja is not installed.*sacrebleu\[ja\].*char"):
        Metrics({"ja": "ja-mecab"}).check(["ja"])
