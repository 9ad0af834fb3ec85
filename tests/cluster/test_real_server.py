"""The life of a RayJob at a real API server, with the rights of the chart's role.

There are no controllers: what KubeRay and the garbage collector would do, the test does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from charted import objects
from cluster_server import RealServer, assets, running

from bayling.cluster import following, kubernetes_jobs, rayjob
from bayling.cluster.kubernetes_api import Cluster, connect
from bayling.cluster.rayjob import GROUP, PLURAL, VERSION
from bayling.cluster.screen import Screen
from bayling.config import compose
from bayling.errors import UserError
from bayling.pods import KubernetesConfig

pytestmark = pytest.mark.cluster
ROLES = ("ServiceAccount", "Role", "RoleBinding", "ConfigMap")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    assets()
    with running(tmp_path_factory.mktemp("server")) as real:
        from kubernetes.client import CoreV1Api

        CoreV1Api(real.client).create_namespace({"metadata": {"name": "ml"}})  # type: ignore[arg-type]
        for found in objects("platform", {}, release="bayling"):
            if found["kind"] in ROLES and "hook" not in str(found["metadata"].get("annotations")):
                real.apply(found, "ml")
        yield real


def _as(server: RealServer, account: str) -> Cluster:
    cluster = connect(kubeconfig=str(server.kubeconfig), namespace="ml", granted_by="a Role")
    client: Any = cluster.client
    client.set_default_header("Impersonate-User", f"system:serviceaccount:ml:{account}")
    return cluster


def _status(server: RealServer, name: str, **status: Any) -> None:
    """Write a status, as the operator does."""
    from kubernetes.client import CustomObjectsApi

    CustomObjectsApi(server.client).patch_namespaced_custom_object_status(
        GROUP, VERSION, "ml", PLURAL, name, {"status": status}
    )


def _manifest(cluster: Cluster, name: str) -> dict[str, Any]:
    config = compose(["recipe=quickstart"])
    there = kubernetes_jobs.installation(cluster, KubernetesConfig())
    there = kubernetes_jobs.storage(cluster, there, KubernetesConfig())
    return rayjob.manifest(rayjob.Job(name, "train", []), config.scale, there, "ml")


def test_a_job_lives_with_the_rights_of_the_role(server: RealServer) -> None:
    cluster = _as(server, "bayling-submit")
    wanted = _manifest(cluster, "a-job")
    made = kubernetes_jobs.create(cluster, wanted)
    assert made["spec"]["entrypoint"] == wanted["spec"]["entrypoint"]
    assert made["spec"]["rayClusterSpec"] == wanted["spec"]["rayClusterSpec"], "nothing was dropped"
    again = kubernetes_jobs.create(cluster, wanted)
    assert again["metadata"]["uid"] == made["metadata"]["uid"]
    assert [one["metadata"]["name"] for one in kubernetes_jobs.every(cluster)] == ["a-job"]

    def operator() -> None:
        time.sleep(1)
        _status(server, "a-job", jobDeploymentStatus="Running", jobStatus="RUNNING")
        time.sleep(1)
        _status(server, "a-job", jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")

    thread = threading.Thread(target=operator)
    thread.start()
    assert following.follow(cluster, "a-job", Screen()).succeeded
    thread.join()

    def collector() -> None:
        """Foreground deletion waits for a controller that is not here."""
        from kubernetes.client import CustomObjectsApi

        time.sleep(1)
        CustomObjectsApi(server.client).patch_namespaced_custom_object(
            GROUP, VERSION, "ml", PLURAL, "a-job", {"metadata": {"finalizers": None}}
        )

    threading.Thread(target=collector).start()
    kubernetes_jobs.delete(cluster, "a-job")
    assert kubernetes_jobs.get(cluster, "a-job") is None


def test_what_nobody_granted_is_named(server: RealServer) -> None:
    nobody = _as(server, "bayling-jobs")
    with pytest.raises(UserError, match=r"bayling-jobs may not list rayjobs\.ray\.io"):
        kubernetes_jobs.every(nobody)


def test_a_field_that_kuberay_does_not_know_is_refused(server: RealServer) -> None:
    cluster = _as(server, "bayling-submit")
    wanted = _manifest(cluster, "wrong")
    wanted["spec"]["backofLimit"] = 1
    with pytest.raises(UserError, match="backofLimit"):
        kubernetes_jobs.create(cluster, wanted)
