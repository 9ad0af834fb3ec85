"""`bayling rollout follow` before there is anything to follow, and what it refuses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from ray_service_server import NAME, ApiServer, kubeconfig, serving
from rollout_place import make_store
from running import free_port

from bayling.cli import main
from bayling.cluster.kubernetes_api import connect
from bayling.cluster.ray_service import RayService
from bayling.commands import rollout_follow
from bayling.commands.rollout_follow import served_there
from bayling.config import compose
from bayling.registry import runs
from bayling.serve.application import ENGINES, service_config
from bayling.serve.rollout.pulse import Pulse
from bayling.serve.rollout.record import Record

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with serving(ApiServer()) as server:
        yield server


def _options(folder: Path, port: int) -> list[str]:
    (folder / "key").write_text("bl-0123456789ab-key")
    options = ["rollout", "follow", "--ray-service", NAME, "--api", "http://127.0.0.1:9"]
    options += ["--key-file", str(folder / "key"), "--port", str(port), "--api-on", "bayling-api"]
    return [*options, "--cache", "/var/cache/bayling", "serve.keys_file=/etc/bayling/keys"]


def _until(port: int, **wanted: str) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    said: dict[str, Any] = {}
    while not all(text in said.get(key, "") for key, text in wanted.items()):
        assert time.monotonic() < deadline, said
        time.sleep(0.1)
        try:
            said = httpx.get(f"http://127.0.0.1:{port}/status", trust_env=False).json()
        except httpx.HTTPError:
            continue
    return said


def test_it_waits_for_a_champion_keeps_the_api_up_meanwhile_and_leaves_with_a_word(
    server: ApiServer, tmp_path: Path
) -> None:
    uri, port = f"sqlite:///{make_store(tmp_path)}", free_port()
    mlflow = runs.client(uri)
    mlflow.delete_registered_model_alias("bayling", "champion")
    command = [sys.executable, "-m", "bayling.cli", *_options(tmp_path, port)]
    command += [f"tracking_uri={uri}", "serve.rollout.poll_s=0.2"]
    environment = {
        **os.environ,
        "KUBECONFIG": str(kubeconfig(server, tmp_path)),
        "PYTHONPATH": str(ROOT / "platform"),
    }
    there, server.there = server.there, None
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        _until(port, state="waiting", reason="there is no RayService 'champion'")
        server.there = there
        _until(port, state="waiting", reason="has no alias 'champion'")
        (api,) = (server.config() or {})["applications"]
        assert api["deployments"] == [{"name": "Api", "user_config": {"shares": {}}}]
        assert api["args"]["api_on"] == "bayling-api"
        assert api["args"]["served"]["cache"] == "/var/cache/bayling"

        mlflow.set_registered_model_alias("bayling", "champion", "2")
        said = _until(port, state="full")
        assert said["serving"] == "2"
        names = [one["name"] for one in (server.config() or {})["applications"]]
        assert names == ["bayling-v2", "bayling"]
        assert len(server.patches) == 2
    finally:
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=30)
    assert process.returncode == 0, log
    assert log.count("waiting: model 'bayling' has no alias") == 1
    status = Record(uri, "bayling").read().status
    assert status is not None and status["stopped"]


def test_the_champion_runs_also_where_another_controller_follows_the_model(
    server: ApiServer, tmp_path: Path
) -> None:
    uri = f"sqlite:///{make_store(tmp_path)}"
    config = compose([f"tracking_uri={uri}"])
    target = RayService(
        connect(kubeconfig=str(kubeconfig(server, tmp_path))),
        NAME,
        partial(service_config, served_there(config, None, None)),
        "http://127.0.0.1:9",
        lambda: "bl-0123456789ab-key",
        ENGINES,
    )
    pulse = Pulse(0, within_s=60)
    assert rollout_follow._beginning(config, target, pulse)[0].serving == "1"
    assert target.versions() == {"1"}
    assert rollout_follow._beginning(config, target, pulse)[0].serving == "1"
    assert len(server.patches) == 1, "it runs already"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (["serve.max_replica=1"], "did you mean serve.max_replicas?"),
        (["serve.min_replicas=3"], "serve.max_replicas=2 is below"),
        (["--key-file", "/nowhere/key"], "no key can be read from /nowhere/key"),
    ],
)
def test_what_cannot_work_is_a_sentence(
    server: ApiServer,
    tmp_path: Path,
    change: list[str],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(server, tmp_path)))
    assert main([*_options(tmp_path, free_port()), *change]) == 2
    said = capsys.readouterr().err
    assert sentence in said and len(said.strip().splitlines()) == 1


def test_without_a_cluster_it_says_where_it_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert main(_options(tmp_path, free_port())) == 2
    assert f"no kubeconfig at {tmp_path / 'none'}" in capsys.readouterr().err
