from __future__ import annotations

import math

import pytest

from bayling.train.guard import Guard

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_is_bad_from_the_first_step_on(loss: float) -> None:
    assert Guard(3.0).judge(loss) == f"the loss is {loss}"


def test_a_loss_may_be_anything_until_there_are_enough_to_compare_with() -> None:
    guard = Guard(3.0)
    for _ in range(19):
        guard.accept(1.0)
    assert guard.judge(100.0) is None
    guard.accept(1.0)
    assert guard.judge(100.0) == "the loss is 100, 100.0 times its recent mean"


def test_a_jump_is_above_the_factor_and_not_at_it() -> None:
    guard = Guard(3.0, [2.0] * 20)
    assert guard.judge(6.0) is None
    assert guard.judge(6.1) is not None


def test_only_the_last_fifty_count() -> None:
    guard = Guard(3.0, [100.0] * 50)
    for _ in range(50):
        assert guard.judge(1.0) is None
        guard.accept(1.0)
    assert guard.judge(3.5) is not None


def test_judging_alone_changes_nothing() -> None:
    """A step that is left out must not make the next jump look usual."""
    guard = Guard(3.0, [1.0] * 20)
    verdicts = {guard.judge(50.0) for _ in range(60)}
    assert verdicts == {"the loss is 50, 50.0 times its recent mean"}


def test_it_goes_on_from_the_losses_of_a_checkpoint() -> None:
    guard = Guard(2.0)
    for step in range(70):
        guard.accept(1.0 + step / 100)
    again = Guard(2.0, guard.losses)
    assert len(guard.losses) == 50
    for loss in (2.8, 2.9, 3.0):
        assert again.judge(loss) == guard.judge(loss)
    assert guard.judge(3.0) is not None
