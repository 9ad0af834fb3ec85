"""What follows from what is seen of a rollout, state by state."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bayling.serve.rollout import plan
from bayling.serve.rollout.comparison import Finding, Looks, Traffic, Verdict
from bayling.serve.rollout.config import RolloutConfig
from bayling.serve.rollout.plan import Rollout, State
from bayling.serve.rollout.probes import Answered, Probe, Warmth
from bayling.serve.rollout.target import Engines, Observation

pytestmark = pytest.mark.unit

CONFIG = RolloutConfig()
UP = Engines(running=1, ready=True, ongoing=0)
WARM = Warmth((Answered(Probe("…", "de", "21. März 2031"), "21. März 2031"),))
SERVING_7 = Rollout(new="7", since=0.0)


def seen(shares: dict[str, float] | None, **versions: Engines) -> Observation:
    there = {name.removeprefix("v"): one for name, one in versions.items()}
    return Observation(shares, {**dict.fromkeys(shares or (), UP), **there})


def advance(now: Rollout, what: Observation, at: float) -> Rollout:
    return plan.advance(now, what, CONFIG, at, start_within_s=300, finish_within_s=130)


def said(verdict: Verdict) -> list[Finding]:
    return [Finding("errors", verdict, 0.01, 0.2, 0.1, 0.3, 0.02, 200)]


def begun() -> Rollout:
    return plan.begin(SERVING_7, "8", 10.0, asked_by="mei")


def canary(step: int = 0, at: float = 20.0) -> Rollout:
    now = plan.warmed(replace(begun(), state=State.warming), WARM, CONFIG, at)
    now = replace(now, step=step)
    return advance(now, seen(now.shares(CONFIG)), at)


def full(at: float = 5000.0) -> Rollout:
    now = plan.looked(canary(step=2), said(Verdict.as_good), 4, at - 1)
    return advance(now, seen(now.shares(CONFIG)), at)


def test_a_version_gets_traffic_only_after_it_started_and_answered() -> None:
    now = begun()
    assert now.shares(CONFIG) == {"7": 1.0, "8": 0.0}
    assert (
        advance(now, seen(now.shares(CONFIG), v8=Engines(starting=1)), 11).state is State.starting
    )
    now = advance(now, seen(now.shares(CONFIG)), 12)
    assert (now.state, now.shares(CONFIG)) == (State.warming, {"7": 1.0, "8": 0.0})
    now = plan.warmed(now, WARM, CONFIG, 13)
    assert (now.state, now.shares(CONFIG)) == (State.canary, {"7": 0.95, "8": 0.05})


def test_the_api_must_have_taken_a_version_up_before_it_is_asked() -> None:
    assert advance(begun(), seen({"7": 1.0}, v8=UP), 12).state is State.starting


def test_a_version_that_cannot_start_is_rolled_back_with_its_reason() -> None:
    broken = seen({"7": 1.0, "8": 0.0}, v8=Engines(failed="models/8 holds no model"))
    now = advance(begun(), broken, 12)
    assert now.state is State.rolled_back
    assert now.reason == "version 8 could not be started: models/8 holds no model"
    assert (now.shares(CONFIG), now.leaving) == ({"7": 1.0}, ("8",))


def test_a_version_for_which_there_is_no_room_is_rolled_back_after_a_while() -> None:
    waiting = seen({"7": 1.0, "8": 0.0}, v8=Engines(starting=1))
    assert advance(begun(), waiting, 300).state is State.starting
    now = advance(begun(), waiting, 311)
    assert now.state is State.rolled_back and "free CPUs or GPUs" in now.reason


def test_a_version_that_breaks_in_traffic_is_rolled_back_at_once() -> None:
    now = canary()
    broken = seen(now.shares(CONFIG), v8=Engines(failed="out of memory"))
    assert advance(now, broken, 21).state is State.rolled_back


def test_samples_count_from_when_the_share_holds() -> None:
    now = plan.warmed(replace(begun(), state=State.warming), WARM, CONFIG, 20.0)
    assert advance(now, seen({"7": 1.0, "8": 0.0}), 21).counted_from is None
    assert advance(now, seen({"7": 0.95, "8": 0.05}), 22).counted_from == 22


def test_each_step_takes_its_time_however_good_the_version_is() -> None:
    now = plan.looked(canary(at=20), said(Verdict.as_good), 4, 30)
    holds = seen(now.shares(CONFIG))
    assert advance(now, holds, 319).step == 0
    after = advance(now, holds, 321)
    assert (after.step, after.share(CONFIG)) == (1, 0.25)
    # The next step begins with samples of its own.
    assert (after.counted_from, after.look, after.good) == (None, 0, False)


def test_a_later_look_can_take_back_what_an_earlier_one_said() -> None:
    now = plan.looked(canary(at=20), said(Verdict.as_good), 4, 30)
    now = plan.looked(now, said(Verdict.undecided), 5, 60)
    assert advance(now, seen(now.shares(CONFIG)), 400).step == 0


def test_a_worse_version_loses_its_share_and_the_reason_has_the_figures() -> None:
    now = plan.looked(canary(), said(Verdict.worse), 2, 30)
    assert now.state is State.rolled_back
    assert now.shares(CONFIG) == {"7": 1.0}
    assert now.serving == "7"
    assert "failed requests: 20.0% after 1.0%" in now.reason


def test_no_traffic_leaves_a_rollout_undecided_and_never_makes_it_full() -> None:
    now = canary(at=20)
    nothing = seen(now.shares(CONFIG))
    assert plan.due_look(now, nothing, Looks.of(CONFIG)) is None
    now = advance(now, nothing, 8000)
    assert now.state is State.undecided
    assert now.shares(CONFIG) == {"7": 0.95, "8": 0.05}
    assert advance(now, nothing, 1e9).state is State.undecided
    said_so = plan.waits_for(now, nothing, CONFIG, Looks.of(CONFIG), 8000)
    assert said_so == "200 more requests to version 8"


def test_an_undecided_rollout_goes_on_when_there_is_enough_to_decide_by() -> None:
    now = replace(canary(at=20), state=State.undecided)
    assert plan.looked(now, said(Verdict.worse), 1, 9000).state is State.rolled_back
    now = plan.looked(now, said(Verdict.as_good), 4, 9000)
    after = advance(now, seen(now.shares(CONFIG)), 9001)
    assert (after.state, after.step) == (State.canary, 1)


def test_after_the_last_step_the_old_version_is_kept_for_a_while_and_then_leaves() -> None:
    now = full(at=5000)
    assert now.state is State.full
    assert now.shares(CONFIG) == {"7": 0.0, "8": 1.0}
    holds = seen(now.shares(CONFIG))
    assert advance(now, holds, 5899).shares(CONFIG) == {"7": 0.0, "8": 1.0}
    now = advance(now, holds, 5901)
    assert (now.shares(CONFIG), now.leaving) == ({"8": 1.0}, ("7",))


def test_a_version_that_leaves_is_removed_when_the_api_names_it_no_more_and_it_rests_twice() -> (
    None
):
    now = advance(full(at=5000), seen({"7": 0.0, "8": 1.0}), 5901)
    busy = seen({"8": 1.0}, v7=Engines(running=1, ready=True, ongoing=2))
    for what in (seen({"7": 0.0, "8": 1.0}), busy, seen(None), seen({"8": 1.0}, v7=UP)):
        now = advance(now, what, 5902)
        assert now.leaving == ("7",)
    # A request in between counts anew.
    now = advance(advance(now, busy, 5903), seen({"8": 1.0}, v7=UP), 5904)
    assert now.leaving == ("7",)
    assert advance(now, seen({"8": 1.0}, v7=UP), 5905).leaving == ()


def test_a_version_is_removed_once_no_request_can_be_left_whatever_the_api_says() -> None:
    now = advance(full(at=5000), seen({"7": 0.0, "8": 1.0}), 5901)
    assert advance(now, seen(None), 6000).leaving == ("7",)
    assert advance(now, seen(None), 6032).leaving == ()


def test_undo_of_a_rollout_that_goes_on_takes_the_share_away() -> None:
    now = plan.undo(canary(), 30, "mei")
    assert (now.state, now.shares(CONFIG), now.reason) == (
        State.rolled_back,
        {"7": 1.0},
        "undone by mei",
    )


def test_undo_of_a_full_version_is_at_once_while_the_old_one_is_kept() -> None:
    now = plan.undo(full(), 5001, "mei")
    assert (now.state, now.serving, now.leaving) == (State.rolled_back, "7", ("8",))


def test_undo_later_brings_the_old_version_up_and_does_not_compare_it() -> None:
    now = plan.undo(replace(full(), keeps_old=False), 9000, "mei")
    assert (now.state, now.new, now.old) == (State.starting, "7", "8")
    now = plan.warmed(replace(now, state=State.warming), WARM, CONFIG, 9010)
    assert (now.state, now.shares(CONFIG)) == (State.full, {"8": 0.0, "7": 1.0})


def test_where_nothing_was_rolled_out_there_is_nothing_to_undo() -> None:
    assert plan.undo(SERVING_7, 5, "mei") is SERVING_7


def test_a_version_started_over_a_kept_one_lets_that_one_go() -> None:
    now = plan.begin(full(), "9", 6000, asked_by="mei")
    assert now.shares(CONFIG) == {"8": 1.0, "9": 0.0}
    assert now.leaving == ("7",)


def test_a_version_tried_again_while_it_leaves_stays() -> None:
    back = plan.rolled_back(canary(), 30, "worse")
    assert back.leaving == ("8",)
    again = plan.begin(back, "8", 31, asked_by="mei")
    assert (again.leaving, again.shares(CONFIG)) == ((), {"7": 1.0, "8": 0.0})


def test_a_new_controller_goes_on_where_the_share_holds() -> None:
    now = canary(step=1)
    assert plan.taken_over(now, seen(now.shares(CONFIG)), CONFIG, 50) == now


@pytest.mark.parametrize(
    "what", [seen({"7": 1.0}), seen({"7": 1.0, "8": 0.0}), seen(None), seen({"7": 0.95, "8": 0.05})]
)
def test_a_new_controller_gives_no_share_that_does_not_hold(what: Observation) -> None:
    """To a server that was started anew, or one whose share another controller took away."""
    now = plan.taken_over(canary(step=1), what, CONFIG, 50)
    assert (now.state, now.step, now.share(CONFIG)) == (State.starting, 0, 0.0)


def test_a_server_started_anew_does_not_start_what_was_only_kept() -> None:
    now = plan.taken_over(full(), Observation({"8": 1.0}, {"8": UP}), CONFIG, 5100)
    assert (now.state, now.shares(CONFIG)) == (State.full, {"8": 1.0})


def test_a_rollout_comes_back_from_its_record_as_it_was() -> None:
    for now in (SERVING_7, begun(), canary(step=2), full(), plan.undo(canary(), 30, "mei")):
        assert Rollout.read({**now.write(), "something": "else"}) == now


def test_what_is_waited_for_is_told_in_every_state() -> None:
    looks = Looks.of(CONFIG)
    now = canary(at=20)
    some = replace(seen(now.shares(CONFIG)), traffic={"8": Traffic(60), "7": Traffic(900)})
    told = [
        plan.waits_for(one, what, CONFIG, looks, 30)
        for one, what in (
            (begun(), seen({"7": 1.0}, v8=Engines(starting=1))),
            (replace(begun(), state=State.warming), seen(None)),
            (replace(now, counted_from=None), seen(None)),
            (now, replace(some, no_traffic="404")),
            (now, some),
            (replace(now, good=True), some),
            (plan.undo(now, 30, "mei"), some),
            (replace(full(), since=20.0), some),
            (SERVING_7, some),
        )
    ]
    assert told == [
        "the engines of version 8 (0 running, 1 starting)",
        "the translations that version 8 is asked beforehand",
        "the API to take up the share",
        "the server's figures (404)",
        "140 more requests to version 8",
        "290 s of this step to pass",
        "the last requests of version 8",
        "890 s to pass until version 7 is removed",
        "nothing",
    ]
