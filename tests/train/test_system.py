from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from bayling.registry import runs
from bayling.stage import TrackedRun
from bayling.train import system
from bayling.train.system import SystemMetrics


def until(condition: Callable[[], Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_they_go_on_after_mlflow_gave_them_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its monitor ends for good when the store does not answer, or calls the run ended."""
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    monkeypatch.setattr(system, "_AGAIN_S", 0.0)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    experiment = runs.experiment_id(uri, "e", tmp_path / "artifacts")
    tracked = runs.open_run(uri, experiment, name="a", key="a", stage="train")
    client = MlflowClient(uri)
    key = "system/node-3/cpu_utilization_percentage"

    def points() -> int:
        return len(client.get_metric_history(tracked.run_id, key))

    metrics = SystemMetrics(tracked, 3)
    metrics.start()
    until(lambda: points() >= 1)
    client.set_terminated(tracked.run_id)
    thread = metrics._monitor._process
    until(lambda: not thread.is_alive())
    before = points()
    client.update_run(tracked.run_id, status="RUNNING")
    metrics.keep_going()
    until(lambda: points() > before)
    metrics.stop()
    steps = [point.step for point in client.get_metric_history(tracked.run_id, key)]
    assert len(set(steps)) == len(steps), "a later monitor counts on from the earlier one"


def test_a_store_that_is_not_there_harms_nothing(tmp_path: Path) -> None:
    metrics = SystemMetrics(TrackedRun("http://127.0.0.1:9", "0", "r"), 0)
    metrics.keep_going()
    metrics.start()
    metrics.keep_going()
    metrics.stop()
