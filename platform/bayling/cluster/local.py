"""A Ray cluster to run stages on: an existing one, or a local one for as long as it is needed."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bayling.errors import UserError
from bayling.scale import ScaleConfig

PACKAGE = Path(__file__).resolve().parents[1]

ENVIRONMENT = {
    "RAY_DEDUP_LOGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    "TOKENIZERS_PARALLELISM": "false",
    # One event loop in a replica instead of three, and gRPC between replicas.
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    # The API of a local cluster listens by itself.
    "RAY_SERVE_ENABLE_DIRECT_INGRESS": "0",
}
"""What a Ray of our own is started with; Serve reads it when it is imported, everywhere."""


@contextmanager
def connected(scale: ScaleConfig, *others: ScaleConfig) -> Iterator[bool]:
    """Connect to Ray; a local cluster that was started here ends with the block, and has room
    for any one of the scales.

    With `scale.ray_address`, or inside a Ray job, the existing cluster is used, and this
    package travels to its workers. Otherwise a cluster of this machine's cores starts, reachable
    from this machine only and without a dashboard.

    Yields whether what runs on the cluster must be taken down before the block ends: not where
    the cluster ends with it.

    Raises:
        UserError: no Ray cluster answers at the address.
    """
    import ray

    if ray.is_initialized():  # the caller's own, who may want to run more on it
        yield True
        return
    address = scale.ray_address or os.environ.get("RAY_ADDRESS")
    _quiet()
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address:
        try:
            ray.init(address=address, runtime_env={"py_modules": [str(PACKAGE)]}, **common)
        except (ConnectionError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"no Ray cluster answers at {address!r} ({reason}): set scale.ray_address, or "
                "use scale=laptop for a local one"
            ) from None
    else:
        with _importable():
            ray.init(
                # One of its own, also beside a cluster that somebody started on this machine.
                address="local",
                # More logical than real cores are fine: training and serving take turns.
                num_cpus=max(
                    os.cpu_count() or 1,
                    *(max(s.workers, s.engines) * s.cpus_per_worker for s in (scale, *others)),
                ),
                include_dashboard=False,
                object_store_memory=max(s.object_store_mb for s in (scale, *others)) * 2**20,
                **common,
            )
    try:
        yield bool(address)
    finally:
        ray.shutdown()


@contextmanager
def _importable() -> Iterator[None]:
    """This package is found by processes that start within the block, and by those they start.

    As a `runtime_env` it would be set up for each of Ray's workers: a process more for every one,
    which imports Ray for nothing, and none of those that Ray has ready could be used.
    """
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(
        part for part in (str(PACKAGE.parent), before) if part
    )
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _quiet() -> None:
    """Leave the terminal to this platform's own progress."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name in ("ray", "ray.train", "ray.serve"):
        logging.getLogger(name).setLevel(logging.ERROR)
