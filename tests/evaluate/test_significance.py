"""Figures as sacreBLEU has them, and tests whose rates are what they say."""

from __future__ import annotations

import random

import numpy as np
import pytest
import sacrebleu
from sacrebleu.significance import PairedTest

from bayling.evaluate.samples import Sample, faults, pooled, share
from bayling.evaluate.significance import corrected, difference, interval

pytestmark = pytest.mark.unit

SENTENCES = [
    f"{who} {what} {when} ."
    for who in ("The committee", "A small dog", "My neighbour's son", "Nobody in the village")
    for what in ("has read the long report", "wants to eat bread and butter", "sleeps", "ran away")
    for when in ("every day", "in the middle of the night", "for 24 kilometers", "without a word")
]


def noisy(rate: float, seed: int) -> list[str]:
    """The sentences, each without some of its words."""
    rng = random.Random(seed)
    return [
        " ".join(word for word in text.split() if rng.random() > rate) or "." for text in SENTENCES
    ]


METRICS = {
    "bleu": sacrebleu.BLEU(),
    "chrf": sacrebleu.CHRF(word_order=2),
    "ter": sacrebleu.TER(),
}


def sample(name: str, outputs: list[str]) -> Sample:
    counts = METRICS[name]._extract_corpus_statistics(outputs, [SENTENCES[: len(outputs)]])
    return Sample(name, np.asarray(counts, dtype=np.float64))


@pytest.mark.parametrize("name", list(METRICS))
def test_sums_give_sacrebleus_scores(name: str) -> None:
    for rate in (0.0, 0.2, 0.9):
        outputs = noisy(rate, 1)
        expected = METRICS[name].corpus_score(outputs, [SENTENCES]).score
        assert sample(name, outputs).value == pytest.approx(expected, abs=1e-9)
    for text in (["xyz"], ["sleeps"], [""]):
        expected = METRICS[name].corpus_score(text, [SENTENCES[:1]]).score
        assert sample(name, text).value == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", list(METRICS))
def test_intervals_and_p_values_are_near_sacrebleus(name: str) -> None:
    systems = {"a": noisy(0.30, 1), "b": noisy(0.33, 2)}
    _, results = PairedTest(
        list(systems.items()), {"m": METRICS[name]}, [SENTENCES], test_type="ar", n_samples=4000
    )()
    theirs = list(results.values())[-1]  # the first are the systems' names
    ours = difference(sample(name, systems["b"]), sample(name, systems["a"]))
    assert ours.p == pytest.approx(theirs[1].p_value, abs=0.05)
    low, high = interval(sample(name, systems["a"]))
    resampled = METRICS[name].corpus_score(systems["a"], [SENTENCES], n_bootstrap=1000)
    assert (high - low) / 2 == pytest.approx(resampled._ci, rel=0.25)
    assert low < ours.baseline < high


def test_a_system_beside_itself_is_no_different() -> None:
    one = sample("chrf", noisy(0.2, 1))
    same = difference(one, one)
    assert (same.difference, same.low, same.high) == (0, 0, 0)
    assert same.p_worse == same.p_better == 1


def test_a_clear_loss_is_told_and_its_direction_too() -> None:
    better, worse = sample("chrf", noisy(0.1, 1)), sample("chrf", noisy(0.5, 2))
    lost = difference(worse, better)
    assert lost.difference < 0
    assert lost.high < 0
    assert lost.p_worse < 0.001
    assert lost.p_better > 0.99
    more_edits = difference(sample("ter", noisy(0.5, 2)), sample("ter", noisy(0.1, 1)))
    assert more_edits.difference > 0
    assert more_edits.p_worse < 0.001


def test_few_items_are_counted_out_exactly() -> None:
    # Two answers of five are worse, none is better: one in four by chance.
    lost = difference(share([0, 0, 1, 1, 1]), share([1, 1, 1, 1, 1]))
    assert lost.p_worse == pytest.approx(1 / 4)
    assert lost.p_better == 1


def test_equal_systems_are_called_worse_as_seldom_as_the_p_value_says() -> None:
    """Two draws of the same process: below 5 % in about 5 % of the comparisons, however few the
    sentences are."""
    rng = np.random.default_rng(3)
    for items in (8, 30):
        p_values = []
        for _ in range(400):
            quality = rng.uniform(0.3, 0.9, size=items)
            one, other = (rng.random(items) < quality for _ in range(2))
            p_values.append(difference(share(one), share(other)).p_worse)
        assert sum(p < 0.05 for p in p_values) / 400 <= 0.08


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(4)
    covered = 0
    for _ in range(300):
        low, high = interval(share(rng.random(100) < 0.7))
        covered += low <= 0.7 <= high
    assert 0.90 <= covered / 300 <= 0.99


def test_a_loss_beyond_all_trials_is_significant_among_hundreds_of_directions() -> None:
    lost = difference(share([0] * 60 + [1] * 20), share([1] * 80))
    assert 0 < lost.p_worse < 1e-8
    assert lost.p_better == 1
    # Never below what counting out all exchanges would give.
    for differ in (18, 24):
        found = difference(share([0] * differ + [1] * 9), share([1] * (differ + 9)))
        assert found.p_worse > 0.5**differ


def test_many_differences_are_corrected_together() -> None:
    one = difference(share([0] * 10), share([1] * 10))
    none = difference(share([1] * 10), share([1] * 10))
    assert corrected({"a": one, "b": none})["a"] == pytest.approx(2 * one.p_worse)


def test_only_the_same_items_can_be_paired() -> None:
    with pytest.raises(ValueError, match="cannot be paired"):
        difference(share([1, 0]), share([1]))
    with pytest.raises(ValueError, match="cannot be paired"):
        difference(share([1]), faults([1]))
    with pytest.raises(ValueError, match="no interval"):
        interval(share([]))


def test_samples_of_one_figure_are_put_together() -> None:
    both = pooled([share([1, 0]), share([3, 0], [4, 4])])
    assert both.value == pytest.approx(4 / 10)
    assert len(both) == 4
