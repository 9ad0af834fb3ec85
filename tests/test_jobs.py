"""`ray job submit` on a cluster where the package is not installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sysconfig
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from running import free_port

ROOT = Path(__file__).resolve().parents[1]
_RAY = "from ray.scripts.scripts import main; main()"


@dataclass(frozen=True)
class Head:
    """A Ray head with its Jobs API, started by a Python that cannot import bayling."""

    python: Path
    address: str
    environment: dict[str, str]

    def ray(self, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.python), "-c", _RAY, *arguments],
            env=self.environment,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=1100,
        )


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    folder = tmp_path_factory.mktemp("head")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    python = folder / "venv" / "bin" / "python"
    own = Path(
        subprocess.check_output(
            [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
        ).strip()
    )
    # A plain path: the dependencies can be imported, but the .pth file by which an editable
    # install of this package is found is not read there.
    (own / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("RAY_", "PYTHONPATH", "MLFLOW_", "VIRTUAL_ENV"))
    }
    missing = subprocess.run(
        [str(python), "-c", "import bayling.cli"],
        capture_output=True,
        cwd=folder,
        env=environment,
    )
    assert missing.returncode != 0, "bayling can be imported: the test would prove nothing"

    ports = {name: free_port() for name in ("gcs", "dashboard", "agent", "agent_grpc", "client")}
    environment["RAY_AUTH_MODE"] = "disabled"
    # Nothing is left to be drained when it is told to go.
    environment["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"] = "1"
    environment["PATH"] = f"{python.parent}{os.pathsep}{environment['PATH']}"
    address = f"http://127.0.0.1:{ports['dashboard']}"
    started = Head(python, address, environment)
    command = ["start", "--head", "--num-cpus=4", "--include-dashboard=true"]
    command += [f"--port={ports['gcs']}", f"--dashboard-port={ports['dashboard']}"]
    command += [f"--dashboard-agent-listen-port={ports['agent']}"]
    command += [f"--dashboard-agent-grpc-port={ports['agent_grpc']}"]
    command += [f"--ray-client-server-port={ports['client']}"]
    command += [f"--temp-dir={_short_folder()}", f"--object-store-memory={150 * 2**20}"]
    process = subprocess.Popen(
        [str(python), "-c", _RAY, *command, "--block"],
        env=environment,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(address)
        yield started
    finally:
        process.terminate()
        process.wait(300)


def _short_folder() -> str:
    # Ray's sockets lie in it, and a socket's path has at most 107 characters.
    import tempfile

    return tempfile.mkdtemp(prefix="ray-", dir="/tmp")


def _wait_for(address: str) -> None:
    import time

    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{address}/api/version", timeout=2).is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    raise TimeoutError("the Ray head did not come up")


@pytest.mark.timeout(1200)
def test_a_submitted_pipeline_succeeds_where_bayling_is_not_installed(
    head: Head, tmp_path: Path
) -> None:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name in ("platform", "jobs", "conf", ".rayignore", ".gitignore"):
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, checkout / name)
    for name in (".venv/lib/big.bin", "outputs/quickstart/model.bin", "mlflow.db"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_bytes(os.urandom(1_000_000))
    outputs = tmp_path / "outputs"
    done = head.ray(
        "job",
        "submit",
        f"--address={head.address}",
        "--working-dir=.",
        "--",
        "python",
        "jobs/pipeline.py",
        "recipe=smoke",
        f"output_dir={outputs}",
        f"serve.port={free_port()}",
        cwd=checkout,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in done.stdout + done.stderr
    summary = json.loads((outputs / "smoke" / "summary.json").read_text("utf-8"))
    assert summary["translations"]
    serving = httpx.get(f"{head.address}/api/serve/applications/", timeout=30).json()
    assert serving["applications"] == {}, "the cluster is left as it was"

    uploaded = [
        package
        for package in Path("/tmp").glob(
            "ray-*/session_latest/runtime_resources/working_dir_files/*"
        )
        if package.is_dir() and (package / "jobs" / "pipeline.py").exists()
    ]
    assert uploaded
    names = {path.name for package in uploaded for path in package.iterdir()}
    assert not names & {".venv", "outputs", "mlflow.db"}


def test_a_refused_configuration_fails_the_job_with_its_sentence(
    head: Head, tmp_path: Path
) -> None:
    done = head.ray(
        "job",
        "submit",
        f"--address={head.address}",
        f"--working-dir={ROOT}",
        "--",
        "python",
        "jobs/train.py",
        "recipe=smok",
        cwd=tmp_path,
    )
    assert done.returncode != 0
    assert "did you mean smoke?" in done.stdout + done.stderr
