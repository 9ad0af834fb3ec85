from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayling.evaluate.extraction import chosen

pytestmark = pytest.mark.unit

WAYS = ["stop using batteries.", "finish your homework on time.", "remember it.", "get tidied."]
PLACES = ["中华文明", "埃及文明", "印度文明", "希腊文明"]
NUMBERS = ["3", "3.5", "30", "13"]
BLOOD = ["A型血", "B型血", "AB型血", "O型血"]

STATED = [
    # The form that was asked for, and what models make of it.
    ("Answer is choice (B)", WAYS, "B"),
    ("Answer is choice (B) finish your homework on time.", WAYS, "B"),
    ('"Answer is choice (B)"', WAYS, "B"),
    ("Answer is choice B.", WAYS, "B"),
    ("Answer is choice (b)", WAYS, "B"),
    ("Answer is choice () B", WAYS, "B"),
    ("Answer is (finish your homework on time)", WAYS, "B"),
    ("Answer is choice finish your homework on time.", WAYS, "B"),
    ('Answer is: "Answer is: Option D"', WAYS, "D"),
    ("答案是选项(A)", PLACES, "A"),
    ("答案是选项（A）中华文明。", PLACES, "A"),
    ("答案是选项A。", PLACES, "A"),
    ("答案是选项B$3.5$ 种", NUMBERS, "B"),
    ("答案是选项（Ａ）", PLACES, "A"),
    ('"答案是选项(D)"', PLACES, "D"),
    ("答案是埃及文明。", PLACES, "B"),
    # Other statements.
    ("The answer is (C)", WAYS, "C"),
    ("The correct answer is therefore C, because …", WAYS, "C"),
    ("**Answer: C**", WAYS, "C"),
    ("Answer: C\n\nExplanation: Option A is wrong, and so are B and D.", WAYS, "C"),
    ("The correct answer to this question is option **(D)**.", WAYS, "D"),
    ("The best choice would be A because it says so.", WAYS, "A"),
    ("I would choose option D.", WAYS, "D"),
    ("So the final result is $\\boxed{C}$.", WAYS, "C"),
    ("\\boxed{\\text{(C)}}", WAYS, "C"),
    ("Answer Choice (D)", WAYS, "D"),
    ("答案：C", PLACES, "C"),
    ("答：D", PLACES, "D"),
    ("答案为【C】", PLACES, "C"),
    ("故选C。", PLACES, "C"),
    ("我们应选择B选项，因为它正确。", PLACES, "B"),
    ("因此，正确的选项是（D）希腊文明。", PLACES, "D"),
    ("最能支持以上论述的选项是(C)。", PLACES, "C"),
    ("论证所依赖的假设是选项C：印度文明。", PLACES, "C"),
    # The letter alone.
    ("C", WAYS, "C"),
    (" (C) ", WAYS, "C"),
    ("C.", WAYS, "C"),
    ("**C**", WAYS, "C"),
    ("Option C", WAYS, "C"),
    ("Ｃ", PLACES, "C"),
    ("（C）。", PLACES, "C"),
    ("选项C", PLACES, "C"),
    ("选C", PLACES, "C"),
    ("Let me think about the robot.\n\nC", WAYS, "C"),
    # The prompt of a completion model ends with an open bracket.
    ("B) finish your homework on time. Nothing else is said.", WAYS, "B"),
    ("D)希腊文明。其他选项与此不符。", PLACES, "D"),
    ("C)。选项A只能解释一部分；选项B与此无关。", PLACES, "C"),
    # The option in a sentence, with its letter or on its own.
    ("With the robot you can (B) finish your homework on time.", WAYS, "B"),
    ("以上文字出自(B)埃及文明。", PLACES, "B"),
    ("finish your homework on time", WAYS, "B"),
    ("Finish your  homework on time!", WAYS, "B"),
    ("  希腊文明。", PLACES, "D"),
    ("(B) is the best answer.", WAYS, "B"),
    ("B选项正确。", PLACES, "B"),
    # Second thoughts that say so, and reasoning that is set apart.
    ("The answer is A. Wait. Therefore the answer is (B).", WAYS, "B"),
    ("答案是A，不对。所以答案是B。", PLACES, "B"),
    ("<think>The answer is (A), or so.</think>\nThe answer is (D).", WAYS, "D"),
    ("It is not A, nor is it B; so the answer is (D).", WAYS, "D"),
]
UNSTATED = [
    ("", WAYS),
    ("()", WAYS),
    ("Answer is choice ()", WAYS),
    ("答案是选项()", PLACES),
    ('Output the correct answer in this format: "Answer is choice ()"', WAYS),
    # A letter that merely occurs.
    ("A robot can help you with many things.", WAYS),
    ("I am not sure.", WAYS),
    ("The answer is a question of taste.", WAYS),
    ("The answer is A lot of homework.", WAYS),
    ("Vitamin C is healthy, and so is plan B.", WAYS),
    ("A. Smith wrote the passage.", WAYS),
    ("Both A and B are planets.", WAYS),
    ("The answer is D.H. Lawrence's novel.", WAYS),
    ("选项A错误。", PLACES),
    ("答案是AB型。", PLACES),
    ("他的血型是A型。", PLACES),
    ("本题考查学生的理解能力。", PLACES),
    # What is not claimed.
    ("The answer is not (A).", WAYS),
    ("If the answer is A, then B is wrong.", WAYS),
    ("I do not think that the answer is (B).", WAYS),
    ("Is the answer (B)?", WAYS),
    ("答案不是A。", PLACES),
    ("如果答案是A，那么其余都错。", PLACES),
    ("不应选B。", PLACES),
    # No choice: all of them, some of them, one that does not exist.
    ("(A) stop using batteries.\n(B) finish your homework on time.", WAYS),
    ("A\nB\nC\nD", WAYS),
    ("The answer is (A) or (B).", WAYS),
    ("The answer is A and B.", WAYS),
    ("The answer is (A). The answer is (B).", WAYS),
    ("答案是：A、B", PLACES),
    ("The answer is (E).", WAYS),
    ("E", WAYS),
    # A text that only begins like an option, or is only like it.
    ("The answer is 3 times as much.", NUMBERS),
    ("You can finish it.", WAYS),
]


@pytest.mark.parametrize(("text", "options", "letter"), STATED)
def test_what_an_answer_says_is_understood(text: str, options: list[str], letter: str) -> None:
    assert chosen(text, options) == {letter}


@pytest.mark.parametrize(("text", "options"), UNSTATED)
def test_what_an_answer_does_not_say_is_not_guessed(text: str, options: list[str]) -> None:
    assert chosen(text, options) is None


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("答案是选项(A)、(C)", "AC"),
        ("答案是ABD。", "ABD"),
        ("答案是选项(A)中华文明、(C)印度文明和(D)希腊文明。", "ACD"),
        ("故选AC。", "AC"),
        ("B)埃及文明 和 (C)印度文明. 解析：略。", "BC"),
        ("A, C", "AC"),
        ("(A)(D)", "AD"),
        ("The answer is A and C.", "AC"),
        ("Answer is choice (B)", "B"),
    ],
)
def test_several_options_are_taken_where_several_can_be_right(text: str, letters: str) -> None:
    assert chosen(text, PLACES, several=True) == set(letters)


def test_alternatives_are_no_choice_even_where_several_can_be_right() -> None:
    assert chosen("The answer is A or C.", PLACES, several=True) is None


def test_an_option_that_begins_with_a_letter_is_no_letter() -> None:
    assert chosen("答案是AB型血。", BLOOD) == {"C"}
    assert chosen("答案是A型血。", BLOOD) == {"A"}
    assert chosen("O型血", BLOOD) == {"D"}


def test_options_with_one_text_cannot_be_told_apart_by_it() -> None:
    assert chosen("7", ["7", "7", "8", "9"]) is None
    assert chosen("Answer is (B) 7", ["7", "7", "8", "9"]) == {"B"}


def test_letters_are_those_of_the_question() -> None:
    ten = [f"option {number}" for number in range(10)]
    assert chosen("The answer is (J).", ten) == {"J"}
    assert chosen("The answer is (J).", ten[:9]) is None


WORDS = [
    *("A", "B", "a", "I", "vitamin", "plan", "C", "D", "passage", "Because", "author", "E=mc"),
    *("they", "said", "文明", "维生素C", "和", "，", ",", "robot", "about", "Dr.", "D-Day", "see"),
]


@given(st.lists(st.sampled_from(WORDS), min_size=6, max_size=30))
def test_a_letter_that_merely_occurs_is_never_taken(words: list[str]) -> None:
    text = " ".join(["They", *words, "robot", "they", "said"])
    assert chosen(text, WAYS) is None


@given(
    before=st.lists(st.sampled_from([*WORDS, "\n"]), max_size=20),
    letter=st.sampled_from("ABCD"),
    form=st.sampled_from(["Answer is choice ({})", "The answer is ({}).", "答案是选项({})"]),
)
def test_an_answer_in_the_form_asked_for_is_found_behind_anything(
    before: list[str], letter: str, form: str
) -> None:
    assert chosen(" ".join(before) + "\n" + form.format(letter), WAYS) == {letter}


@given(st.text(alphabet=string.printable + "答案是选项（）ＡＢＣ、。", max_size=80), st.booleans())
def test_no_text_breaks_it_or_gives_a_letter_that_is_no_option(text: str, several: bool) -> None:
    found = chosen(text, WAYS, several=several)
    assert found is None or (found and found <= set("ABCD"))
    assert several or found is None or len(found) == 1
