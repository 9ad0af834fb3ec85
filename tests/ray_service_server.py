"""An API server that knows one RayService, and an API as that RayService would serve it."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from crds import validator

NAME, NAMESPACE = "champion", "ml"
PATH = f"/apis/ray.io/v1/namespaces/{NAMESPACE}/rayservices/{NAME}"
KEY = "bl-0123456789ab-key"
KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{{name: small, cluster: {{server: "{address}"}}}}]
users: [{{name: controller, user: {{token: secret}}}}]
contexts: [{{name: small, context: {{cluster: small, user: controller, namespace: ml}}}}]
current-context: small
"""
Answer = tuple[int, Any]


def ray_service() -> dict[str, Any]:
    """As the chart makes it, in short: without a serveConfigV2."""
    pod = {"spec": {"containers": [{"name": "ray-head", "image": "bayling:0.1.0-cpu"}]}}
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "resourceVersion": "1"},
        "spec": {"rayClusterConfig": {"headGroupSpec": {"rayStartParams": {}, "template": pod}}},
    }


def status_of(code: int, message: str) -> Answer:
    """A refusal as the API server writes it."""
    kind = {"kind": "Status", "apiVersion": "v1", "status": "Failure"}
    return code, {**kind, "message": message, "code": code}


@dataclass
class ApiServer:
    """Stores the object as the API server does: a patch is merged, and holds for the
    resourceVersion that it names."""

    there: dict[str, Any] | None = field(default_factory=ray_service)
    instead: list[Answer | None] = field(default_factory=list)
    """What the next requests are answered with; None closes the connection without a word."""
    before_patch: Callable[[], None] = lambda: None
    patches: list[dict[str, Any]] = field(default_factory=list)
    patched_as: str = ""
    address: str = ""

    def __post_init__(self) -> None:
        self._lock = threading.RLock()

    def get(self) -> Answer:
        with self._lock:
            if self.there is None:
                return status_of(404, f'rayservices.ray.io "{NAME}" not found')
            return 200, json.loads(json.dumps(self.there))

    def patch(self, body: dict[str, Any]) -> Answer:
        self.before_patch()
        with self._lock:
            code, there = self.get()
            if code != 200:
                return code, there
            meant = body.get("metadata", {}).get("resourceVersion")
            if meant not in (None, there["metadata"]["resourceVersion"]):
                return status_of(409, "the object has been modified; please apply your changes")
            merged = _merged(there, body)
            if folder := os.environ.get("BAYLING_CRD_DIR"):
                errors = list(validator(folder, "RayService").iter_errors(merged))
                if errors:
                    return status_of(422, errors[0].message)
            self.there = merged
            self.touch()
            self.patches.append(body)
            return self.get()

    def touch(self, **status: Any) -> None:
        """A change by somebody else, such as KubeRay's of the status."""
        with self._lock:
            assert self.there is not None
            metadata = self.there["metadata"]
            metadata["resourceVersion"] = str(int(metadata["resourceVersion"]) + 1)
            if status:
                self.there["status"] = status

    def config(self) -> dict[str, Any] | None:
        """What is to run."""
        with self._lock:
            text = self.there and self.there["spec"].get("serveConfigV2")
        return json.loads(text) if text else None


def _merged(value: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    made = dict(value) if isinstance(value, dict) else {}
    for key, change in patch.items():
        if change is None:
            made.pop(key, None)
        else:
            made[key] = _merged(made.get(key), change)
    return made


@contextmanager
def serving(server: ApiServer) -> Iterator[ApiServer]:
    """The API server, at `server.address`."""

    class Handler(_Handler):
        def do_GET(self) -> None:
            self.reply(server.get)

        def do_PATCH(self) -> None:
            server.patched_as = self.headers["content-type"]
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            self.reply(lambda: server.patch(body))

        def reply(self, answer: Callable[[], Answer]) -> None:
            if urlsplit(self.path).path != PATH:
                self.send(*status_of(404, "there is only the RayService"))
            elif not server.instead:
                self.send(*answer())
            elif (instead := server.instead.pop(0)) is not None:
                self.send(*instead)
            else:
                self.close_connection = True

    with listening(Handler) as server.address:
        yield server


def kubeconfig(server: ApiServer, folder: Path) -> Path:
    """A file by which clients find the server."""
    path = folder / "kubeconfig"
    path.write_text(KUBECONFIG.format(address=server.address), encoding="utf-8")
    return path


@dataclass
class ServedApi:
    """What a RayService serves, as far as a controller asks for it."""

    report: dict[str, Any] | None = None
    """None: it does not answer."""
    figures: dict[str, Any] = field(default_factory=lambda: {"now": 0, "versions": {}})
    since: list[float] = field(default_factory=list)
    chats: list[dict[str, Any]] = field(default_factory=list)
    address: str = ""


@contextmanager
def served(api: ServedApi) -> Iterator[ServedApi]:
    """The API, at `api.address`."""

    class Handler(_Handler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            if self.headers["authorization"] != f"Bearer {KEY}":
                self.send(401, {"error": {"message": "the API key is not valid"}})
            elif api.report is None:
                self.send(503, {"error": {"message": "no replica"}})
            elif url.path == "/internal/report":
                self.send(200, api.report)
            else:
                api.since.append(float(parse_qs(url.query)["since"][0]))
                self.send(200, api.figures)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            api.chats.append(body)
            if body["model"].endswith("@9"):
                self.send(404, {"error": {"message": "there is no model bayling@9 here"}})
            else:
                self.send(200, {"choices": [{"message": {"content": "21. März"}}]})

    with listening(Handler) as api.address:
        yield api


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def send(self, code: int, body: Any) -> None:
        text = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address of a server on this machine, until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
