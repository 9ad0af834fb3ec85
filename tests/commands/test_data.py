"""`bayling data inspect`: what it says, and its exit codes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from sources import PAIRS, write, write_json_lines, write_lines

from bayling.cli import main
from bayling.config import compose

pytestmark = pytest.mark.unit


def _aligned(folder: Path) -> Path:
    write_lines(folder / "my corpus.de.gz", [german for _, german in PAIRS], "gzip")
    write(folder / "LICENSE", "CC0")
    return write_lines(folder / "my corpus.en.gz", [english for english, _ in PAIRS], "gzip")


def test_it_says_what_a_file_is_taken_for_and_shows_three_rows(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = _aligned(tmp_path)
    figures = tmp_path / "figures.json"
    command = ["data", "inspect", str(path), "--source-lang", "eng", "--target-lang", "deu"]
    assert main([*command, "--json", str(figures)]) == 0
    said = capsys.readouterr().out
    for _, german in PAIRS:
        assert f"  de: {german}" in said
    made = json.loads(figures.read_text())
    assert made["format"] == "lines"
    assert made["compression"] == "gzip"
    assert made["languages"] == ["en", "de"]
    assert (made["rows"], made["rejected"]) == (3, 0)
    assert made["licence_files"] == [str(tmp_path / "LICENSE")]
    assert made["use"] in said


def test_the_line_that_uses_it_can_be_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = _aligned(tmp_path)
    assert main(["data", "inspect", str(path), "--languages", "en,de"]) == 0
    line = capsys.readouterr().out.strip().splitlines()[-1]
    program, stage, override = shlex.split(line)
    assert (program, stage) == ("bayling", "data")
    [source] = compose([override]).data.sources
    assert source.path == (str(path),)
    assert source.languages == ("en", "de")


def test_rejected_rows_are_counted_and_the_first_three_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    good = ["\t".join(pair) for pair in PAIRS] * 4
    path = write_lines(tmp_path / "a.en-de.tsv", [*good, *["lonely"] * 5])
    assert main(["data", "inspect", str(path)]) == 0
    said = capsys.readouterr().out.replace("\n", "").replace(" ", "")
    assert "12,and5rejected" in said
    for line in (13, 14, 15):
        assert f"a.en-de.tsv:{line}:1columninsteadof2" in said
    assert "a.en-de.tsv:16" not in said


def test_a_suite_is_named_as_one(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = write_json_lines(tmp_path / "a.jsonl", [{"question_id": 1, "text": ["Why?", "How?"]}])
    assert main(["data", "inspect", str(path)]) == 0
    said = capsys.readouterr().out
    assert "evaluate.suites" in said
    assert "  user: How?" in said
    assert "data.sources=" not in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.tsv"], "there is no"),
        (["empty"], "is empty"),
        (["garbage"], "is no text"),
        (["folder"], "has no files with data in it"),
        (["empty", "--format", "tvs"], "there is no format 'tvs': did you mean tsv?"),
        (["empty", "--columns", "source"], "--columns takes ROLE=COLUMN"),
    ],
)
def test_what_cannot_be_inspected_is_one_sentence_and_exit_code_2(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "empty", "")
    write(tmp_path / "garbage", bytes(range(256)) * 9)
    (tmp_path / "folder").mkdir()
    assert main(["data", "inspect", *arguments]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("bayling: ")
    assert errors.count("\n") == 1
    assert said in errors


def test_the_stage_keeps_its_overrides(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "data.conversatoins=5"]) == 2
    assert "did you mean data.conversations?" in capsys.readouterr().err
