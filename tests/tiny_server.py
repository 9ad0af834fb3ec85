"""A server with limits that a test can reach, and a look at how busy it is."""

from __future__ import annotations

import time
from functools import cache

from ray import serve
from ray.serve.handle import DeploymentHandle
from running import free_port

from bayling.serve.application import engine_application
from bayling.serve.config import ServeConfig


def small(port: int | None = None) -> ServeConfig:
    """One replica that answers two requests and has two more queued."""
    return ServeConfig(
        port=port or free_port(),
        max_batch=2,
        max_replicas=1,
        target_ongoing_requests=2,
        max_ongoing_requests=2,
        max_queued_requests=2,
        max_new_tokens=40,
        startup_timeout_s=120,
    )


@cache
def engine(version: str) -> DeploymentHandle:
    """A handle to a version's engines, for a thread without an event loop."""
    handle = serve.get_app_handle(engine_application(version))
    handle._init(_run_router_in_separate_loop=True)
    return handle


def ongoing() -> int:
    """How many requests the engine generates for or has waiting."""
    count: int = engine("7").ongoing.remote().result(timeout_s=10)
    return count


def comes_to_rest(within_s: float = 8) -> bool:
    deadline = time.monotonic() + within_s
    while ongoing():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
