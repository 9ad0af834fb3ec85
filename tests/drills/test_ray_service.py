"""The rollout controller of Kubernetes at work, with everything real but KubeRay and its API
server: a small one stores the RayService, and what KubeRay does with it is done here to a real Ray
Serve. The controller is the command that the chart starts, in a process of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from mlflow_server import mlflow_server, register
from ray_service_server import NAME, ApiServer, kubeconfig, serving
from running import free_port
from tiny_model import make_model

from bayling.registry import runs
from bayling.serve import keys

pytestmark = [pytest.mark.drill, pytest.mark.timeout(1200)]

ROOT = Path(__file__).resolve().parents[2]
HELM_TEST = ROOT / "charts" / "serving" / "files" / "translates.py"
OVERRIDES = [
    "serve.host=127.0.0.1",
    "serve.max_batch=8",
    "serve.max_ongoing_requests=16",
    "serve.target_ongoing_requests=8",
    "serve.max_queued_requests=50",
    "serve.max_replicas=1",
    "serve.startup_timeout_s=300",
    "serve.rollout.steps=[0.5]",
    "serve.rollout.min_samples=40",
    "serve.rollout.min_step_s=2",
    "serve.rollout.keep_previous_s=2",
    "serve.rollout.poll_s=0.5",
    # So few requests can show no less; and others use the same two cores.
    "serve.rollout.max_error_increase=0.3",
    "serve.rollout.max_off_target_increase=0.4",
    "serve.rollout.max_latency_ratio=50",
]


class Operator:
    """What KubeRay does with a RayService: gives its serveConfigV2 to Ray Serve where that has
    changed, and writes into its status what Ray Serve says. The first Ray cluster has the traffic
    once all of its applications run."""

    def __init__(self, server: ApiServer, port: int) -> None:
        from ray import serve
        from ray.serve.config import HTTPOptions, ProxyLocation

        serve.start(
            proxy_location=ProxyLocation.EveryNode,
            http_options=HTTPOptions(host="127.0.0.1", port=port),
        )
        self._server, self._given, self._active = server, "", False
        self.gave: list[dict[str, Any]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def leave(self) -> None:
        from ray import serve

        self._stop.set()
        self._thread.join()
        serve.shutdown()

    def _run(self) -> None:
        while not self._stop.wait(0.5):
            self._reconcile()

    def _reconcile(self) -> None:
        from ray import serve
        from ray.serve.context import _get_global_client
        from ray.serve.schema import ServeDeploySchema

        _, there = self._server.get()
        text = there["spec"].get("serveConfigV2", "")
        if text and text != self._given:
            config = yaml.safe_load(text)
            _get_global_client().deploy_apps(ServeDeploySchema(**config))
            self._given = text
            self.gave.append(config)
        told = {
            name: {
                "status": one.status.value,
                "message": one.message,
                "serveDeploymentStatuses": {
                    part: {"status": state.status.value, "message": state.message}
                    for part, state in one.deployments.items()
                },
            }
            for name, one in serve.status().applications.items()
        }
        self._active |= bool(told) and all(one["status"] == "RUNNING" for one in told.values())
        side = "activeServiceStatus" if self._active else "pendingServiceStatus"
        self._server.touch(**{side: {"applicationStatuses": told}})


@dataclass
class People:
    """Ask for translations without a pause."""

    url: str
    key: str
    answered: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._live, args=(n,)) for n in range(4)]

    def __enter__(self) -> People:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _live(self, number: int) -> None:
        headers = {"authorization": f"Bearer {self.key}"}
        turn = 0
        with httpx.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False) as http:
            while not self._stop.is_set():
                turn += 1
                body = {"text": f"{number}-{turn}", "source": "en", "target": "de"}
                try:
                    answer = http.post("/v1/translations", json={**body, "max_tokens": 8})
                    answer.raise_for_status()
                    self.answered[answer.headers["x-bayling-model-version"]] += 1
                except httpx.HTTPError as error:
                    self.failures.append(repr(error))


@dataclass
class Release:
    """What a release of the chart is, in short: a RayService, keys and a controller."""

    folder: Path
    server: ApiServer
    mlflow: str
    port: int
    status_port: int
    keys: dict[str, str]
    controller: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def said(self) -> Path:
        return self.folder / "controller.log"

    def start_controller(self) -> None:
        command = [sys.executable, "-m", "bayling.cli", "rollout", "follow"]
        command += ["--ray-service", NAME, "--api", self.url, "--api-on", "bayling-api"]
        command += ["--key-file", str(self.folder / "key"), "--cache", str(self.folder / "cache")]
        command += ["--port", str(self.status_port), f"serve.port={self.port}", *OVERRIDES]
        command += [f"serve.keys_file={self.folder / 'keys'}"]
        environment = {
            **os.environ,
            "KUBECONFIG": str(kubeconfig(self.server, self.folder)),
            "MLFLOW_TRACKING_URI": self.mlflow,
            "PYTHONPATH": str(ROOT / "platform"),
        }
        with self.said.open("ab") as said:
            self.controller = subprocess.Popen(command, env=environment, stderr=said)

    def stop_controller(self, signal_: signal.Signals) -> int:
        assert self.controller is not None
        self.controller.send_signal(signal_)
        return self.controller.wait(30)

    def champion(self, version: str) -> None:
        client = runs.client(self.mlflow)
        client.set_registered_model_alias("bayling", "champion", version)

    def status(self) -> dict[str, Any]:
        with contextlib.suppress(httpx.HTTPError):
            answer = httpx.get(f"http://127.0.0.1:{self.status_port}/status", trust_env=False)
            return dict(answer.json())
        return {}

    def asked(self, path: str) -> int:
        """The status of the API's answer; 0 while there is none."""
        try:
            return httpx.get(self.url + path, timeout=5, trust_env=False).status_code
        except httpx.HTTPError:
            return 0

    def helm_test(self) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "API": self.url,
            "CONTROLLER": f"http://127.0.0.1:{self.status_port}",
            "KEY": self.keys["controller"],
            "WITHIN_S": "0",
        }
        command = [sys.executable, str(HELM_TEST)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    def until(self, holds: Callable[[dict[str, Any]], bool], within_s: float = 300) -> None:
        deadline = time.monotonic() + within_s
        while not holds(self.status()):
            if time.monotonic() > deadline:
                raise AssertionError((self.status(), self.said.read_text()[-2000:]))
            time.sleep(0.3)

    def comes_to(self, state: str, version: str) -> None:
        self.until(lambda now: (now.get("state"), now.get("version")) == (state, version))


@pytest.fixture
def release(nodes: Any, tmp_path: Path) -> Iterator[Release]:
    """Versions 1 and 2 are as good; 3 writes another script. None is the champion yet."""
    node = nodes.add_node(num_cpus=3, resources={"bayling-api": 1}, object_store_memory=150 * 2**20)
    secrets = {}
    (tmp_path / "keys").mkdir()
    for owner in ("controller", "app"):
        secrets[owner], record = keys.make(owner)
        (tmp_path / "keys" / f"{owner}.jsonl").write_text(record.line())
    (tmp_path / "key").write_text(secrets["controller"])
    (tmp_path / "mlflow").mkdir()
    with mlflow_server(tmp_path / "mlflow") as mlflow, serving(ApiServer()) as server:
        for version, writes in (("1", "de"), ("2", "de"), ("3", "hi")):
            folder = tmp_path / f"model-{version}"
            make_model(folder, seed=int(version), writes=writes, languages=["en", "de"])
            assert register(mlflow, folder) == version
        port = free_port()
        operator = Operator(server, port)
        release = Release(tmp_path, server, mlflow, port, free_port(), secrets)
        release.start_controller()
        yield release
        release.stop_controller(signal.SIGKILL)
        operator.leave()
    nodes.remove_node(node)


def test_a_release_serves_what_is_promoted_and_rolls_the_next_one_out(release: Release) -> None:
    # Nothing is promoted: the API is there, without a version, and everybody says what is missing.
    release.until(lambda now: now.get("state") == "waiting")
    release.until(lambda _: release.asked("/healthz") == 200)
    assert release.asked("/readyz") == 503
    told = release.helm_test()
    assert told.returncode == 1
    assert "the rollout controller waits: model 'bayling' has no alias 'champion'" in told.stderr

    release.champion("1")
    release.until(lambda _: release.asked("/readyz") == 200)
    told = release.helm_test()
    assert told.returncode == 0, told.stderr
    assert "bayling version 1: in 5 days →" in told.stdout

    with People(release.url, release.keys["app"]) as people:
        # The alias moves while no controller is there: people are served, so it is a rollout.
        assert release.stop_controller(signal.SIGTERM) == 0
        release.champion("2")
        release.start_controller()
        release.comes_to("canary", "2")
        # Killed in the middle of it: the next one goes on.
        release.stop_controller(signal.SIGKILL)
        release.start_controller()
        release.comes_to("full", "2")
        config = release.server.config
        release.until(lambda _: '"bayling-v1"' not in json.dumps(config()))
        release.champion("3")
        release.comes_to("rolled_back", "3")
    assert people.failures == []
    assert set(people.answered) == {"1", "2"}
    print(f"\n{people.answered.total()} requests, none failed")
    assert "in the wrong script" in release.status()["reason"]
    assert release.asked("/internal/report") == 401
    tags = runs.client(release.mlflow).get_model_version("bayling", "2").tags
    assert tags["rollout.state"] == "full"
    cached = {path.name for path in (release.folder / "cache").glob("*/whole/[0-9]*")}
    assert cached == {"1", "2", "3"}, "engines fetched each version once for the node"
