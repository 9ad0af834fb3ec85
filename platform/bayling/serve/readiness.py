"""Whether requests would be answered, without waking anybody."""

from __future__ import annotations

import asyncio
import time

from bayling.serve.errors import Unavailable

_ASK_EVERY_S = 1.0
_WITHIN_S = 3.0


class Readiness:
    """What Ray Serve says of the engines. Asks its controller, never a replica: with none
    running a question to the engines would start one."""

    def __init__(self) -> None:
        self._asked = float("-inf")
        self._asking = asyncio.Lock()
        self._running: dict[str, bool] = {}

    async def check(self, application: str) -> None:
        """Returns when an application answers, or would start to when asked.

        Raises:
            Unavailable: it does not; the message says why.
        """
        async with self._asking:
            if time.monotonic() - self._asked > _ASK_EVERY_S:
                try:
                    async with asyncio.timeout(_WITHIN_S):
                        self._running = await asyncio.to_thread(_running)
                except TimeoutError:
                    raise Unavailable(
                        f"Ray Serve's controller did not answer within {_WITHIN_S:g} s"
                    ) from None
                self._asked = time.monotonic()
        if not self._running.get(application, False):
            raise Unavailable("no engine is running")


def _running() -> dict[str, bool]:
    """For each application whether it has what it needs."""
    from ray import serve
    from ray.serve.schema import ApplicationStatus, ReplicaState

    def answers(application: object) -> bool:
        deployments = application.deployments.values()  # type: ignore[attr-defined]
        return application.status == ApplicationStatus.RUNNING or any(  # type: ignore[attr-defined]
            deployment.replica_states.get(ReplicaState.RUNNING, 0) for deployment in deployments
        )

    return {name: answers(one) for name, one in serve.status().applications.items()}
