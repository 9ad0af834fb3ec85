"""The one place where the whole fleet is counted.

The API and the engines run in any number of replicas, and what one of them has counted is a part
of the truth. All send what they observe to the one replica of the ledger, which is asked for
figures. When it is lost, counting begins anew, as Prometheus expects of a counter now and then;
no request notices.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from bayling.serve.application import API
from bayling.serve.errors import Unavailable
from bayling.serve.metrics import Metrics
from bayling.serve.reporting import Batch
from bayling.serve.stats import VersionStats, Windows

log = logging.getLogger(__name__)

LEDGER = "Ledger"
_FORGOTTEN_S = 600.0
"""A replica that reported nothing for so long will not send an old batch again."""
_ANSWERS_WITHIN_S = 3.0


class Ledger:
    """The deployment: takes batches, gives figures.

    Args:
        model: the registered model's name.
    """

    def __init__(self, model: str) -> None:
        self._metrics = Metrics(model)
        self._windows = Windows(time.time())
        self._last: dict[str, tuple[float, int]] = {}
        """Source → when its last batch came, and which one it was."""

    async def take(self, batch: Batch) -> None:
        """Count what a replica has observed; once, also where it is sent twice."""
        now = time.monotonic()
        _, number = self._last.get(batch.source, (now, -1))
        if batch.number <= number:
            return
        self._last[batch.source] = (now, batch.number)
        self._metrics.apply(batch)
        for observed in batch.observed:
            self._windows.add(observed)
        if len(self._last) > 100:
            self._last = {
                source: seen for source, seen in self._last.items() if seen[0] > now - _FORGOTTEN_S
            }

    async def metrics(self) -> bytes:
        """The figures in Prometheus's text format."""
        return self._metrics.text()

    async def versions(self, since: float) -> dict[str, VersionStats]:
        """What each version did from a moment on, in seconds since 1970."""
        return self._windows.since(since)


class RemoteLedger:
    """The ledger, from another replica.

    Args:
        find: gives the handle; asked again until there is one.
    """

    def __init__(self, find: Callable[[], DeploymentHandle]) -> None:
        self._find = find
        self._handle: DeploymentHandle | None = None

    @staticmethod
    def of_api() -> RemoteLedger:
        """From another application, which may be there before the API's is."""
        return RemoteLedger(lambda: serve.get_deployment_handle(LEDGER, API))

    async def take(self, batch: Batch) -> None:
        """Give it a batch; raises whatever keeps it from arriving."""
        await self._ask("take", batch)

    async def metrics(self) -> bytes:
        """As the ledger's.

        Raises:
            Unavailable: it does not answer.
        """
        async with _in_time():
            text: bytes = await self._ask("metrics")
            return text

    async def versions(self, since: float) -> dict[str, VersionStats]:
        """As the ledger's.

        Raises:
            Unavailable: it does not answer.
        """
        async with _in_time():
            stats: dict[str, VersionStats] = await self._ask("versions", since)
            return stats

    async def _ask(self, method: str, *arguments: Any) -> Any:
        if self._handle is None:
            self._handle = self._find()
        answer = getattr(self._handle, method).remote(*arguments)
        try:
            return await answer
        except BaseException:
            answer.cancel()
            raise


@asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(_ANSWERS_WITHIN_S):
            yield
    except (TimeoutError, RayError, RayServeException) as error:
        log.warning("the ledger does not answer: %s: %s", type(error).__name__, error)
        raise Unavailable("the ledger does not answer: it may be starting anew") from None
