"""The one place where the fleet is counted."""

from __future__ import annotations

import asyncio

import pytest
from one_request import one_request

from bayling.serve.ledger import Ledger, RemoteLedger
from bayling.serve.reporting import Batch

pytestmark = pytest.mark.unit


def requests_of(ledger: Ledger, version: str) -> int:
    return asyncio.run(ledger.versions(0))[version].requests


def test_what_several_replicas_saw_is_added_up() -> None:
    ledger = Ledger("bayling")
    now = 4_000_000_000.0  # after the ledger began

    async def take() -> None:
        await ledger.take(Batch("one", 0, (one_request(at=now), one_request(at=now))))
        await ledger.take(Batch("two", 0, (one_request(at=now),)))
        await ledger.take(Batch("one", 1, (one_request(at=now, version="8"),)))

    asyncio.run(take())
    assert (requests_of(ledger, "7"), requests_of(ledger, "8")) == (3, 1)
    text = asyncio.run(ledger.metrics()).decode()
    assert 'status="200",version="7"} 3.0' in text and 'status="200",version="8"} 1.0' in text


def test_a_batch_that_comes_twice_counts_once() -> None:
    ledger = Ledger("bayling")
    batch = Batch("one", 4, (one_request(at=4_000_000_000.0),))

    async def take() -> None:
        await ledger.take(batch)
        await ledger.take(batch)

    asyncio.run(take())
    assert requests_of(ledger, "7") == 1


def test_replicas_come_and_go_and_none_of_their_batches_counts_twice() -> None:
    ledger = Ledger("bayling")

    async def take() -> None:
        for number in range(500):
            batch = Batch(f"replica-{number}", 0, (one_request(at=4_000_000_000.0),))
            await ledger.take(batch)
            await ledger.take(batch)

    asyncio.run(take())
    assert requests_of(ledger, "7") == 500


def test_the_api_may_come_after_the_engines() -> None:
    """An engine asks for the ledger's handle again until there is one."""
    asked = 0

    def find() -> object:
        nonlocal asked
        asked += 1
        raise RuntimeError("there is no application 'bayling' yet")

    remote = RemoteLedger(find)  # type: ignore[arg-type]
    for _ in range(2):
        with pytest.raises(RuntimeError, match="yet"):
            asyncio.run(remote.take(Batch("one", 0)))
    assert asked == 2
