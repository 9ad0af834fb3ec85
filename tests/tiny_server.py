"""A server with limits that a test can reach, and a look at how busy it is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from ray import serve
from ray.serve.handle import DeploymentHandle
from running import free_port

from bayling.scale import ScaleConfig
from bayling.serve import run
from bayling.serve.application import ServedModel, engine_application
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
        startup_timeout_s=300,
    )


@contextmanager
def deployed(folder: Path) -> Iterator[str]:
    """The base URL of a server with the model in a folder as version 7; Ray must be running."""
    served = ServedModel("sqlite:///unused", "bayling", {"7": str(folder)})
    yield run.deploy(small(), served, {"7": 1.0}, ScaleConfig())
    run.shutdown()
    engine.cache_clear()


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
