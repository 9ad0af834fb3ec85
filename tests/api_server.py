"""A small Kubernetes API server: the calls of the client of jobs, with what goes wrong on demand.

It keeps RayJobs, claims, pods and events, and plays KubeRay only as far as a test tells it to.
What it is sent it validates by the schemas of Kubernetes and, where BAYLING_CRD_DIR is set, of
KubeRay's CRD, unknown fields included, so that it does not just believe its client.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from crds import validator
from kubernetes_validate import latest_version, validate

from bayling.cluster.installation import CHART

Object = dict[str, Any]
NAMESPACE = "ml"
KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{{name: small, cluster: {{server: "{address}"}}}}]
users: [{{name: somebody, user: {{token: t}}}}]
contexts: [{{name: small, context: {{cluster: small, user: somebody, namespace: ml}}}}]
current-context: small
"""
RELEASE = {
    "chart-version": CHART,
    "instance": "bayling",
    "MLFLOW_TRACKING_URI": "http://bayling-mlflow.ml.svc:5000",
    "credentials-secret": "bayling-jobs-mlflow",
    "service-account": "bayling-jobs",
    "image": "r.example.com/bayling:0.1.0-cpu",
    "gpu-image": "r.example.com/bayling:0.1.0-gpu",
    "pull-policy": "IfNotPresent",
    "ray-version": "2.60.0",
    "team": "",
    "queue": "",
    "storage-claim": "bayling-jobs",
    "storage-size": "20Gi",
    "storage-class": "",
    "storage-access": "ReadWriteOnce",
}


def status(code: int, message: str, reason: str = "", **details: Any) -> Object:
    """An answer of the API server's that is no object."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": message,
        "reason": reason,
        "details": details,
        "code": code,
    }


def forbidden(verb: str, resource: str, group: str = "") -> Object:
    """As a real one says that a right is missing."""
    named = f"{resource}.{group}" if group else resource
    return status(
        403,
        f'{named} is forbidden: User "jane" cannot {verb} resource "{resource}" in API group '
        f'"{group}" in the namespace "{NAMESPACE}"',
        "Forbidden",
    )


@dataclass
class Log:
    """A container's log, and where connections to it break."""

    lines: list[tuple[str, str]] = field(default_factory=list)
    """(time, text)"""
    breaks: list[int] = field(default_factory=list)
    """Bytes after which each connection breaks; beyond these none does."""
    quiet_s: float = 0
    """How long a connection stays open after the last line."""
    asked: list[dict[str, str]] = field(default_factory=list)
    """The queries, as they came."""

    def after(self, since: str | None) -> bytes:
        """From a whole second on, as a real one takes `sinceTime`."""
        kept = [(t, text) for t, text in self.lines if since is None or t[:19] >= since[:19]]
        return "".join(f"{t} {text}\n" for t, text in kept).encode()


class ApiServer:
    """State, and what is to go wrong. Thread-safe as far as tests need it."""

    def __init__(self) -> None:
        self.config_maps: dict[str, Object] = {"bayling-jobs": dict(RELEASE)}
        self.rayjobs: dict[str, Object] = {}
        self.claims: dict[str, Object] = {}
        self.pods: list[Object] = []
        self.events: list[Object] = []
        self.logs: dict[str, Log] = {}
        self.calls: list[tuple[str, str]] = []
        """(method, path with its query), in their order."""
        self.refuse: list[tuple[str, str, int, Object | str, int]] = []
        """(method, pattern of the path, status, body, how often)."""
        self.watches: list[str] = []
        """What becomes of the next watches: "gone" (410), "gone-status", "cut"."""
        self.on_create: Callable[[Object], None] = lambda made: None
        self.address = ""
        self._version = 100
        self._changes: list[tuple[int, str, Object]] = []
        self._news = threading.Condition()

    # ---- what tests do ----

    def change(self, name: str, **found: Any) -> None:
        """Write a RayJob's status, as KubeRay would."""
        with self._news:
            job = self.rayjobs[name]
            job["status"] = {**job.get("status", {}), **found}
            self._record("MODIFIED", job)

    def remove(self, name: str) -> None:
        with self._news:
            self._record("DELETED", self.rayjobs.pop(name))

    def times(self, method: str, pattern: str) -> int:
        """How often something was asked for."""
        return sum(m == method and bool(re.search(pattern, path)) for m, path in self.calls)

    # ---- what the handler does ----

    def _record(self, kind: str, job: Object) -> None:
        self._version += 1
        job["metadata"]["resourceVersion"] = str(self._version)
        self._changes.append((self._version, kind, json.loads(json.dumps(job))))
        self._news.notify_all()

    def create(self, body: Object, dry: bool) -> tuple[int, Object]:
        checked(body)
        name = body["metadata"]["name"]
        with self._news:
            if name in self.rayjobs:
                return 409, status(409, f'rayjobs.ray.io "{name}" already exists', "AlreadyExists")
            if dry:
                return 201, body
            made = json.loads(json.dumps(body))
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            made["metadata"] |= {"uid": f"uid-{name}", "creationTimestamp": now}
            made["spec"].setdefault("suspend", False)
            self.rayjobs[name] = made
            self._record("ADDED", made)
        self.on_create(made)
        return 201, made

    def changes_after(self, version: int, until: float) -> Iterator[tuple[str, Object]]:
        """Events of a watch until its time is over."""
        while True:
            with self._news:
                fresh = [(v, k, o) for v, k, o in self._changes if v > version]
                if not fresh:
                    left = until - time.monotonic()
                    if left <= 0 or not self._news.wait(left):
                        return
                    continue
            version = fresh[-1][0]
            for _, kind, found in fresh:
                yield kind, found


def checked(body: Object) -> None:
    """Validate a RayJob by KubeRay's CRD, and its pods by Kubernetes' own schema.

    Raises:
        Exception: it is not valid.
    """
    folder = os.environ.get("BAYLING_CRD_DIR")
    if folder:
        validator(folder, "RayJob").validate(body)
    cluster = body["spec"]["rayClusterSpec"]
    templates = [body["spec"]["submitterPodTemplate"], cluster["headGroupSpec"]["template"]]
    templates += [group["template"] for group in cluster["workerGroupSpecs"]]
    for template in templates:
        pod = {"apiVersion": "v1", "kind": "Pod", **template}
        pod["metadata"] = {**template["metadata"], "name": "p"}
        validate(pod, latest_version(), strict=True)


@contextmanager
def serving() -> Iterator[ApiServer]:
    """A server on a free port of this machine."""
    api = ApiServer()
    handler = type("Handler", (_Handler,), {"api": api})
    server = _Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    api.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()


def kubeconfig(api: ApiServer, folder: Path) -> Path:
    path = folder / "kubeconfig"
    path.write_text(KUBECONFIG.format(address=api.address), "utf-8")
    return path


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # many short connections, and the threads share a core with others


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    api: ApiServer

    def do_GET(self) -> None:
        self._handle("GET")

    def do_POST(self) -> None:
        self._handle("POST")

    def do_DELETE(self) -> None:
        self._handle("DELETE")

    def _handle(self, method: str) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        self.api.calls.append((method, self.path))
        for place, (m, pattern, code, answer, left) in enumerate(self.api.refuse):
            if m == method and re.search(pattern, self.path) and left:
                self.api.refuse[place] = (m, pattern, code, answer, left - 1)
                if code == 0:
                    self._break()
                    return
                self._answer(code, answer)
                return
        try:
            self._route(method, parts.path, query, body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _route(self, method: str, path: str, query: dict[str, str], body: Object) -> None:
        api = self.api
        core, ray = f"/api/v1/namespaces/{NAMESPACE}", f"/apis/ray.io/v1/namespaces/{NAMESPACE}"
        kind, _, name = path.removeprefix(core if path.startswith(core) else ray)[1:].partition("/")
        if path.startswith(ray) and kind == "rayjobs":
            if method == "POST":
                self._answer(*api.create(body, query.get("dryRun") == "All"))
            elif query.get("watch") == "true":
                self._watch(query)
            elif not name:
                items = [j for j in api.rayjobs.values() if _matches(j, query)]
                meta = {"resourceVersion": str(api._version)}
                self._answer(200, {"kind": "RayJobList", "metadata": meta, "items": items})
            elif name not in api.rayjobs:
                self._missing("rayjobs.ray.io", name)
            elif method == "DELETE":
                api.remove(name)
                self._answer(200, {"kind": "Status", "status": "Success"})
            else:
                self._answer(200, api.rayjobs[name])
        elif kind == "configmaps" and name in api.config_maps:
            data = api.config_maps[name]
            self._answer(200, {"kind": "ConfigMap", "metadata": {"name": name}, "data": data})
        elif kind == "configmaps" and not name:
            items = [
                {"metadata": {"name": name}, "data": data} for name, data in api.config_maps.items()
            ]
            self._answer(200, {"kind": "ConfigMapList", "apiVersion": "v1", "items": items})
        elif kind == "persistentvolumeclaims" and method == "POST":
            validate(body, latest_version(), strict=True)
            api.claims[body["metadata"]["name"]] = body
            self._answer(201, body)
        elif kind == "persistentvolumeclaims" and name in api.claims:
            self._answer(200, api.claims[name])
        elif kind == "pods" and name.endswith("/log"):
            self._log(name.removesuffix("/log"), query)
        elif kind == "pods":
            items = [pod for pod in api.pods if _matches(pod, query)]
            self._answer(200, {"kind": "PodList", "apiVersion": "v1", "items": items})
        elif kind == "events":
            self._answer(200, {"kind": "EventList", "apiVersion": "v1", "items": api.events})
        elif path.startswith((core, ray)):
            self._missing(kind, name)
        else:
            self._answer(404, "404 page not found")

    def _watch(self, query: dict[str, str]) -> None:
        api, fate = self.api, self.api.watches.pop(0) if self.api.watches else ""
        old = status(410, "too old resource version: 1 (100)", "Expired")
        if fate == "gone-status":
            self._answer(410, old)
            return
        self._begin("application/json")
        if fate == "gone":
            self._chunk(json.dumps({"type": "ERROR", "object": old}).encode() + b"\n")
            self._chunk(b"")
            return
        if fate == "cut":
            self._break()
            return
        until = time.monotonic() + float(query["timeoutSeconds"])
        for kind, found in api.changes_after(int(query["resourceVersion"]), until):
            if f"metadata.name={found['metadata']['name']}" == query["fieldSelector"]:
                self._chunk(json.dumps({"type": kind, "object": found}).encode() + b"\n")
        self._chunk(b"")

    def _log(self, pod: str, query: dict[str, str]) -> None:
        log = self.api.logs.get(pod)
        if log is None:
            self._answer(400, status(400, f'container "{query["container"]}" is waiting to start'))
            return
        log.asked.append(query)
        self._begin("text/plain")
        data = log.after(query.get("sinceTime"))
        if log.breaks:
            if part := data[: log.breaks.pop(0)]:
                self._chunk(part)
            self._break()
            return
        if data:
            self._chunk(data)
        time.sleep(log.quiet_s)
        self._chunk(b"")

    def _begin(self, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _break(self) -> None:
        """Close the connection in the middle."""
        import socket

        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def _missing(self, kind: str, name: str) -> None:
        self._answer(404, status(404, f'{kind} "{name}" not found', "NotFound", name=name))

    def _answer(self, code: int, body: Object | str) -> None:
        text = isinstance(body, str)
        data = (body if text else json.dumps(body)).encode()  # type: ignore[union-attr]
        self.send_response(code)
        self.send_header("Content-Type", "text/plain" if text else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


def _matches(found: Object, query: dict[str, str]) -> bool:
    labels = found["metadata"].get("labels", {})
    wanted = [part.split("=") for part in query.get("labelSelector", "").split(",") if part]
    return all(labels.get(key) == value for key, value in wanted)


def pod(
    name: str, job: str, container: str, phase: str = "Running", env: Object | None = None
) -> Object:
    """A pod of a job, for `ApiServer.pods`."""
    variables = [{"name": key, "value": value} for key, value in (env or {}).items()]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "uid": f"uid-{name}",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"bayling/job": job},
        },
        "spec": {"containers": [{"name": container, "image": "i", "env": variables}]},
        "status": {"phase": phase},
    }
