"""The Ray Serve that this process is connected to, as a place where versions are rolled out.

It knows Ray Serve, not what is served: how versions are described and named is passed in, and
plain data goes between.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from typing import Any

from bayling.cluster.observed import observed

_WITHIN_S = 10.0
_ANSWER_WITHIN_S = 300.0
"""What an engine that is scaled to zero may need, and an answer after that."""


class LocalServe:
    """Runs versions side by side. See `bayling.serve.rollout.target`."""

    def __init__(
        self,
        deploy: Callable[[Mapping[str, float], Collection[str]], None],
        api: str,
        engine_prefix: str,
    ) -> None:
        """
        Args:
            deploy: describes shares and leaving versions to Ray Serve, and does not wait.
            api: the application with the API, whose `report` says what it serves and whose
                `figures` what each version did.
            engine_prefix: what the names of applications with engines begin with; the version is
                the rest.
        """
        self._deploy = deploy
        self._api = api
        self._engine_prefix = engine_prefix

    def apply(self, shares: Mapping[str, float], leaving: Collection[str]) -> None:
        """Run just these versions, with these shares. Returns at once."""
        self._deploy(shares, leaving)

    def observe(self, since: float | None) -> dict[str, Any]:
        """What runs at this moment.

        Raises:
            Exception: Ray Serve's controller does not answer.
        """
        from ray import serve

        applications = serve.status().applications
        report, figures, no_traffic = self._report(), None, None
        if since is not None:
            try:
                figures = self._handle.figures.remote(since).result(timeout_s=_WITHIN_S)
            except Exception as error:
                no_traffic = (str(error).splitlines() or [type(error).__name__])[0]
        running = {
            name.removeprefix(self._engine_prefix): _engines(application)
            for name, application in applications.items()
            if name.startswith(self._engine_prefix)
        }
        return observed(report, running, figures, no_traffic)

    def ask(self, model: str, prompt: str, max_tokens: int) -> Mapping[str, Any]:
        """The API's answer to a prompt, outside the traffic. Blocks.

        Raises:
            Exception: the API does not answer.
        """
        answer: Mapping[str, Any] = self._handle.ask.remote(model, prompt, max_tokens).result(
            timeout_s=_ANSWER_WITHIN_S
        )
        return answer

    def _report(self) -> dict[str, Any]:
        """What the API says of itself; nothing while it does not answer."""
        try:
            report: dict[str, Any] = self._handle.report.remote().result(timeout_s=_WITHIN_S)
        except Exception:  # an API that is being restarted, say: the next look may tell
            return {}
        return report

    @cached_property
    def _handle(self) -> Any:
        from ray import serve

        # It warns whenever a busy API does not say at once how busy it is.
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        handle = serve.get_app_handle(self._api)
        # This thread has no event loop, and a router needs one.
        handle._init(_run_router_in_separate_loop=True)
        return handle


def _engines(application: Any) -> dict[str, Any]:
    """What Ray Serve says of one version's engines."""
    from ray.serve.schema import ApplicationStatus, ReplicaState

    deployments = application.deployments.values()

    def count(state: Any) -> int:
        return sum(one.replica_states.get(state, 0) for one in deployments)

    running, status = count(ReplicaState.RUNNING), application.status
    broken = status == ApplicationStatus.DEPLOY_FAILED or (
        status == ApplicationStatus.UNHEALTHY and not running
    )
    messages = [one.message for one in deployments if one.message] or [application.message]
    return {
        "running": running,
        "starting": count(ReplicaState.STARTING),
        "ready": status == ApplicationStatus.RUNNING or running > 0,
        "failed": messages if broken else None,
    }
