"""Answer files: which systems they name, what is compared, and what cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rated import QUESTIONS, answered, compared, write_answers

from bayling.errors import UserError
from bayling.rating.items import AnswerFile, Task, read

pytestmark = pytest.mark.unit


def test_the_kind_of_task_is_told_from_the_rows(tmp_path: Path) -> None:
    items = compared(tmp_path, "red", "blue").items
    assert {item.id: item.task for item in items} == {
        "t1": Task.translation,
        "t2": Task.translation,
        "i1": Task.instruction,
        "m1": Task.multi_turn,
    }
    [t2] = [item for item in items if item.id == "t2"]
    assert (t2.source_lang, t2.target_lang) == ("zh", "de"), "FLORES codes, too"


def test_files_of_the_evaluate_stage_are_told_by_their_folders(tmp_path: Path) -> None:
    files = [
        write_answers(tmp_path / "answers" / system / f"{suite}.jsonl", answered(system + suite))
        for system in ("trained", "champion")
        for suite in ("chat", "heldout")
    ]
    comparison = read([AnswerFile(path) for path in files])
    assert comparison.systems == ("trained", "champion")
    assert len(comparison.items) == 2 * len(QUESTIONS), "an id belongs to its suite"
    for item in comparison.items:
        assert item.answers["trained"][0].startswith(f"trained{item.suite} ")


def test_other_files_are_systems_by_their_own_names_or_by_those_given(tmp_path: Path) -> None:
    ours = write_answers(tmp_path / "ours.jsonl", answered("a"))
    theirs = write_answers(tmp_path / "out-3.jsonl", answered("b"))
    comparison = read([AnswerFile(ours), AnswerFile(theirs, system="gpt-4")])
    assert comparison.systems == ("ours", "gpt-4")
    assert comparison.sources == {"ours": (str(ours),), "gpt-4": (str(theirs),)}
    assert len(comparison.items) == len(QUESTIONS)


def test_what_one_system_has_not_answered_is_left_out_and_counted(tmp_path: Path) -> None:
    red = write_answers(tmp_path / "red.jsonl", answered("red"))
    blue = write_answers(tmp_path / "blue.jsonl", answered("blue")[1:])
    green = write_answers(tmp_path / "green.jsonl", answered("green")[:2])
    comparison = read([AnswerFile(path) for path in (red, blue, green)])
    assert [item.id for item in comparison.items] == ["t2"]
    assert comparison.missing == {"blue": 1, "green": 2}


def test_equal_answers_are_not_shown(tmp_path: Path) -> None:
    rows = answered("red")
    red = write_answers(tmp_path / "red.jsonl", rows)
    blue = write_answers(tmp_path / "blue.jsonl", [*rows[:1], *answered("blue")[1:]])
    comparison = read([AnswerFile(red), AnswerFile(blue)])
    assert {item.id for item in comparison.drawn(None, 1)} == {"t2", "i1", "m1"}
    assert len(comparison.items) == 4


def many(mark: str) -> list[dict[str, Any]]:
    tongues = {"source_lang": "en", "target_lang": "sw"}
    return [
        {"id": number, "turns": ["Why?"], "outputs": [f"{mark} {number}"], **extra}
        for number in range(200)
        for extra in [tongues if number % 4 else {}]
    ]


def test_a_sample_has_as_many_of_each_task_and_a_larger_one_begins_with_it(tmp_path: Path) -> None:
    red = write_answers(tmp_path / "red.jsonl", many("red"))
    blue = write_answers(tmp_path / "blue.jsonl", many("blue"))
    comparison = read([AnswerFile(red), AnswerFile(blue)])
    small, large = comparison.drawn(10, 1), comparison.drawn(30, 1)
    for task in (Task.translation, Task.instruction):
        assert sum(item.task is task for item in small) == 10
        of_task = [item.id for item in large if item.task is task]
        assert of_task[:10] == [item.id for item in small if item.task is task]
    assert {item.id for item in small} != {item.id for item in comparison.drawn(10, 2)}


def test_the_fingerprint_is_that_of_the_answers_and_not_of_the_files(tmp_path: Path) -> None:
    first = compared(tmp_path / "a", "red", "blue")
    assert compared(tmp_path / "b", "blue", "red").fingerprint == first.fingerprint
    changed = answered("red")
    changed[0]["outputs"] = ["another"]
    red = write_answers(tmp_path / "secret-red.jsonl", changed)
    blue = write_answers(tmp_path / "secret-blue.jsonl", answered("blue"))
    assert read([AnswerFile(red), AnswerFile(blue)]).fingerprint != first.fingerprint


ROW = {"id": "1", "turns": ["Why?"], "outputs": ["So."]}


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([], "other.jsonl has no answers in it"),
        ([{**ROW, "id": None}], "line 1: expected an object with an id"),
        ([ROW, {**ROW, "id": "2", "outputs": "So."}], "line 2: 'outputs' is no list of texts"),
        ([{**ROW, "turns": ["Why?", "And?"]}], "line 1: 2 turns and 1 outputs"),
        ([{**ROW, "source_lang": "tlh"}], "line 1: the Unicode CLDR knows no language 'tlh'"),
        ([ROW, ROW], "other has answered '1' before"),
        ([{**ROW, "turns": ["How?"]}], "different 'turns' for '1'"),
        ([{**ROW, "id": "9"}], "no question was answered by all of one, other"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(
    tmp_path: Path, rows: list[dict[str, Any]], sentence: str
) -> None:
    one = write_answers(tmp_path / "one.jsonl", [ROW])
    other = write_answers(tmp_path / "other.jsonl", rows)
    with pytest.raises(UserError, match=sentence):
        read([AnswerFile(one), AnswerFile(other)])


def test_two_to_four_systems_are_compared(tmp_path: Path) -> None:
    files = [AnswerFile(write_answers(tmp_path / f"{name}.jsonl", [ROW])) for name in "abcde"]
    for wrong in (files[:1], files):
        with pytest.raises(UserError, match=f"^{len(wrong)} systems to compare .*NAME=FILE"):
            read(wrong)
    assert len(read(files[:4]).systems) == 4
    (tmp_path / "f.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="line 1: no JSON"):
        read([files[0], AnswerFile(tmp_path / "f.jsonl")])
    with pytest.raises(UserError, match=r"cannot read the answers .*nowhere"):
        read([files[0], AnswerFile(tmp_path / "nowhere")])
