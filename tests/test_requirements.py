from __future__ import annotations

import pytest

from bayling.requirements import CHECKERS, Requirement, all_satisfied, satisfied

pytestmark = pytest.mark.unit

# kind, values, the answer before, an answer that meets it, one that does not
CASES = [
    ("script", ("de",), None, "in 5 Tagen", "через 5 дней"),
    ("script", ("zh",), None, "五天后", "in 5 Tagen"),
    ("script", ("zh",), None, "五天后", ""),
    ("contains", ("5", "Tagen"), None, "in 5 Tagen", "in 6 Tagen"),
    ("contains", ("Tagen",), None, "in 5 Tagen", "in 5 tagen"),
    ("lacks", ("Woche",), None, "in 7 Tagen", "in 1 Woche"),
    ("lacks", ("Woche",), None, "in 7 Tagen", ""),
    ("shorter", (), "in 5 Tagen", "in 5 T.", "in 5 Tagen"),
    ("shorter", (), "in 5 Tagen", "in 5 T.", ""),
    ("shorter", (), "in 5 Tagen", "in 5 T.", "  in 5 Tagen  "),
    ("changed", (), "in 5 Tagen", "in 6 Tagen", "in 5 Tagen "),
    ("changed", (), "in 5 Tagen", "in 6 Tagen", ""),
    ("json", ("text",), None, '{"text": "in 5 Tagen"}', "in 5 Tagen"),
    ("wrapped", ("“", "”"), None, "“in 5 Tagen”", "“in 5 Tagen"),
    ("extends", ("Heute.",), None, "Heute. In 5 Tagen.", "In 5 Tagen. Heute."),
    ("resembles", ("in five days",), None, "in fives days", "no answer"),
    ("language", ("de", "en"), None, "Wir kommen heute an.", "We will arrive today."),
    ("language", ("zh", "en"), None, "我们今天到。", "We will arrive today."),
    ("language", ("de", "en"), None, "Wir kommen heute an.", ""),
    ("revises", (), "Wir fahren in 5 Tagen.", "Wir reisen in 5 Tagen.", "Wir fahren in 5 Tagen."),
    ("revises", (), "Wir fahren heute.", "Wir fahren morgen.", "Wir fahren heute. morgen"),
    ("revises", (), "Wir fahren in 5 Tagen.", "Wir reisen in 5 Tagen.", "reisen"),
    ("revises", (), "Wir fahren in 5 Tagen.", "Wir reisen in 5 Tagen.", ""),
]


@pytest.mark.parametrize(("kind", "values", "previous", "right", "wrong"), CASES)
def test_an_answer_is_accepted_when_it_meets_the_requirement_and_refused_when_not(
    kind: str, values: tuple[str, ...], previous: str | None, right: str, wrong: str
) -> None:
    requirement = Requirement(kind, values)
    assert satisfied(requirement, right, previous)
    assert not satisfied(requirement, wrong, previous)


def test_every_checker_has_a_case_here() -> None:
    assert {kind for kind, *_ in CASES} == set(CHECKERS)


def test_nothing_is_shorter_than_no_answer() -> None:
    assert not satisfied(Requirement("shorter"), "in 5 T.", None)


def test_there_is_nothing_to_revise_in_a_first_answer() -> None:
    assert not satisfied(Requirement("revises"), "in 5 Tagen", None)


def test_a_first_answer_counts_as_changed() -> None:
    assert satisfied(Requirement("changed"), "in 5 Tagen", None)


def test_all_requirements_must_be_met_together() -> None:
    wanted = [Requirement("script", ("de",)), Requirement("contains", ("5",))]
    assert all_satisfied(wanted, "in 5 Tagen", None)
    assert not all_satisfied(wanted, "in 6 Tagen", None)
    assert not all_satisfied(wanted, "через 5 дней", None)
    assert all_satisfied([], "", None)


def test_a_requirement_that_no_checker_knows_is_an_error() -> None:
    with pytest.raises(KeyError, match="rhymes"):
        satisfied(Requirement("rhymes"), "answer", None)
