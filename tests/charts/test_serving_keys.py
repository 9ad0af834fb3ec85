"""The keys that the chart `serving` draws, over upgrades too, and its `helm test`."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import yaml
from chart_values import VALUES
from charted import CHARTS, KUBERAY, Object, chart, objects, one
from helm_python import Config, _native
from pods import pods
from ray_service_server import listening
from small_cluster import small_cluster

from bayling.serve import keys

SERVING = VALUES["serving"]
TEST = CHARTS / "serving" / "files" / "translates.py"


def _records(found: list[Object], folder: Path) -> dict[str, keys.Key]:
    """What the API would read of the Secret with the records."""
    secret = one(found, "Secret", "first-keys")
    for name, value in secret["data"].items():
        (folder / name).write_bytes(base64.b64decode(value))
    return {key.name: key for key in keys.read(folder)}


def _drawn(found: list[Object], name: str) -> str:
    return base64.b64decode(one(found, "Secret", name)["data"]["key"]).decode()


def test_the_api_knows_the_keys_that_were_drawn_by_their_hashes(tmp_path: Path) -> None:
    found = objects("serving", {})
    records = _records(found, tmp_path)
    assert set(records) == {"app", "rollout-controller"}
    for owner, secret in (("app", "first-app"), ("rollout-controller", "first-rollout")):
        key = _drawn(found, secret)
        assert keys.id_of(key) == records[owner].id
        assert keys.digest(key).hex() == records[owner].sha256
        assert abs((records[owner].created - datetime.now(UTC)).total_seconds()) < 60
    assert set(records["rollout-controller"].limits.values()) == {None}
    assert not records["app"].limits
    assert "first-app" not in {
        entry["valueFrom"]["secretKeyRef"]["name"]
        for pod in pods(found)
        for container in pod.containers()
        for entry in container.get("env", [])
        if "secretKeyRef" in entry.get("valueFrom", {})
    }


def test_keys_of_ones_own_are_read_beside_the_controllers(tmp_path: Path) -> None:
    values = SERVING["secrets-of-ones-own"]
    assert set(_records(objects("serving", values), tmp_path)) == {"rollout-controller"}
    (volume,) = [
        volume
        for pod in pods(objects("serving", values))
        for volume in pod.spec.get("volumes", [])
        if volume["name"] == "keys"
    ]
    assert [source["secret"]["name"] for source in volume["projected"]["sources"]] == [
        "first-keys",
        "customers",
    ]


def test_keys_are_drawn_once_and_kept_over_upgrades() -> None:
    def rendered(secrets: dict[str, dict[str, str]]) -> list[Object]:
        with small_cluster(secrets) as kubeconfig:
            return _rendered(kubeconfig)

    installed, again = rendered({}), rendered({})
    assert _drawn(installed, "first-app") != _drawn(again, "first-app")
    there = {
        name: {
            key: base64.b64decode(value).decode()
            for key, value in one(installed, "Secret", name)["data"].items()
        }
        for name in ("first-app", "first-rollout", "first-keys")
    }
    upgraded = rendered(there)
    for name in there:
        assert one(upgraded, "Secret", name)["data"] == one(installed, "Secret", name)["data"]
    # Taken back: its Secret was deleted.
    del there["first-app"]
    assert _drawn(rendered(there), "first-app") != _drawn(installed, "first-app")


def _rendered(kubeconfig: str) -> list[Object]:
    # As in `charted`: the package's own `render` cannot be told of APIs.
    options = json.dumps({"name": "first", "namespace": "ml", "api_versions": [KUBERAY]})
    with Config(kubeconfig_content=kubeconfig, storage_driver="memory", namespace="ml") as config:
        texts = json.loads(
            _native.call_string(
                "helm_render_with_config", config._raw(), chart("serving")._raw(), "{}", options
            )
        )
    return [
        each
        for path, text in texts.items()
        if path.endswith(".yaml")
        for each in yaml.load_all(text, yaml.CSafeLoader)
        if each
    ]


@contextmanager
def _answering(answers: dict[str, tuple[int, Any]], key: str = "") -> Iterator[str]:
    """A server with these answers; with a key it asks for that below /v1."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code, body = answers.get(self.path, (404, {}))
            if key and "/v1" in self.path and self.headers["authorization"] != f"Bearer {key}":
                code, body = 401, {}
            text = json.dumps(body).encode()
            self.send_response(code)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with listening(Handler) as address:
        yield address


def _helm_test(api: str, controller: str) -> subprocess.CompletedProcess[str]:
    environment = {"API": api, "CONTROLLER": controller, "KEY": "secret", "WITHIN_S": "0"}
    command = [sys.executable, str(TEST)]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


MODEL = {"id": "bayling", "version": "7", "languages": ["en", "sw"]}
ANSWERS: dict[str, tuple[int, Any]] = {
    "/readyz": (200, {}),
    "/v1/models": (200, {"data": [MODEL]}),
    "/v1/translations": (200, {"translations": [{"text": "baada ya siku 5"}]}),
}


def test_helm_test_wants_a_translation_and_a_key() -> None:
    with _answering({}) as nobody, _answering(ANSWERS, "secret") as api:
        done = _helm_test(api, nobody)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "bayling version 7: in 5 days → baada ya siku 5\n"
    with _answering({}) as nobody, _answering(ANSWERS) as api:
        assert "without asking for a key" in _helm_test(api, nobody).stderr
    with _answering({}) as nobody, _answering(ANSWERS, "another") as api:
        assert "does not take the key" in _helm_test(api, nobody).stderr


def test_helm_test_tells_what_is_missing() -> None:
    waiting = {"state": "waiting", "reason": "model 'bayling' has no alias 'champion'"}
    with _answering({"/status": (200, waiting)}) as controller:
        told = _helm_test("http://127.0.0.1:9", controller)
        assert told.returncode == 1
        assert "waits: model 'bayling' has no alias 'champion'" in told.stderr
    broken = {"state": "full", "serving": "7", "reason": "r", "notice": "holds no model"}
    with _answering({"/status": (200, broken)}) as controller:
        told = _helm_test("http://127.0.0.1:9", controller)
    assert "version 7 has no engine yet (r; holds no model)" in told.stderr
    told = _helm_test("http://127.0.0.1:9", "http://127.0.0.1:9")
    assert "the rollout controller does not answer" in told.stderr
