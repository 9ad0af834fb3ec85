from __future__ import annotations

import math

import pytest

from bayling.train.config import TrainConfig
from bayling.train.schedule import learning_rate

pytestmark = pytest.mark.unit

CONFIG = TrainConfig(learning_rate=2e-3, warmup=0.1, final_learning_rate=0.05)


def test_the_rate_rises_evenly_to_its_peak_and_not_from_zero() -> None:
    rising = [learning_rate(step, 100, CONFIG) for step in range(10)]
    assert rising == pytest.approx([2e-4 * (step + 1) for step in range(10)])
    assert learning_rate(10, 100, CONFIG) == pytest.approx(2e-3)


def test_it_falls_from_the_peak_to_the_end_value() -> None:
    falling = [learning_rate(step, 100, CONFIG) for step in range(10, 101)]
    assert falling == sorted(falling, reverse=True)
    assert falling[45] == pytest.approx(2e-3 * (0.05 + 0.95 / 2))  # half way
    assert falling[-1] == pytest.approx(1e-4)
    assert falling[-2] < 1.01e-4


def test_the_highest_rate_of_all_is_the_one_configured() -> None:
    for steps in (1, 2, 7, 1000):
        rates = [learning_rate(step, steps, CONFIG) for step in range(steps)]
        assert max(rates) == pytest.approx(CONFIG.learning_rate)
        assert min(rates) > 0


def test_without_warm_up_it_starts_at_the_peak() -> None:
    config = TrainConfig(learning_rate=1e-3, warmup=0.0)
    assert learning_rate(0, 10, config) == 1e-3


def test_warm_up_may_take_all_steps() -> None:
    config = TrainConfig(learning_rate=1e-3, warmup=1.0)
    rates = [learning_rate(step, 4, config) for step in range(4)]
    assert rates == pytest.approx([2.5e-4, 5e-4, 7.5e-4, 1e-3])


def test_an_end_value_of_one_keeps_the_rate() -> None:
    config = TrainConfig(learning_rate=1e-3, warmup=0.0, final_learning_rate=1.0)
    assert all(math.isclose(learning_rate(step, 9, config), 1e-3) for step in range(9))
