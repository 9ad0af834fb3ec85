"""A real kube-apiserver with its etcd, KubeRay's CRDs installed, and no controllers.

It needs KUBEBUILDER_ASSETS (a folder with both programs) and BAYLING_CRD_DIR. What controllers
would do – KubeRay, the scheduler, the garbage collector – a test does itself.
"""

from __future__ import annotations

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
_UP_WITHIN_S = 90


@dataclass(frozen=True)
class RealServer:
    """Its kubeconfig (an administrator's), and objects by hand."""

    kubeconfig: Path
    client: Any

    def apply(self, found: dict[str, Any], namespace: str) -> None:
        """Make an object of a kind that Kubernetes knows by itself."""
        from kubernetes import utils

        found["metadata"]["namespace"] = namespace
        utils.create_from_dict(self.client, found)


def assets() -> tuple[Path, Path]:
    """The folders of programs and CRDs; skips the test where they are not given."""
    folder, crds = os.environ.get("KUBEBUILDER_ASSETS"), os.environ.get("BAYLING_CRD_DIR")
    if not folder or not (Path(folder) / "kube-apiserver").exists():
        pytest.skip("KUBEBUILDER_ASSETS names no folder with etcd and kube-apiserver")
    if not crds:
        pytest.skip("BAYLING_CRD_DIR is not set")
    return Path(folder), Path(crds)


@contextmanager
def running(folder: Path) -> Iterator[RealServer]:
    """Start both programs, with their files in `folder`."""
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
        _wait_for(address)
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "real",
                    "cluster": {"server": address, "insecure-skip-tls-verify": True},
                }
            ],
            "users": [{"name": "admin", "user": {"token": TOKEN}}],
            "contexts": [{"name": "real", "context": {"cluster": "real", "user": "admin"}}],
            "current-context": "real",
        }
        path = folder / "kubeconfig"
        path.write_text(yaml.safe_dump(config), "utf-8")
        yield RealServer(path, _client(path, crds))
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(60)
        shutil.rmtree(folder / "etcd", ignore_errors=True)


def _client(kubeconfig: Path, crds: Path) -> Any:
    """An administrator's client, after the CRDs are installed and served."""
    from kubernetes import client, config

    made: Any = config.new_client_from_config(str(kubeconfig))  # type: ignore[no-untyped-call]
    extensions = client.ApiextensionsV1Api(made)
    for path in sorted(crds.glob("*.yaml")):
        body = yaml.safe_load(path.read_text("utf-8"))
        extensions.create_custom_resource_definition(body)
    until = time.monotonic() + _UP_WITHIN_S
    while True:
        there = extensions.list_custom_resource_definition().items
        ready = [
            any(c.type == "Established" and c.status == "True" for c in (d.status.conditions or []))
            for d in there
        ]
        if ready and all(ready):
            return made
        assert time.monotonic() < until, "the CRDs were not established"
        time.sleep(0.2)


def _wait_for(address: str) -> None:
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    request = urllib.request.Request(
        f"{address}/readyz", headers={"Authorization": f"Bearer {TOKEN}"}
    )
    until = time.monotonic() + _UP_WITHIN_S
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(request, timeout=2, context=trusting):
                return
        except OSError:
            time.sleep(0.3)
    raise TimeoutError("kube-apiserver did not come up")
