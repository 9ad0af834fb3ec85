"""Whether requests would be answered, without waking anybody."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from bayling.serve.errors import Unavailable

_ASK_EVERY_S = 1.0
_WITHIN_S = 3.0


@dataclass(frozen=True)
class _Application:
    """What Ray Serve says of one application."""

    answers: bool
    """Whether it has what it needs: replicas, or leave to have none."""
    running: int
    starting: int
    """Replicas."""


class Readiness:
    """What Ray Serve says of the engines. Asks its controller, never a replica: with none
    running a question to the engines would start one."""

    def __init__(self) -> None:
        self._asked = float("-inf")
        self._asking = asyncio.Lock()
        self._seen: dict[str, _Application] = {}

    async def check(self, application: str) -> None:
        """Returns when an application answers, or would start to when asked.

        Raises:
            Unavailable: it does not; the message says why.
        """
        seen = await self._look()
        if application not in seen or not seen[application].answers:
            raise Unavailable("no engine is running")

    async def engines(self) -> dict[str, dict[str, int]]:
        """Application → how many of its replicas are `running` and `starting`; none where Ray
        Serve's controller does not answer."""
        try:
            seen = await self._look()
        except Unavailable:
            return {}
        return {
            name: {"running": one.running, "starting": one.starting} for name, one in seen.items()
        }

    async def _look(self) -> dict[str, _Application]:
        async with self._asking:
            if time.monotonic() - self._asked > _ASK_EVERY_S:
                try:
                    async with asyncio.timeout(_WITHIN_S):
                        self._seen = await asyncio.to_thread(_applications)
                except TimeoutError:
                    raise Unavailable(
                        f"Ray Serve's controller did not answer within {_WITHIN_S:g} s"
                    ) from None
                self._asked = time.monotonic()
            return self._seen


def _applications() -> dict[str, _Application]:
    """Name → what it has."""
    from ray import serve
    from ray.serve.schema import ApplicationStatus, ReplicaState

    def look(application: Any) -> _Application:
        def count(state: Any) -> int:
            return sum(one.replica_states.get(state, 0) for one in application.deployments.values())

        running = count(ReplicaState.RUNNING)
        answers = application.status == ApplicationStatus.RUNNING or running > 0
        return _Application(answers, running, count(ReplicaState.STARTING))

    return {name: look(one) for name, one in serve.status().applications.items()}
