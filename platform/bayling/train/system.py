"""What MLflow shows of the machines: CPU, memory, disk, network and GPUs of every node."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from bayling.stage import TrackedRun

_AGAIN_S = 60.0


class SystemMetrics:
    """MLflow's own monitor of this node, started anew where it gave up.

    It ends for good when the tracking server does not answer once, which training outlives.
    Figures about the machine are not worth a run: nothing here raises.
    """

    def __init__(self, tracked: TrackedRun, node: int) -> None:
        self._tracked, self._node = tracked, node
        self._monitor: Any = None
        self._wanted = False
        self._tried = 0.0
        self._starting: threading.Thread | None = None
        logging.getLogger("mlflow.system_metrics").setLevel(logging.ERROR)

    def start(self) -> None:
        """Begin; returns at once."""
        self._wanted = True
        self._begin()

    def keep_going(self) -> None:
        """Begin again where it ended; to be called now and then."""
        if not self._wanted or time.monotonic() - self._tried < _AGAIN_S:
            return
        thread = getattr(self._monitor, "_process", None)
        if thread is None or not thread.is_alive():
            self._begin()

    def stop(self) -> None:
        """End, and send what was measured."""
        self._wanted = False
        if self._starting is not None:
            self._starting.join(5)
        if self._monitor is not None:
            self._monitor.finish()

    def _begin(self) -> None:
        if self._starting is not None and self._starting.is_alive():
            return
        self._tried = time.monotonic()
        # In a thread: it first asks the server how far an earlier monitor came.
        self._starting = threading.Thread(target=self._make, daemon=True, name="system-metrics")
        self._starting.start()

    def _make(self) -> None:
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        try:
            monitor = SystemMetricsMonitor(
                self._tracked.run_id,
                resume_logging=True,
                node_id=f"node-{self._node}",
                tracking_uri=self._tracked.tracking_uri,
            )
            monitor.start()
        except Exception:
            return
        self._monitor = monitor
