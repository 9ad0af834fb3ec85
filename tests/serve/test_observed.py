"""What is known of a request at its end, from what happened on the way."""

from __future__ import annotations

import asyncio
import pickle

import pytest
from one_request import one_request

from bayling.engines.protocol import Chunk, Timing
from bayling.serve import observed
from bayling.serve.observed import LEFT, Observation, observing

pytestmark = pytest.mark.unit


class Clock:
    """Stands where the module has `time`."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1_700_000_000.0 + self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(observed, "time", clock)
    return clock


def begun(clock: Clock) -> Observation:
    return Observation(request_id="r", began=clock.now)


def test_a_streams_times_are_those_at_which_its_pieces_left(clock: Clock) -> None:
    observation = begun(clock)
    pace = observation.answer(billed=12)
    for at, tokens, reason in ((100.4, 1, None), (100.6, 3, None), (100.9, 2, "length")):
        clock.now = at
        pace.made(tokens, "", Chunk([1] * tokens, reason), reason)
    seen = observation.end(200)
    assert (seen.prompt_tokens, seen.completion_tokens) == (12, 6)
    assert seen.ttft_s == pytest.approx(0.4)
    assert seen.tpot_s == pytest.approx(0.5 / 5)
    assert seen.total_s == pytest.approx(0.9)
    assert seen.finish_reasons == ("length",)


def test_of_an_answer_in_one_piece_the_engine_tells_when_its_tokens_came(clock: Clock) -> None:
    observation = begun(clock)
    observation.taken(0.02)
    clock.now = 101.0
    timing = Timing(waiting_s=0.1, decoding_s=0.6)
    observation.answer(3).made(7, "", Chunk([1] * 7, "stop", timing=timing), "stop")
    seen = observation.end(200)
    assert seen.ttft_s == pytest.approx(0.4)
    assert seen.tpot_s == pytest.approx(0.1)
    assert seen.queued_s == pytest.approx(0.12)


def test_what_nobody_measured_is_not_made_up(clock: Clock) -> None:
    observation = begun(clock)
    clock.now = 101.0
    observation.answer(3).made(7, "", Chunk([1] * 7, "stop"), "stop")
    seen = observation.end(200)
    assert (seen.ttft_s, seen.tpot_s, seen.queued_s) == (None, None, None)
    assert seen.completion_tokens == 7


def test_several_answers_have_the_first_token_of_all_and_the_mean_pace(clock: Clock) -> None:
    observation = begun(clock)
    fast, slow = observation.answer(5), observation.answer(0)
    clock.now = 100.2
    fast.made(1, "", Chunk([1]), None)
    clock.now = 100.3
    slow.made(1, "", Chunk([1]), None)
    clock.now = 100.4
    fast.made(2, "", Chunk([1, 1], "stop"), "stop")
    clock.now = 100.9
    slow.made(2, "", Chunk([1, 1], "length"), "length")
    seen = observation.end(200)
    assert seen.ttft_s == pytest.approx(0.2)
    assert seen.tpot_s == pytest.approx((0.2 + 0.6) / 4)
    assert seen.finish_reasons == ("stop", "length")
    assert (seen.prompt_tokens, seen.completion_tokens) == (5, 6)


def test_a_stream_that_is_left_counts_what_came_until_then(clock: Clock) -> None:
    observation = begun(clock)
    pace = observation.answer(5)
    for at in (100.1, 100.2):
        clock.now = at
        pace.made(2, "", Chunk([1, 1]), None)
    seen = observation.end(LEFT)  # before the generator that made the pieces is closed
    assert (seen.status, seen.error) == (LEFT, "client_left")
    assert (seen.prompt_tokens, seen.completion_tokens) == (5, 4)
    assert seen.tpot_s == pytest.approx(0.05)


def test_a_request_that_was_not_taken_costs_no_prompt() -> None:
    refused, given_up = Observation(), Observation()
    refused.answer(5).end(refused=True)
    given_up.answer(5).end(refused=False)
    assert refused.end(429).prompt_tokens == 0
    assert given_up.end(504).prompt_tokens == 5


def test_the_clients_upload_is_not_the_servers_time(clock: Clock) -> None:
    observation = begun(clock)
    clock.now = 130.0
    observation.arrived()
    clock.now = 130.5
    assert observation.end(200).total_s == pytest.approx(0.5)


def test_a_stream_that_broke_off_has_the_status_of_its_error() -> None:
    observation = Observation()
    observation.failed(504, "timeout")
    seen = observation.end(200)
    assert (seen.status, seen.error) == (504, "timeout")


def test_whoever_works_on_a_request_finds_its_observation_in_tasks_too() -> None:
    async def work(name: str) -> list[str]:
        with observing(Observation(request_id=name)):
            await asyncio.sleep(0)
            found = await asyncio.create_task(asyncio.sleep(0, observed.current().request_id))

            async def inner() -> str:
                return observed.current().request_id

            return [found, await asyncio.create_task(inner())]

    async def both() -> list[list[str]]:
        return await asyncio.gather(work("a"), work("b"))

    assert asyncio.run(both()) == [["a", "a"], ["b", "b"]]
    assert observed.current().request_id == ""


def test_engines_get_the_requests_id_and_never_the_same_twice() -> None:
    observation = Observation(request_id="mine-1")
    first, second = observation.engine_id(), observation.engine_id()
    assert first != second
    assert {first.partition("/")[0], second.partition("/")[0]} == {"mine-1"}


def test_a_record_travels_between_replicas() -> None:
    record = one_request()
    assert pickle.loads(pickle.dumps(record)) == record
