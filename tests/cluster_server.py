"""A real kube-apiserver with its etcd, KubeRay's CRDs installed, and no controllers.

It needs KUBEBUILDER_ASSETS (a folder with both programs) and BAYLING_CRD_DIR. What controllers
would do – KubeRay, the scheduler, the garbage collector – a test does itself.

The CRDs of Prometheus' operator and of the Gateway API are installed where BAYLING_CRD_DIR has
them; else stand-ins that take every field are, so that charts find those APIs.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from running import free_port

TOKEN = "of-the-test"
STRANGERS = {
    "monitoring.coreos.com": ("ServiceMonitor", "PodMonitor", "PrometheusRule"),
    "gateway.networking.k8s.io": ("HTTPRoute",),
}
"""Kinds that the charts use where a cluster has them."""
_UP_WITHIN_S = 180

Object = dict[str, Any]


@dataclass(frozen=True, eq=False)
class RealServer:
    """Its kubeconfig (an administrator's), and objects by hand."""

    kubeconfig: Path
    client: Any
    cluster: Object
    """As a kubeconfig has it."""

    def namespace(self, name: str, **labels: str) -> str:
        """Make a namespace; its name."""
        metadata = {"name": name, "labels": labels}
        self.request("POST", "/api/v1/namespaces", {"metadata": metadata})
        return name

    def create(self, found: Object, namespace: str, *, only_try: bool = False) -> Object:
        """Make an object as the API server takes it: an unknown field is an error."""
        query = [("fieldValidation", "Strict"), *([("dryRun", "All")] if only_try else [])]
        return self.request("POST", self.path(found, namespace), found, query)

    def get(self, kind: str, name: str, namespace: str) -> Object:
        """An object of a kind such as `apps/v1/Deployment`."""
        version, _, kind = kind.rpartition("/")
        found = {"apiVersion": version, "kind": kind}
        return self.request("GET", f"{self.path(found, namespace)}/{name}")

    def patch(self, found: Object, change: Object, *, part: str = "", manager: str = "") -> Object:
        """Merge a change into an object, or into a part of it such as its status."""
        metadata = found["metadata"]
        path = f"{self.path(found, metadata['namespace'])}/{metadata['name']}"
        path += f"/{part}" if part else ""
        query = [("fieldManager", manager)] if manager else []
        return self.request("PATCH", path, change, query)

    def inside(self, namespace: str) -> dict[str, Object]:
        """All objects in a namespace that a chart or a job could have made, by kind and name."""
        found = {}
        for version in ("v1", "apps/v1", "batch/v1", "policy/v1", *_GROUPS):
            for kind in self._kinds(version):
                if kind in ("Event", "Endpoints"):
                    continue
                path = self.path({"apiVersion": version, "kind": kind}, namespace)
                for each in self.request("GET", path).get("items") or []:
                    each |= {"apiVersion": version, "kind": kind}
                    found[f"{kind} {each['metadata']['name']}"] = each
        return found

    def path(self, found: Object, namespace: str) -> str:
        """Where objects of this kind are."""
        version = found["apiVersion"]
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        return f"{root}/namespaces/{namespace}/{self._kinds(version)[found['kind']]}"

    def account(self, name: str, namespace: str) -> Path:
        """A kubeconfig with a token of a service account, as its pods have one."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        made = self.request("POST", path, {"spec": {"expirationSeconds": 3600}})
        config = self.kubeconfig.with_name(f"{namespace}-{name}.kubeconfig")
        _write_kubeconfig(config, self.cluster, made["status"]["token"], namespace)
        return config

    def request(
        self, verb: str, path: str, body: Any = None, query: Any = (), **headers: str
    ) -> Object:
        """A request of the administrator's, or of whom `headers` name; the answer.

        Raises:
            ApiException: it is refused.
        """
        from kubernetes.client import ApiException

        given = {"Accept": "application/json", "Content-Type": "application/json"}
        if verb == "PATCH":
            given["Content-Type"] = "application/merge-patch+json"
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        asked = self.client.param_serialize(
            method=verb,
            resource_path=path,
            query_params=list(query),
            header_params=given,
            body=body,
            auth_settings=["BearerToken"],
        )
        answer = self.client.call_api(*asked, _request_timeout=30)
        text = answer.read().decode()
        if answer.status >= 300:
            raise ApiException.from_response(http_resp=answer, body=text, data=None)
        return dict(json.loads(text))

    @functools.cache  # noqa: B019 - there are few servers, and they last
    def _kinds(self, version: str) -> dict[str, str]:
        """Kinds in namespaces, and what they are called in paths."""
        from kubernetes.client import ApiException

        try:
            found = self.request("GET", f"/apis/{version}" if "/" in version else f"/api/{version}")
        except ApiException as error:
            if error.status != 404:
                raise
            return {}
        return {
            each["kind"]: each["name"]
            for each in found["resources"]
            if each["namespaced"] and "/" not in each["name"] and "list" in each["verbs"]
        }


_GROUPS = (
    "networking.k8s.io/v1",
    "rbac.authorization.k8s.io/v1",
    "ray.io/v1",
    *(f"{group}/v1" for group in STRANGERS),
)


def within(sent: object, made: object) -> bool:
    """Whether all that was sent is there; the server adds defaults."""
    if isinstance(sent, dict) and isinstance(made, dict):
        return all(key in made and within(value, made[key]) for key, value in sent.items())
    if isinstance(sent, list) and isinstance(made, list):
        return len(sent) == len(made) and all(map(within, sent, made))
    return sent == made


def assets() -> tuple[Path, Path]:
    """The folders of programs and CRDs; skips the test where they are not given."""
    folder, crds = os.environ.get("KUBEBUILDER_ASSETS"), os.environ.get("BAYLING_CRD_DIR")
    if not folder or not (Path(folder) / "kube-apiserver").exists():
        pytest.skip("KUBEBUILDER_ASSETS names no folder with etcd and kube-apiserver")
    if not crds:
        pytest.skip("BAYLING_CRD_DIR is not set")
    return Path(folder), Path(crds)


@contextmanager
def running(folder: Path, *, bare: bool = False) -> Iterator[RealServer]:
    """Start both programs, with their files in `folder`.

    Args:
        bare: install no CRDs.
    """
    programs, crds = assets()
    ports = {name: free_port() for name in ("etcd", "peers", "api")}
    etcd = f"http://127.0.0.1:{ports['etcd']}"
    peers = f"http://127.0.0.1:{ports['peers']}"
    (folder / "tokens.csv").write_text(f'{TOKEN},admin,1,"system:masters"\n', "utf-8")
    key = folder / "accounts.key"
    subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
    commands = [
        [
            str(programs / "etcd"),
            f"--data-dir={folder / 'etcd'}",
            f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}",
            f"--listen-peer-urls={peers}",
            "--unsafe-no-fsync",
        ],
        [
            str(programs / "kube-apiserver"),
            f"--etcd-servers={etcd}",
            f"--cert-dir={folder / 'certificates'}",
            "--bind-address=127.0.0.1",
            f"--secure-port={ports['api']}",
            f"--token-auth-file={folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--service-cluster-ip-range=10.0.0.0/24",
            # Its controller makes the default account of a namespace; there are no controllers.
            "--disable-admission-plugins=ServiceAccount",
            "--allow-privileged=true",
        ],
    ]
    processes = []
    try:
        for command in commands:
            log = (folder / f"{Path(command[0]).name}.log").open("w")
            processes.append(subprocess.Popen(command, stdout=log, stderr=log))
        address = f"https://127.0.0.1:{ports['api']}"
        certificate = folder / "certificates" / "apiserver.crt"
        _wait_for(address, certificate)
        path = folder / "kubeconfig"
        cluster = {"server": address, "certificate-authority": str(certificate)}
        _write_kubeconfig(path, cluster, TOKEN, "default")
        yield RealServer(path, _client(path, [] if bare else _definitions(crds)), cluster)
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(60)
        shutil.rmtree(folder / "etcd", ignore_errors=True)


def _write_kubeconfig(path: Path, cluster: Object, token: str, namespace: str) -> None:
    context = {"cluster": "real", "user": "somebody", "namespace": namespace}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "real", "cluster": cluster}],
        "users": [{"name": "somebody", "user": {"token": token}}],
        "contexts": [{"name": "real", "context": context}],
        "current-context": "real",
    }
    path.write_text(yaml.safe_dump(config), "utf-8")


def _definitions(crds: Path) -> list[Object]:
    """KubeRay's CRDs and what else is in the folder, and stand-ins for the rest."""
    found = [
        yaml.load(path.read_text("utf-8"), yaml.CSafeLoader) for path in sorted(crds.glob("*.yaml"))
    ]
    there = {(each["spec"]["group"], each["spec"]["names"]["kind"]) for each in found}
    for group, kinds in STRANGERS.items():
        found += [_stand_in(group, kind) for kind in kinds if (group, kind) not in there]
    return found


def _stand_in(group: str, kind: str) -> Object:
    plural = f"{kind.lower()}s"
    open_schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{group}",
            # Without it the API server takes nobody's CRD of a group of Kubernetes' own.
            "annotations": {"api-approved.kubernetes.io": "unapproved, a stand-in of a test"},
        },
        "spec": {
            "group": group,
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "scope": "Namespaced",
            "versions": [{**version, "schema": {"openAPIV3Schema": open_schema}}],
        },
    }


def _client(kubeconfig: Path, definitions: list[Object]) -> Any:
    """An administrator's client, after the CRDs are installed and served."""
    from kubernetes import client, config

    made: Any = config.new_client_from_config(str(kubeconfig))  # type: ignore[no-untyped-call]
    extensions = client.ApiextensionsV1Api(made)
    for body in definitions:
        extensions.create_custom_resource_definition(body)  # type: ignore[arg-type]
    until = time.monotonic() + _UP_WITHIN_S
    while True:
        there = extensions.list_custom_resource_definition().items
        ready = [
            any(c.type == "Established" and c.status == "True" for c in (d.status.conditions or []))
            for d in there
        ]
        if len(ready) == len(definitions) and all(ready):
            return made
        assert time.monotonic() < until, "the CRDs were not established"
        time.sleep(0.2)


def _wait_for(address: str, certificate: Path) -> None:
    request = urllib.request.Request(
        f"{address}/readyz", headers={"Authorization": f"Bearer {TOKEN}"}
    )
    until = time.monotonic() + _UP_WITHIN_S
    while time.monotonic() < until:
        try:
            # The server makes the certificate itself when it starts.
            trusting = ssl.create_default_context(cafile=str(certificate))
            with urllib.request.urlopen(request, timeout=2, context=trusting):
                return
        except OSError:
            time.sleep(0.3)
    raise TimeoutError("kube-apiserver did not come up")
