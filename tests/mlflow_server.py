"""A real MLflow server that keeps models' files, as a cluster has one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
from running import free_port

from bayling.registry import models, runs


@contextmanager
def mlflow_server(
    folder: Path, *options: str, variables: Mapping[str, str] | None = None
) -> Iterator[str]:
    """The address of a server whose database and artifacts lie in `folder`.

    Args:
        options: more of its command's.
        variables: more of its environment.
    """
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1", "--serve-artifacts", *options]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    environment = {**os.environ, **(variables or {})}
    environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    environment["MLFLOW_DISABLE_TELEMETRY"] = "true"
    with (folder / "mlflow.log").open("w") as said:
        server = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
    try:
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 60
        while True:
            try:
                httpx.get(f"{url}/health", trust_env=False).raise_for_status()
                break
            except httpx.HTTPError:
                assert server.poll() is None, (folder / "mlflow.log").read_text()
                assert time.monotonic() < deadline, "MLflow does not start"
                time.sleep(0.2)
        yield url
    finally:
        server.terminate()
        server.wait(30)


def register(uri: str, folder: Path) -> str:
    """Log a model folder as training does, and register it; returns the version's number."""
    experiment = runs.experiment_id(uri, "bayling", folder)
    tracked = runs.open_run(uri, experiment, name=folder.name, key=folder.name, stage="train")
    model_id = models.log_model(tracked, name="bayling", folder=folder, params={})
    return models.register(uri, "bayling", model_id, tracked.run_id).version
