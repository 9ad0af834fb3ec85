"""RayJobs as a real API server takes them, with the rights of the chart's role."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from cluster_server import RealServer, within
from releases import releases

from bayling.cluster import kubernetes_jobs, rayjob
from bayling.cluster.kubernetes_api import Cluster, connect
from bayling.config import compose
from bayling.errors import UserError
from bayling.pods import KubernetesConfig

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def server(real_server: RealServer) -> Iterator[RealServer]:
    with releases(real_server, "ml") as made:
        made.install("platform", "bayling", {})
        yield real_server


def _as(server: RealServer, account: str) -> Cluster:
    return connect(kubeconfig=str(server.account(account, "ml")), granted_by="a Role")


def _manifest(cluster: Cluster, name: str) -> dict[str, Any]:
    config = compose(["recipe=quickstart"])
    there = kubernetes_jobs.installation(cluster, KubernetesConfig())
    there = kubernetes_jobs.storage(cluster, there, KubernetesConfig())
    return rayjob.manifest(rayjob.Job(name, "train", []), config.scale, there, "ml")


def test_a_job_is_made_once_and_nothing_of_it_is_dropped(server: RealServer) -> None:
    cluster = _as(server, "bayling-submit")
    wanted = _manifest(cluster, "a-job")
    made = kubernetes_jobs.create(cluster, wanted)
    assert within(wanted["spec"], made["spec"])
    again = kubernetes_jobs.create(cluster, wanted)
    assert again["metadata"]["uid"] == made["metadata"]["uid"]
    assert [one["metadata"]["name"] for one in kubernetes_jobs.every(cluster)] == ["a-job"]


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
