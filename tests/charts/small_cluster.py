"""A small API server that has some Secrets already, for charts that look them up."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

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
def small_cluster(secrets: dict[str, dict[str, str]]) -> Iterator[str]:
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
