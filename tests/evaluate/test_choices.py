from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sources import write, write_json_lines

from bayling.errors import UserError
from bayling.evaluate import choices

pytestmark = pytest.mark.unit

ENGLISH: dict[str, Any] = {
    "passage": "Mr. H can be programmed.",
    "question": "With help from a Mr. H, you can   .",
    "options": ["(A)stop using batteries.", "(B)finish your homework."],
    "label": "B",
    "answer": None,
    "other": {"source": "2014"},
}
CHINESE: dict[str, Any] = {
    "passage": None,
    "question": "“一万年农业”指的是",
    "options": ["(A)中华文明", "(B)埃及文明", "(C)印度文明", "(D)希腊文明"],
    "label": ["A"],
}


def read(folder: Path, *rows: dict[str, Any]) -> choices.QuestionFile:
    return choices.read(write_json_lines(folder / "exam.jsonl", rows))


def options(folder: Path, *written: str) -> tuple[str, ...]:
    return read(folder, {**ENGLISH, "options": list(written), "label": "A"}).questions[0].options


def test_prompts_are_those_of_baylings_published_evaluation(tmp_path: Path) -> None:
    (english,) = read(tmp_path, ENGLISH).rows()
    assert english["turns"] == [
        "Mr. H can be programmed.\n\nQuestion:\nWith help from a Mr. H, you can   .\nChoices:\n"
        "(A)stop using batteries.\n(B)finish your homework.\n\nAnswer:\n"
        'Output the correct answer in this format: "Answer is choice ()"'
    ]
    (chinese,) = read(tmp_path, CHINESE).rows()
    assert chinese["turns"] == [
        "问题：\n“一万年农业”指的是\n选项：\n(A)中华文明\n(B)埃及文明\n(C)印度文明\n(D)希腊文明\n\n"
        '答案：\n按照此格式输出正确答案："答案是选项()"'
    ]


def test_an_exam_is_asked_in_the_language_of_its_questions(tmp_path: Path) -> None:
    formulas = {**CHINESE, "question": r"设 $\left\{x \mid x \geq 1\right\}$, 则 $A \cap B=$"}
    assert read(tmp_path, formulas, CHINESE, ENGLISH).language == "zh"
    mentions = {**ENGLISH, "question": "What does 羊 mean?"}
    assert read(tmp_path, ENGLISH, ENGLISH, mentions).language == "en"


@pytest.mark.parametrize(
    "written",
    [
        ("(A)one", "(B)two", "(C)three"),
        ("（A） one", "（B） two", "（C） three"),
        ("    A. one   ", "B．two", "(C)three"),
        ("A、one", "B:two", "C? three"),
        ("A one", "B two", "C three"),
        ("one", "two", "three"),
        ("(C)three", "(A)one", "(B)two"),
        ("one", "two", "(C)three"),
        ("(A)one", "(B)two", "(B)three"),
    ],
)
def test_options_are_read_as_the_published_files_write_them(
    written: tuple[str, ...], tmp_path: Path
) -> None:
    assert options(tmp_path, *written) == ("one", "two", "three")


def test_a_letter_that_belongs_to_an_options_text_stays(tmp_path: Path) -> None:
    assert options(tmp_path, "A man", "A woman") == ("A man", "A woman")
    assert options(tmp_path, "(A)A is a doctor", "(B)B is one") == ("A is a doctor", "B is one")


@pytest.mark.parametrize(
    ("label", "right", "several"),
    [
        ("B", "B", False),
        (["B"], "B", False),
        ("A B D", "ABD", True),
        ("AD", "AD", True),
        (["A", "C", "D", "。"], "ACD", True),
        ("Ａ", "A", False),
    ],
)
def test_labels_are_letters_however_they_are_written(
    label: Any, right: str, several: bool, tmp_path: Path
) -> None:
    exam = read(tmp_path, {**CHINESE, "label": label})
    assert exam.questions[0].right == set(right)
    assert exam.several is several


def test_a_question_without_a_label_keeps_its_place_and_is_not_asked(tmp_path: Path) -> None:
    exam = read(tmp_path, CHINESE, {**CHINESE, "label": []}, CHINESE)
    assert [question.judged for question in exam.questions] == [True, False, True]
    assert [row["id"] for row in exam.rows()] == ["exam/1", "exam/3"]


def test_a_question_without_options_has_an_open_answer(tmp_path: Path) -> None:
    row = {"question": "则 $a=(\\quad)$", "options": None, "label": None, "answer": "2"}
    (asked,) = read(tmp_path, row).rows()
    assert asked["turns"] == ["问题：则 $a=(\\quad)$\n答案："]
    assert (asked["options"], asked["right"], asked["answer"]) == ([], [], "2")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", r"exam.jsonl, line 2 is not JSON"),
        ("[1]", r"exam.jsonl, line 2 is no JSON object"),
        ('{"options": []}', r"line 2: it has no 'question'"),
        ('{"question": "?", "options": ["(A)a", 2]}', r"line 2: 'options' is no list of texts"),
        ('{"question": "?", "options": ["(A)a (B)b"], "label": "A"}', r"between 2 to 26 options"),
        (
            '{"question": "?", "options": ["(A)a", "(B)b"], "label": "C"}',
            r"line 2: the label 'C' names no option: they are A to B",
        ),
        ('{"question": "?", "id": "exam/1", "label": []}', r"line 2: the id 'exam/1' is .* line 1"),
    ],
)
def test_a_line_that_is_no_question_is_named(line: str, said: str, tmp_path: Path) -> None:
    good = write_json_lines(tmp_path / "good", [ENGLISH]).read_text("utf-8")
    path = write(tmp_path / "exam.jsonl", f"{good}{line}\n")
    with pytest.raises(UserError, match=said):
        choices.read(path)


def test_files_are_found_by_name_and_by_pattern(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        write_json_lines(tmp_path / f"{name}.jsonl", [ENGLISH])
    write_json_lines(tmp_path / "old" / "a.jsonl", [ENGLISH])
    found = choices.find([f"{tmp_path}/c.jsonl", f"{tmp_path}/[ab].jsonl"], "files")
    assert [path.name for path in found] == ["c.jsonl", "a.jsonl", "b.jsonl"]
    with pytest.raises(UserError, match=r"files: .*old/a.jsonl are one name, 'a'"):
        choices.find([f"{tmp_path}/*.jsonl", f"{tmp_path}/old/*"], "files")
