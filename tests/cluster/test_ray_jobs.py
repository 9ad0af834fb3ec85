"""Jobs on a Ray cluster that asks for a token, over its Jobs API."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from running import free_port

from bayling.cluster.last_attempt import ATTEMPTS_VARIABLE, exit_code
from bayling.cluster.ray_jobs import _Tail
from bayling.cluster.screen import Screen

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "0123456789abcdef" * 4
_RAY = "from ray.scripts.scripts import main; main()"


@dataclass(frozen=True)
class Cluster:
    address: str
    environment: dict[str, str]

    def bayling(self, *arguments: str, token: bool = True) -> subprocess.CompletedProcess[str]:
        """The command, as a person on another machine gives it."""
        environment = dict(self.environment)
        if token:
            environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
        return subprocess.run(
            [sys.executable, "-m", "bayling.cli", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    home = tmp_path_factory.mktemp("home")  # no token of this machine's user
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("RAY_", "MLFLOW_", "KUBECONFIG"))
    }
    environment |= {"HOME": str(home), "PYTHONPATH": str(ROOT / "platform")}
    # The cluster's `python` is this one.
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    ports = {name: free_port() for name in ("gcs", "dashboard", "agent", "agent_grpc", "client")}
    address = f"http://127.0.0.1:{ports['dashboard']}"
    command = ["start", "--head", "--num-cpus=2", "--include-dashboard=true", "--block"]
    command += [f"--port={ports['gcs']}", f"--dashboard-port={ports['dashboard']}"]
    command += [f"--dashboard-agent-listen-port={ports['agent']}"]
    command += [f"--dashboard-agent-grpc-port={ports['agent_grpc']}"]
    command += [f"--ray-client-server-port={ports['client']}"]
    # Ray's sockets lie in it, and a socket's path has at most 107 characters.
    command += [f"--temp-dir={tempfile.mkdtemp(prefix='ray-', dir='/tmp')}"]
    command += [f"--object-store-memory={150 * 2**20}"]
    process = subprocess.Popen(
        [sys.executable, "-c", _RAY, *command],
        env={**environment, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(address)
        yield Cluster(address, {**environment, "RAY_AUTH_MODE": "disabled"})
    finally:
        process.terminate()
        process.wait(120)


def _wait_for(address: str) -> None:
    headers = {"x-ray-authorization": f"Bearer {TOKEN}"}
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            # The list of jobs comes when the head's agent is up, which runs them.
            if httpx.get(f"{address}/api/jobs/", headers=headers, timeout=2).is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.3)
    raise TimeoutError("the Ray head did not come up")


def test_a_job_runs_is_found_again_and_tells_why_it_failed(
    cluster: Cluster, tmp_path: Path
) -> None:
    where = ["--to", "ray", "--address", cluster.address]
    refused = cluster.bayling("job", "list", *where, token=False)
    assert refused.returncode == 2 and "asks for a token" in refused.stderr, refused.stderr

    # A stage that ends at once: what it needs is not there.
    train = ["submit", "train", *where, "recipe=smoke", f"output_dir={tmp_path}", "team=t"]
    failed = cluster.bayling(*train)
    assert failed.returncode == 1, failed.stderr
    name = failed.stderr.split("bayling: ")[1].split()[0]
    assert name.startswith("smoke-train-")
    reason = "the data stage has not been run with this configuration"
    assert f"{name} failed: {reason}" in failed.stderr
    assert reason in failed.stdout, "the log is what the stage said"

    # Again: the first attempt stays, and the job has one more.
    assert reason in cluster.bayling(*train).stderr
    listed = cluster.bayling("job", "list", *where)
    assert listed.stdout.count(name) == 1 and "failed" in listed.stdout
    assert reason in cluster.bayling("job", "logs", name, *where).stdout
    assert f"{name} failed" in cluster.bayling("job", "status", name, *where).stdout
    stopped = cluster.bayling("job", "stop", name, *where)
    assert stopped.returncode == 2 and "over already" in stopped.stderr


@pytest.mark.parametrize(("attempts", "status"), [("3", "STOPPED"), ("1", "FAILED")])
def test_a_wrong_configuration_ends_a_job_that_would_begin_again(
    cluster: Cluster, tmp_path: Path, attempts: str, status: str
) -> None:
    variables = {
        ATTEMPTS_VARIABLE: attempts,
        "RAY_API_SERVER_ADDRESS": cluster.address,
        "PYTHONPATH": str(ROOT / "platform"),
    }
    job = {
        "entrypoint": f"python -m bayling.cli train recipe=smoke output_dir={tmp_path}",
        "runtime_env": {"env_vars": variables},
    }
    headers = {"x-ray-authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=cluster.address, headers=headers, timeout=30) as client:
        name = client.post("/api/jobs/", json=job).raise_for_status().json()["submission_id"]
        deadline = time.monotonic() + 120
        found = client.get(f"/api/jobs/{name}").json()
        while found["status"] in ("PENDING", "RUNNING") and time.monotonic() < deadline:
            time.sleep(0.3)
            found = client.get(f"/api/jobs/{name}").json()
        log = client.get(f"/api/jobs/{name}/logs").json()["logs"].splitlines()
    assert found["status"] == status, log
    codes = [code for line in log if (code := exit_code(line)) is not None]
    assert codes == ([2] if status == "STOPPED" else [])
    assert any("the data stage has not been run" in line for line in log)


def test_a_cluster_that_is_not_there_is_named() -> None:
    command = [sys.executable, "-m", "bayling.cli", "job", "list", "--to=ray"]
    done = subprocess.run(
        [*command, "--address", "http://127.0.0.1:9"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert "no Ray cluster answers at http://127.0.0.1:9" in done.stderr


class _Breaking:
    """A client whose log breaks off now and then, and comes from its beginning again."""

    def __init__(self, pieces: list[list[str]]) -> None:
        self.pieces = pieces

    async def tail_job_logs(self, submission: str):  # type: ignore[no-untyped-def]
        for piece in self.pieces.pop(0):
            if piece == "!":
                raise RuntimeError("WebSocket connection closed unexpectedly")
            yield piece


@pytest.mark.unit
def test_a_log_that_begins_again_is_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    import asyncio

    client = _Breaking([["one\ntw", "!"], ["one\n", "two\nth", "!"], ["one\ntwo\n", "three\nend"]])
    tail = _Tail(client, "x", Screen())
    for _ in range(2):
        with pytest.raises(RuntimeError):
            asyncio.run(tail.show())
    asyncio.run(tail.show())
    tail.finish()
    assert capsys.readouterr().out == "one\ntwo\nthree\nend\n"
