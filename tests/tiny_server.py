"""A configuration of the serve stage with limits that a test can reach."""

from __future__ import annotations

from running import free_port

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
