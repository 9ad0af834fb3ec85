from __future__ import annotations

import pytest

from bayling.evaluate.open_answers import given, same

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"We find $x = 3$, so the answer is $\boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        (r"\boxed{x = 12}", "12"),
        ("The answer is 12.", "12"),
        ("The answer is: $a=12$", "12"),
        ("答案是$-\\frac{1}{2}$。", r"-\frac{1}{2}"),
        ("答案：12", "12"),
        ("设 $f(x) = x^2$。\n\n因此，$a = 0$。", "0"),
        ("12", "12"),
        ("$12$", "12"),
        ("<think>The answer is 3.</think>\nThe answer is 4.", "4"),
    ],
)
def test_the_answer_is_where_a_text_says_it(text: str, answer: str) -> None:
    assert given(text) == answer


@pytest.mark.parametrize(
    "text",
    [
        "",
        "我不知道。",
        "There are 12 eggs in 3 boxes, and more of them elsewhere.",
        "We begin with $x = 3$.\nNothing follows.",
        r"\boxed{",
    ],
)
def test_a_number_that_merely_occurs_is_no_answer(text: str) -> None:
    assert given(text) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"\frac{1}{2}", "1/2"),
        (r"\dfrac{1}{2}", r"\frac12"),
        ("0.5", r"\frac{1}{2}"),
        (".5", "0.5"),
        ("1,000", "1000"),
        (r"90^\circ", "90"),
        (r"12\text{ cm}", "12"),
        (r"50\%", "50"),
        ("x=5", "5"),
        (r"\sqrt3", r"\sqrt{3}"),
        (r"\left( 1, 2 \right)", "(1,2)"),
        ("-3/4", r"-\frac{3}{4}"),
    ],
)
def test_two_ways_of_writing_an_answer_are_one(one: str, other: str) -> None:
    assert same(one, other)
    assert same(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [("2", "3"), ("1/2", "-1/2"), ("(1,2)", "(2,1)"), ("x+1", "x-1"), ("1,2", "12"), ("1/0", "1")],
)
def test_other_answers_are_others(one: str, other: str) -> None:
    assert not same(one, other)
