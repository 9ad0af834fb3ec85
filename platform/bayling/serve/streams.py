"""Server-sent events out of answers that are being made."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, suppress
from typing import Any, TypeVar

Item = TypeVar("Item")

DONE = "data: [DONE]\n\n"
WAITING = ": waiting\n\n"
"""A comment, which clients skip."""


def event(body: dict[str, Any]) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"


async def merged(streams: Sequence[AsyncIterator[Item]]) -> AsyncIterator[tuple[int, Item]]:
    """What comes from several streams, as it comes, with the number of the stream.

    Closing this closes them all; the first error ends it.
    """
    if len(streams) == 1:
        async with aclosing(streams[0]) as stream:  # type: ignore[type-var]
            async for item in stream:
                yield 0, item
        return
    arrived: asyncio.Queue[tuple[int, Item] | Exception | None] = asyncio.Queue()

    async def read(index: int, stream: AsyncIterator[Item]) -> None:
        try:
            async with aclosing(stream):  # type: ignore[type-var]
                async for item in stream:
                    arrived.put_nowait((index, item))
        except Exception as error:
            arrived.put_nowait(error)
        else:
            arrived.put_nowait(None)

    tasks = [asyncio.create_task(read(*numbered)) for numbered in enumerate(streams)]
    try:
        going = len(tasks)
        while going:
            got = await arrived.get()
            if isinstance(got, Exception):
                raise got
            if got is None:
                going -= 1
            else:
                yield got
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def begun(stream: AsyncIterator[Item], every_s: float) -> AsyncIterator[Item | None]:
    """The same stream, once it has its first item or has been waited for.

    Until then an error has a status of its own; afterwards it is only an event. While the first
    item is still to come, None comes every `every_s`: the time to tell the client that somebody
    is there.
    """
    first = asyncio.ensure_future(anext(stream))
    try:
        await asyncio.wait([first], timeout=every_s)
        if first.done():
            first.result()
    except BaseException:
        await _stop(first, stream)
        raise

    async def rest() -> AsyncIterator[Item | None]:
        try:
            while not first.done():
                yield None
                await asyncio.wait([first], timeout=every_s)
            yield first.result()
            async for item in stream:
                yield item
        finally:
            await _stop(first, stream)

    return rest()


async def _stop(first: asyncio.Future[Any], stream: AsyncIterator[Any]) -> None:
    """Close a stream, also one whose first item somebody is waiting for."""
    if not first.done():
        first.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await first
    closing = getattr(stream, "aclose", None)
    if closing is not None:
        await closing()
