"""That nothing waits for the ledger, and that what it was told counts once."""

from __future__ import annotations

import asyncio

import pytest
from one_request import one_request

from bayling.serve.reporting import Batch, EngineState, Reporter

pytestmark = pytest.mark.unit


class Ledger:
    """Notes down what it gets; it can be away, or lose its answer."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.away = False
        self.silent = False

    async def take(self, batch: Batch) -> None:
        if self.away:
            raise ConnectionError("away")
        self.batches.append(batch)
        if self.silent:
            raise TimeoutError


def test_requests_go_in_one_batch_and_quiet_seconds_cost_nothing() -> None:
    ledger = Ledger()
    reporter = Reporter(ledger.take)

    async def run() -> None:
        await reporter.flush()
        for number in range(50):
            reporter.add(one_request(request_id=str(number)))
        await reporter.flush()
        await reporter.flush()

    asyncio.run(run())
    [batch] = ledger.batches
    assert [one.request_id for one in batch.observed] == [str(number) for number in range(50)]
    assert (batch.number, batch.lost) == (0, {})


def test_while_the_ledger_is_away_the_newest_are_kept_and_the_others_counted() -> None:
    ledger = Ledger()
    reporter = Reporter(ledger.take, kept=10)

    async def run() -> None:
        ledger.away = True
        for number in range(25):
            reporter.add(one_request(request_id=str(number)))
        with pytest.raises(ConnectionError):
            await reporter.flush()
        ledger.away = False
        await reporter.flush()

    asyncio.run(run())
    [batch] = ledger.batches
    assert [one.request_id for one in batch.observed] == [str(number) for number in range(15, 25)]
    assert batch.lost == {"requests": 15}


def test_a_batch_whose_arrival_is_not_known_goes_again_as_it_was() -> None:
    ledger = Ledger()
    reporter = Reporter(ledger.take)

    async def run() -> None:
        reporter.add(one_request(request_id="first"))
        ledger.silent = True
        with pytest.raises(TimeoutError):
            await reporter.flush()
        ledger.silent = False
        reporter.add(one_request(request_id="second"))
        await reporter.flush()

    asyncio.run(run())
    first, again, second = ledger.batches
    assert first == again and first.number == 0
    assert second.number == 1 and [one.request_id for one in second.observed] == ["second"]


def test_an_engine_reports_also_where_nothing_happens_and_goes_on_after_an_outage() -> None:
    ledger = Ledger()
    states = iter(range(1000))

    async def run() -> None:
        reporter = Reporter(
            ledger.take, lambda: EngineState("7", next(states), 0, None, 1.0), every_s=0.01
        )
        reporter.start()
        while len(ledger.batches) < 3:
            await asyncio.sleep(0.01)
        ledger.away = True
        await asyncio.sleep(0.1)
        ledger.away = False
        until = len(ledger.batches) + 3
        while len(ledger.batches) < until:
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(run(), 20))
    numbers = [batch.number for batch in ledger.batches]
    assert numbers == list(range(len(numbers)))
    assert all(batch.state is not None for batch in ledger.batches)
