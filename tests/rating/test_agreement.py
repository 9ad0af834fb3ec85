"""Agreement beyond chance: against sums by hand, and raters who copy or throw dice."""

from __future__ import annotations

import random
from collections import Counter
from itertools import permutations

import pytest
from rated import vote

from bayling.rating.agreement import agreement
from bayling.rating.results import results
from bayling.rating.votes import Vote

pytestmark = pytest.mark.unit

VERDICTS = {
    "a": ({"x": 1, "y": 2}, False),
    "b": ({"x": 2, "y": 1}, False),
    "tie": ({"x": 1, "y": 1}, False),
    "bad": ({"x": 1, "y": 1}, True),
}


def of(rater: str, *verdicts: str | None) -> list[Vote]:
    """A rater's verdicts on items 0, 1, 2, …; None where they gave none."""
    return [
        vote(VERDICTS[one][0], item=str(number), rater=rater, bad=VERDICTS[one][1])
        for number, one in enumerate(verdicts)
        if one is not None
    ]


def test_cohens_kappa_by_hand() -> None:
    """20 both say a, 15 both say b, 5 and 10 differ: seen 0.7, expected 0.5, kappa 0.4."""
    ana = of("Ana", *["a"] * 25, *["b"] * 25)
    bo = of("Bo", *["a"] * 20, *["b"] * 5, *["a"] * 10, *["b"] * 15)
    found = agreement(ana + bo)
    assert found is not None
    assert (found.measure, found.items, found.raters) == ("cohen_kappa", 50, 2)
    assert found.value == pytest.approx(0.4)
    assert found.same == pytest.approx(0.7)
    assert found.low is not None and found.high is not None
    assert found.low < 0.4 < found.high
    # The usual large-sample error: sqrt(0.7 · 0.3) / (0.5 · sqrt(50)) = 0.13.
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.13, rel=0.15)


def test_krippendorffs_alpha_from_its_definition() -> None:
    """Four raters who have not all judged everything: 1 - seen / expected disagreement, from the
    coincidences of every two verdicts on an item, each worth 1 / (verdicts - 1)."""
    a, b, c, d, n = "a", "b", "tie", "bad", None
    rows = [
        (a, b, c, c, b, a, d, a, b, n, n, n),
        (a, b, c, c, b, b, d, a, b, d, n, c),
        (n, c, c, c, b, c, d, b, b, d, a, n),
        (a, b, c, c, b, d, d, a, b, d, a, n),
    ]
    found = agreement(
        [given for name, row in zip("ABCD", rows, strict=True) for given in of(name, *row)]
    )
    assert found is not None
    assert found.measure == "krippendorff_alpha"
    assert (found.raters, found.items) == (4, 11), "the last item was judged once"
    met: Counter[tuple[str, str]] = Counter()
    for column in zip(*rows, strict=True):
        given = [one for one in column if one is not None]
        for first, second in permutations(given, 2):
            met[first, second] += 1 / (len(given) - 1)
    total = sum(met.values())
    assert total == pytest.approx(40)
    differ = sum(weight for (one, other), weight in met.items() if one != other)
    counts = [sum(w for (one, _), w in met.items() if one == verdict) for verdict in (a, b, c, d)]
    by_chance = (total**2 - sum(number**2 for number in counts)) / (total - 1)
    assert found.value == pytest.approx(1 - differ / by_chance)


def test_perfect_agreement_is_one_and_dice_agree_on_nothing() -> None:
    verdicts = ["a", "b", "tie", "bad"] * 10
    perfect = agreement(of("Ana", *verdicts) + of("Bo", *verdicts) + of("Cy", *verdicts))
    assert perfect is not None and perfect.value == pytest.approx(1)
    rng = random.Random(5)
    dice = agreement(
        [
            given
            for rater in ("Ana", "Bo", "Cy")
            for given in of(rater, *rng.choices(["a", "b", "tie", "bad"], k=400))
        ]
    )
    assert dice is not None and dice.low is not None and dice.high is not None
    assert dice.low < 0 < dice.high
    assert dice.value == pytest.approx(0, abs=0.06)


def test_it_is_undefined_where_all_verdicts_are_the_same() -> None:
    found = agreement(of("Ana", "a", "a") + of("Bo", "a", "a"))
    assert found is not None
    assert (found.value, found.low, found.same) == (None, None, 1.0)


def test_who_has_judged_nothing_that_others_have_does_not_agree_or_disagree() -> None:
    assert agreement(of("Ana", "a", "b")) is None
    found = agreement(of("Ana", "a", "b") + of("Bo", "a", "b") + of("Cy", None, None, "a"))
    assert found is not None
    assert (found.raters, found.measure, found.value) == (2, "cohen_kappa", 1.0)


def test_rankings_agree_by_their_pairs() -> None:
    ana = [vote({"x": 1, "y": 2, "z": 3}, item=str(it)) for it in range(10)]
    bo = [vote({"x": 1, "y": 3, "z": 2}, item=str(it), rater="Bo") for it in range(10)]
    found = agreement(ana + bo)
    assert found is not None
    assert found.same == pytest.approx(2 / 3), "they differ on y and z alone"


def test_each_task_is_ranked_apart() -> None:
    votes = [vote({"x": 1, "y": 2}, item=str(it)) for it in range(4)]
    assert list(results(votes)) == ["all"], "one task is all"
    votes += [vote({"x": 2, "y": 1}, item="m", task="multi-turn", bad=False)]
    found = results(votes)
    assert {name: group.votes for name, group in found.items()} == {
        "all": 5,
        "translation": 4,
        "multi-turn": 1,
    }
    assert found["multi-turn"].standings[0].system == "y"
    assert found["all"].metrics()["x/win_share"] == pytest.approx(0.8)
