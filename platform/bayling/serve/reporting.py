"""How what was observed in a replica comes to the ledger: in batches, beside the requests."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from bayling.serve.observed import Observed

log = logging.getLogger(__name__)

_EVERY_S = 1.0
_WITHIN_S = 5.0
"""What the ledger is given to take a batch."""
_KEPT = 5000
"""So many records wait for a ledger that is away; then the oldest go."""


@dataclass(frozen=True)
class EngineState:
    """What an engine replica is doing at the moment."""

    version: str
    running: int
    waiting: int
    cache_used: float | None
    """The share of the room for keys and values that is taken; None: not known."""
    start_s: float
    """What it took to load."""


@dataclass(frozen=True)
class Batch:
    """What a replica has to tell."""

    source: str
    """Which replica; one that is started again is another one."""
    number: int
    """Counts the source's batches, from 0. One that comes twice has the same."""
    observed: tuple[Observed, ...] = ()
    lost: Mapping[str, int] = field(default_factory=dict)
    """What was dropped, by kind."""
    state: EngineState | None = None


class Reporter:
    """Sends what a replica observes to the ledger, about once a second.

    For the event loop that it was started on. A request never waits for it: while the ledger
    is away the newest records are kept, and the others counted.

    Args:
        send: gives a batch to the ledger.
        state: what an engine replica tells besides; it makes a report even where nothing happened.
    """

    def __init__(
        self,
        send: Callable[[Batch], Awaitable[None]],
        state: Callable[[], EngineState] | None = None,
        *,
        every_s: float = _EVERY_S,
        kept: int = _KEPT,
    ) -> None:
        self._send = send
        self._state = state
        self._every_s = every_s
        self._kept = kept
        self._source = uuid.uuid4().hex
        self._number = 0
        self._observed: deque[Observed] = deque()
        self._lost: Counter[str] = Counter()
        self._unsent: Batch | None = None
        """Whether it arrived nobody knows. It goes again as it is, so that it counts once."""
        self._sending = asyncio.Lock()
        self._away = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Report from now on, on the running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def add(self, observed: Observed) -> None:
        """A request has ended. Returns at once."""
        self._observed.append(observed)
        if len(self._observed) > self._kept:
            self._observed.popleft()
            self.lose("requests")

    def lose(self, kind: str) -> None:
        """A record was dropped on its way to where it counts."""
        self._lost[kind] += 1

    async def flush(self) -> None:
        """Send what there is.

        Raises:
            Exception: the ledger did not take it. It is sent again with the next flush.
        """
        async with self._sending:
            if self._unsent is not None:
                await self._give(self._unsent)
            if not (self._observed or self._lost or self._state):
                return
            batch = Batch(
                self._source,
                self._number,
                tuple(self._observed),
                dict(self._lost),
                self._state() if self._state else None,
            )
            self._number += 1
            self._observed.clear()
            self._lost.clear()
            await self._give(batch)

    async def _give(self, batch: Batch) -> None:
        self._unsent = batch
        async with asyncio.timeout(_WITHIN_S):
            await self._send(batch)
        self._unsent = None

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.flush()
                self._away = False
            except Exception as error:
                if not self._away:  # once, not every second
                    log.warning("the ledger takes no reports: %s: %s", type(error).__name__, error)
                self._away = True
