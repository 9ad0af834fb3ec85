from __future__ import annotations

import pytest

from bayling.evaluate.pairs import Outcome, Pair, by_score, counts, in_both_orders, scored

pytestmark = pytest.mark.unit

WIN, TIE, LOSS = Outcome.win, Outcome.tie, Outcome.loss


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        (WIN, WIN, WIN),
        (LOSS, LOSS, LOSS),
        (WIN, LOSS, TIE),  # whoever was shown first
        (WIN, TIE, TIE),
        (TIE, LOSS, TIE),
        (TIE, TIE, TIE),
    ],
)
def test_a_win_is_one_in_both_orders(first: Outcome, second: Outcome, together: Outcome) -> None:
    assert in_both_orders(first, second) is together
    assert in_both_orders(second, first) is together


def test_the_higher_score_wins_by_however_little() -> None:
    assert [by_score(pair) for pair in [(9.0, 8.5), (8.0, 8.0), (8.5, 9.0)]] == [WIN, TIE, LOSS]


PAIRS = [
    Pair(WIN, (9.0, 6.0), True, (("category", "writing"),)),
    Pair(LOSS, (5.0, 8.0), True, (("category", "math"),)),
    Pair(TIE, (7.0, 7.0), False, (("category", "math"),)),
    Pair(TIE, (7.0, 9.0), False, (("category", "math"),)),
]


def test_figures_are_those_of_a_hand_count() -> None:
    found = scored(PAIRS).as_dict()["groups"]
    assert counts(PAIRS) == {"wins": 1, "ties": 2, "losses": 1, "judged": 4}
    every = {name: figure["value"] for name, figure in found["all"]["figures"].items()}
    assert every == {
        "win_rate": 0.25,
        "tie_rate": 0.5,
        "loss_rate": 0.25,
        "score_ratio": pytest.approx(28 / 30),
        "agreement": 0.5,
    }
    math = found["math"]
    assert (math["wins"], math["ties"], math["losses"]) == (0, 2, 1)
    assert math["figures"]["score_ratio"]["value"] == pytest.approx(19 / 24)
    assert math["kind"] == "category"
    for figure in found["all"]["figures"].values():
        assert figure["low"] <= figure["value"] <= figure["high"]


def test_without_scores_there_is_no_ratio_and_with_one_order_no_agreement() -> None:
    assert "score_ratio" not in scored([*PAIRS, Pair(WIN, None, True)]).samples["all"]
    assert "agreement" not in scored([*PAIRS, Pair(WIN, (9.0, 8.0))]).samples["all"]


def test_a_category_called_all_is_not_taken_for_all() -> None:
    found = scored([Pair(WIN, (9.0, 6.0), groups=(("category", "all"),)), Pair(LOSS, (1.0, 2.0))])
    assert len(found.samples["all"]["win_rate"]) == 2
    assert len(found.samples["category all"]["win_rate"]) == 1


def test_of_no_pairs_there_are_no_figures() -> None:
    assert scored([]).as_dict() == {"groups": {}, "details": {}}
