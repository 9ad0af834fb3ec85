"""`bayling score`: files in, a table and JSON out, one sentence for each mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bayling.cli import main

pytestmark = pytest.mark.unit

REFERENCE = ["in 5 Tagen", "Donnerstag, 21. März 2024", "24 Kilometer", "China und Deutschland"]
SOURCE = ["in 5 days", "Thursday, March 21, 2024", "24 kilometers", "China and Germany"]
GOOD = ["in 5 Tagen", "Donnerstag, 21. Mai 2024", "24 Meter", "China oder Deutschland"]
BAD = ["in 5 days", "", "24 Meter", "China China China China China China China China"]


def write(folder: Path, **files: list[str]) -> dict[str, str]:
    paths = {}
    for name, lines in files.items():
        paths[name] = str(folder / f"{name}.txt")
        Path(paths[name]).write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return paths


def scored(folder: Path, *argv: str) -> dict[str, Any]:
    assert main(["score", *argv, "--json", str(folder / "out.json")]) == 0
    made: dict[str, Any] = json.loads((folder / "out.json").read_text("utf-8"))
    return made


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(["score", *argv]) == 2
    return capsys.readouterr().err


def test_translations_get_sacrebleus_scores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = write(tmp_path, reference=REFERENCE, good=GOOD, source=SOURCE)
    argv = ["translation", "--hypotheses", paths["good"], "--reference", paths["reference"]]
    argv += ["--source", paths["source"], "--source-lang", "en", "--target-lang", "deu"]
    made = scored(tmp_path, *argv)
    command = [sys.executable, "-m", "sacrebleu", paths["reference"], "-i", paths["good"]]
    command += ["-m", "bleu", "chrf", "ter", "--chrf-word-order", "2", "-w", "4"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    theirs = {row["name"]: row["score"] for row in json.loads(printed)}
    assert made["bleu"] == pytest.approx(theirs["BLEU"], abs=1e-4)
    assert made["chrf"] == pytest.approx(theirs["chrF2++"], abs=1e-4)
    assert made["ter"] == pytest.approx(theirs["TER"], abs=1e-4)
    assert made["sentences"] == 4
    low, high = made["intervals"]["bleu"]
    assert low <= made["bleu"] <= high
    shown = capsys.readouterr().out
    assert f"{made['bleu']:.2f}" in shown
    assert "BLEU|nrefs:1|case:mixed|eff:no|tok:13a" in shown


def test_the_first_of_several_systems_is_what_the_others_are_compared_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = write(tmp_path, reference=REFERENCE, good=GOOD, bad=BAD, source=SOURCE)
    argv = ["translation", "--hypotheses", paths["good"], paths["bad"]]
    argv += ["--reference", paths["reference"], "--source", paths["source"], "--target-lang", "de"]
    made = scored(tmp_path, *argv)
    bad = made["systems"][paths["bad"]]
    figures = {name: one["value"] for name, one in bad["groups"]["all"]["figures"].items()}
    assert figures["copies"] == figures["empty"] == figures["loops"] == 0.25
    assert bad["against_first"]["all"]["chrf"]["difference"] < 0
    shown = capsys.readouterr().out
    assert "good.txt" in shown
    assert f"{bad['against_first']['all']['chrf']['difference']:+.2f}, p = " in shown


def test_several_directions_are_read_by_a_pattern(tmp_path: Path) -> None:
    write(tmp_path, **{"de": REFERENCE, "en": SOURCE, "en-de": GOOD, "de-en": SOURCE})
    argv = ["translation", "--directions", "en-de,de-en"]
    argv += ["--hypotheses", str(tmp_path / "{source}-{target}.txt")]
    argv += ["--reference", str(tmp_path / "{target}.txt")]
    made = scored(tmp_path, *argv, "--source", str(tmp_path / "{source}.txt"))
    [system] = made["systems"].values()
    assert system["groups"]["de → en"]["figures"]["bleu"]["value"] == pytest.approx(100)
    assert system["groups"]["en → de"]["figures"]["bleu"]["value"] < 80
    assert made["sentences"] == 8


def test_the_language_is_told_from_the_reference(tmp_path: Path) -> None:
    chinese = ["今天的天气非常好。", "我们明天去北京。"]
    paths = write(tmp_path, reference=chinese, mine=chinese)
    argv = ["translation", "--hypotheses", paths["mine"], "--reference", paths["reference"]]
    [system] = scored(tmp_path, *argv)["systems"].values()
    assert any("tok:zh" in signature for signature in system["details"]["signatures"])


@pytest.mark.parametrize(
    ("files", "argv", "said"),
    [
        ({"good": GOOD[:3]}, [], r"has 3 lines and .*has 4"),
        ({"reference": ["", *REFERENCE[1:]]}, [], r"reference.txt, line 1 is empty"),
        ({}, ["--target-lang", "xx"], "knows no language 'xx'"),
        ({}, ["--tokenize", "ja-mecab"], "is not installed"),
        ({"good": []}, [], "good.txt is empty"),
        ({}, ["--reference", "nowhere.txt"], "there is no file nowhere.txt"),
        ({}, ["--directions", "en-de"], "leave --source-lang, --target-lang out"),
    ],
)
def test_mistakes_get_a_sentence(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    files: dict[str, list[str]],
    argv: list[str],
    said: str,
) -> None:
    import re

    paths = write(tmp_path, **{"reference": REFERENCE, "good": GOOD, **files})
    base = ["--hypotheses", paths["good"], "--reference", paths["reference"]]
    error = refused(capsys, "translation", *base, "--target-lang", "de", *argv)
    assert re.search(said, error)
    assert error.count("\n") == 1


def rows(folder: Path, *made: dict[str, Any]) -> str:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in made), "utf-8")
    return str(path)


ROW = {"src": "in 5 days", "tgt": "in 5 Tagen", "constraint": ["5", "Tagen"], "hypo": "in 5 Tage"}


def test_constraints_are_counted_verbatim(tmp_path: Path) -> None:
    path = rows(
        tmp_path,
        ROW,
        {**ROW, "hypo": "in 5 Tagen"},
        {**ROW, "constraint": ["tagen"], "hypo": "in 5 Tagen"},
    )
    made = scored(tmp_path, "constrained", path, "--target-lang", "de")
    assert made["constraints_met"] == pytest.approx(3 / 5)
    assert made["sentences_met"] == pytest.approx(1 / 3)
    assert 80 < made["chrf"] < 100


def test_constraints_can_be_scored_with_outputs_in_a_file_of_their_own(tmp_path: Path) -> None:
    bare = {key: value for key, value in ROW.items() if key != "hypo"}
    path = rows(tmp_path, bare, bare)
    paths = write(tmp_path, outputs=["in 5 Tagen", "in Tagen"])
    argv = ["constrained", path, "--hypotheses", paths["outputs"], "--target-lang", "de"]
    assert scored(tmp_path, *argv)["constraints_met"] == pytest.approx(3 / 4)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({**ROW, "hypo": None}, "line 2: no text under 'hypo'"),
        ({**ROW, "constraint": 5}, "line 2: 'constraint' must be a list of words"),
        ({**ROW, "tgt": " "}, "line 2: the reference 'tgt' is empty"),
        ({**ROW, "id": "a"}, "line 2: the id 'a' is that of line 1"),
    ],
)
def test_a_bad_row_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], row: dict[str, Any], said: str
) -> None:
    path = rows(tmp_path, {**ROW, "id": "a"}, row)
    assert said in refused(capsys, "constrained", path, "--target-lang", "de")
