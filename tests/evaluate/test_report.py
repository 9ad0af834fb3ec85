from __future__ import annotations

import base64
import csv
import re
from pathlib import Path

import pytest
from scored import LANGUAGES, SCORES, system

from bayling.evaluate import report

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate") / "report"
    report.write(folder, SCORES, LANGUAGES)
    return folder


def test_a_page_a_picture_and_a_table_are_written(folder: Path, tmp_path: Path) -> None:
    names = {"scores.html", "heatmap.png", "scores.csv"}
    assert {path.name for path in report.write(tmp_path, SCORES, LANGUAGES)} == names
    assert {path.name for path in folder.iterdir()} == names
    assert (folder / "heatmap.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_the_table_has_every_direction_of_both_systems(folder: Path) -> None:
    with (folder / "scores.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 12
    first = table[0]
    assert (first["system"], first["source"], first["target"]) == ("trained", "en", "de")
    assert (float(first["chrf"]), float(first["bleu"])) == (60.0, 30.0)
    assert int(first["sentences"]) == 8


def test_zero_shot_directions_are_marked_in_the_table(folder: Path) -> None:
    with (folder / "scores.csv").open(encoding="utf-8", newline="") as file:
        marked = {
            (line["source"], line["target"])
            for line in csv.DictReader(file)
            if line["kind"] == report.ZERO_SHOT
        }
    assert marked == {("de", "sw"), ("sw", "de")}


def test_zero_shot_directions_are_marked_on_the_page(folder: Path) -> None:
    page = (folder / "scores.html").read_text("utf-8")
    marked = re.findall(r"<tr class='zero'><td>(.*?)</td>", page)
    assert sorted(marked) == ["de → sw", "sw → de"]
    assert 'content: " zero-shot"' in page
    assert "trained model, zero-shot directions" in page


def test_zero_shot_cells_are_hatched_in_the_picture(tmp_path: Path) -> None:
    """The same scores with and without the mark give different pictures."""
    unmarked = {
        name: {
            **SCORES[name],
            "directions": [{**row, "zero_shot": False} for row in SCORES[name]["directions"]],
        }
        for name in SCORES
    }
    for name, scores in (("marked", SCORES), ("unmarked", unmarked), ("again", SCORES)):
        report.heat_map(scores, LANGUAGES, tmp_path / f"{name}.png")
    marked, other, again = (
        (tmp_path / f"{name}.png").read_bytes() for name in ("marked", "unmarked", "again")
    )
    assert marked != other
    assert marked == again


def test_the_page_stands_alone_and_shows_the_scores(folder: Path) -> None:
    page = (folder / "scores.html").read_text("utf-8")
    assert page.count("<img ") == 1
    assert not re.search(r"(src|href)='?\"?https?:", page)
    picture = re.search(r"data:image/png;base64,([^']+)", page)
    assert picture
    assert base64.b64decode(picture.group(1)) == (folder / "heatmap.png").read_bytes()
    assert "<td>60.0</td><td>30.0</td><td>25%</td><td>5%</td><td>8</td>" in page
    assert "<b>75%</b> of the turns" in page
    assert "into German (de)" in page


def test_the_weakest_direction_comes_first(folder: Path) -> None:
    page = (folder / "scores.html").read_text("utf-8")
    section = page.split("the weakest first")[1]
    assert re.findall(r"<td>(\w+ → \w+)</td>", section)[:2] == ["sw → de", "sw → en"]


def test_what_a_model_wrote_is_shown_and_never_run(folder: Path) -> None:
    page = (folder / "scores.html").read_text("utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_without_conversations_and_zero_shot_directions_the_page_leaves_them_out(
    tmp_path: Path,
) -> None:
    scores = {
        name: {**system(50.0, interactive=False), "zero_shot": None}
        for name in ("trained", "untrained")
    }
    report.write(tmp_path, scores, ["en", "de"])
    page = (tmp_path / "scores.html").read_text("utf-8")
    assert "Interactive translation" not in page
    assert "zero-shot directions</td>" not in page
