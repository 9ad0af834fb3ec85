"""Passwords over upgrades, in front of a small API server that has some Secrets already."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml
from charted import Object, chart, one
from helm_python import Config

KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{{name: small, cluster: {{server: "{address}"}}}}]
users: [{{name: nobody, user: {{}}}}]
contexts: [{{name: small, context: {{cluster: small, user: nobody}}}}]
current-context: small
"""
CORE = {
    "kind": "APIResourceList",
    "groupVersion": "v1",
    "resources": [
        {
            "name": "secrets",
            "singularName": "",
            "namespaced": True,
            "kind": "Secret",
            "verbs": ["get"],
        }
    ],
}


@contextmanager
def _cluster(secrets: dict[str, dict[str, str]]) -> Iterator[str]:
    """A kubeconfig for an API server that knows Secrets, and these of the namespace ml."""
    prefix = "/api/v1/namespaces/ml/secrets/"

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = self._answer(self.path.partition("?")[0])
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def _answer(self, path: str) -> tuple[int, Any]:
            if path == "/api":
                return 200, {"kind": "APIVersions", "versions": ["v1"]}
            if path == "/apis":
                return 200, {"kind": "APIGroupList", "apiVersion": "v1", "groups": []}
            if path == "/api/v1":
                return 200, CORE
            if path == "/version":
                return 200, {"major": "1", "minor": "30", "gitVersion": "v1.30.0"}
            name = path.removeprefix(prefix)
            if path.startswith(prefix) and name in secrets:
                metadata = {"name": name, "namespace": "ml"}
                data = {k: base64.b64encode(v.encode()).decode() for k, v in secrets[name].items()}
                return 200, {
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "metadata": metadata,
                    "data": data,
                }
            return 404, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404}

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield KUBECONFIG.format(address=f"http://127.0.0.1:{server.server_address[1]}")
    finally:
        server.shutdown()
        server.server_close()


def _rendered(kubeconfig: str, values: Object) -> list[Object]:
    with Config(kubeconfig_content=kubeconfig, storage_driver="memory", namespace="ml") as config:
        texts = config.render(chart("platform"), values, name="first", namespace="ml")
    return [
        each
        for path, text in texts.items()
        if path.endswith(".yaml")
        for each in yaml.load_all(text, yaml.CSafeLoader)
        if each
    ]


def _opened(secret: Object) -> dict[str, str]:
    return {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}


def _checksums(found: list[Object]) -> dict[str, str]:
    deployment = one(found, "Deployment", "first-mlflow")
    annotations = deployment["spec"]["template"]["metadata"]["annotations"]
    return {key: value for key, value in annotations.items() if key.startswith("checksum/")}


POSTGRESQL = {"mlflow": {"database": {"type": "postgresql"}}}


def test_passwords_are_drawn_once_and_kept() -> None:
    with _cluster({}) as kubeconfig:
        installed = _rendered(kubeconfig, POSTGRESQL)
        again = _rendered(kubeconfig, POSTGRESQL)
    names = ("first-mlflow", "first-jobs-mlflow", "first-postgresql")
    there = {name: _opened(one(installed, "Secret", name)) for name in names}
    assert all(there[name] != _opened(one(again, "Secret", name)) for name in names)
    assert len(there["first-mlflow"]["admin-password"]) == 32
    with _cluster(there) as kubeconfig:
        upgraded = _rendered(kubeconfig, POSTGRESQL)
    assert {name: _opened(one(upgraded, "Secret", name)) for name in names} == there
    # Nothing has changed, so no pod starts anew.
    assert _checksums(upgraded) == _checksums(installed)


def test_a_password_that_was_changed_stays_changed_and_rolls_the_pods() -> None:
    with _cluster({}) as kubeconfig:
        installed = _rendered(kubeconfig, {})
    there = {
        name: _opened(one(installed, "Secret", name))
        for name in ("first-mlflow", "first-jobs-mlflow")
    }
    there["first-mlflow"]["admin-password"] = "changed by hand"
    with _cluster(there) as kubeconfig:
        upgraded = _rendered(kubeconfig, {})
    secret = _opened(one(upgraded, "Secret", "first-mlflow"))
    assert secret["admin-password"] == "changed by hand"
    before, after = _checksums(installed), _checksums(upgraded)
    assert {key for key in before if before[key] != after[key]} == {"checksum/accounts"}


def test_a_secret_of_ones_own_rolls_the_pods_too() -> None:
    values = {"mlflow": {"auth": {"existingSecret": "admin"}}}
    seen = set()
    for password in ("one", "two", "two"):
        with _cluster({"admin": {"admin-password": password}}) as kubeconfig:
            seen.add(_checksums(_rendered(kubeconfig, values))["checksum/accounts"])
    assert len(seen) == 2
