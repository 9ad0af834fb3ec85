from __future__ import annotations

import base64
import csv
import re
from pathlib import Path

import pytest
from scored import ANSWERED, answers, result, translations

from bayling.evaluate import report
from bayling.evaluate.report import plots

pytestmark = pytest.mark.unit

SCORES = result(ANSWERED)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate") / "report"
    report.write(folder, SCORES, ANSWERED)
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return (folder / "scores.html").read_text("utf-8")


def test_a_page_pictures_and_a_table_are_written(folder: Path) -> None:
    names = {"scores.html", "scores.csv", "heatmap.png", "languages.png", "differences.png"}
    assert {path.name for path in folder.iterdir()} == names
    for path in folder.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG\r\n")


def test_the_table_has_every_figure_of_both_systems(folder: Path) -> None:
    with (folder / "scores.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    chrf = [row for row in table if row["figure"] == "chrf" and "direction" in row["kind"]]
    assert len(chrf) == 12
    marked = {row["group"] for row in chrf if row["kind"] == "zero-shot direction"}
    assert marked == {"de → sw", "sw → de"}
    for row in chrf:
        assert float(row["low"]) <= float(row["value"]) <= float(row["high"])
        assert row["items"] == "4"
    assert {"interactive", "heldout"} == {row["suite"] for row in table}


def test_zero_shot_directions_are_marked_on_the_page(page: str) -> None:
    marked = re.findall(r'class="zero">(.*?)</td>', page)
    assert sorted(marked) == ["de → sw", "sw → de"]
    assert "trained model, zero-shot directions" in page


def test_zero_shot_cells_are_hatched_in_the_picture(tmp_path: Path) -> None:
    """The same scores with and without the mark give different pictures."""
    plain = {
        system: {"heldout": [{**row, "zero_shot": False} for row in translations(wrong)]}
        for system, wrong in (("trained", 1), ("untrained", 4))
    }
    marked = {
        system: {"heldout": translations(wrong)}
        for system, wrong in (("trained", 1), ("untrained", 4))
    }
    for name, answered in (("marked", marked), ("unmarked", plain), ("again", marked)):
        plots.heat_map(result(answered), "heldout", tmp_path / f"{name}.png")
    first, other, again = (
        (tmp_path / f"{name}.png").read_bytes() for name in ("marked", "unmarked", "again")
    )
    assert first != other
    assert first == again


def test_the_page_stands_alone_and_shows_the_scores(page: str, folder: Path) -> None:
    assert page.count("<img ") == 3
    assert not re.search(r"(src|href)=['\"]?https?:", page)
    pictures = re.findall(r"data:image/png;base64,([^\"]+)", page)
    assert (folder / "heatmap.png").read_bytes() in map(base64.b64decode, pictures)
    overall = SCORES["systems"]["trained"]["heldout"]["groups"]["all"]["figures"]["chrf"]
    assert f"<b>{overall['value']:.1f}</b>" in page
    assert f"{overall['low']:.1f}–{overall['high']:.1f}" in page
    assert "German (de)" in page
    assert "greedy, at most 40 new tokens" in page
    assert "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp" in page


def test_what_is_better_is_said_and_what_may_be_chance_is_grey(page: str) -> None:
    # Four sentences of a direction are too few to be sure of any of them, eight directions of
    # trained ones are not.
    assert re.search(r"better in 0</b> of\s+6 directions", page)
    card = page[page.index("Translation: chrF++") :]
    assert re.search(r'<div class="better">\+[\d.]+, better</div>', card)


def test_the_weakest_direction_comes_first(page: str) -> None:
    section = page.split("the weakest first")[1].split("</details>")[0]
    names = re.findall(r">(\w+ → \w+)</td>", section)
    groups = SCORES["systems"]["trained"]["heldout"]["groups"]
    assert names == sorted(names, key=lambda name: groups[name]["figures"]["chrf"]["value"])
    assert len(names) == 6


def test_what_a_model_wrote_is_shown_and_never_run(page: str) -> None:
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_conversations_that_broke_say_what_was_missed(tmp_path: Path) -> None:
    answered = {"trained": answers(2), "untrained": answers(4)}
    report.write(tmp_path, result(answered), answered)
    page = (tmp_path / "scores.html").read_text("utf-8")
    assert "Conversations that broke" in page
    assert "missed: a shorter answer" in page


def test_a_model_alone_has_a_page_without_comparisons(tmp_path: Path) -> None:
    answered = {"model": answers(1, interactive=False)}
    files = report.write(tmp_path, result(answered, model="champion (version 3)"), answered)
    page = (tmp_path / "scores.html").read_text("utf-8")
    assert "Evaluation of the champion (version 3)" in page
    assert "Interactive" not in page
    assert "Against" not in page
    assert "differences.png" not in {path.name for path in files}


def test_a_judges_figures_come_with_what_they_rest_on(tmp_path: Path) -> None:
    answered = {"model": answers(1, interactive=False)}
    scores = result(answered)
    one = {"value": 0.9, "low": 0.8, "high": 1.0, "items": 10}
    scores["systems"]["model"]["chat"] = {
        "groups": {"all": {"kind": "overall", "figures": {"score_ratio": one}}},
        "details": {
            "judge": "gpt",
            "against": "baseline",
            **{"wins": 3, "ties": 5, "losses": 2, "unjudged": 1},
            "cost": {"price": 1.5},
            "lost": [
                {
                    "turns": ["Why?"],
                    "outputs": ["<b>"],
                    "other_outputs": ["Because."],
                    "reviews": ["The second is better."],
                }
            ],
        },
    }
    scores["digests"]["chat"], scores["decoding"]["chat"] = "abc", "sampling"
    report.write(tmp_path, scores, answered)
    page = (tmp_path / "scores.html").read_text("utf-8")
    assert "3 won, 5 tied, 2 lost; 1 could not be judged" in page
    assert "The judge cost 1.50." in page
    assert "&lt;b&gt;" in page
    assert "The second is better." in page
