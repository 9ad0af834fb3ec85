"""Jobs that a quota or Pod Security refuses, in the words of a real API server.

The controller of quotas is not there: a test writes what it counts. Nor is KubeRay: a test makes a
job's pod as it would, and writes the server's refusal into an event, as it does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from charted import Object
from cluster_server import RealServer
from releases import Releases, releases

from bayling.cli import main

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]
SUBMIT = ["submit", "data", "recipe=quickstart", "--no-wait", "--id"]
HARD = {"count/rayjobs.ray.io": "1", "persistentvolumeclaims": "2", "requests.cpu": "4"}
"""MLflow has one claim, and jobs another."""


@pytest.fixture(scope="module")
def there(real_server: RealServer) -> Iterator[Releases]:
    with releases(real_server, "limits") as made:
        made.install("platform", "bayling", {"quota": {"enabled": True, "hard": HARD}})
        _counted(made, {"count/rayjobs.ray.io": "0", "persistentvolumeclaims": "2"})
        yield made


@pytest.fixture(autouse=True)
def submitter(there: Releases, monkeypatch: pytest.MonkeyPatch) -> None:
    token = there.server.account("bayling-submit", there.namespace)
    monkeypatch.setenv("KUBECONFIG", str(token))


def _counted(there: Releases, used: dict[str, str]) -> None:
    """What the controller of quotas writes."""
    quota = there.server.get("v1/ResourceQuota", "bayling", there.namespace)
    hard = quota["spec"]["hard"]
    used = {**dict.fromkeys(hard, "0"), **used}
    there.server.patch(quota, {"status": {"hard": hard, "used": used}}, part="status")


def _refused(there: Releases, name: str) -> str:
    """What the server says when a job's head is made; KubeRay puts it into an event."""
    from kubernetes.client import ApiException

    job = there.server.get("ray.io/v1/RayJob", name, there.namespace)
    template = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]
    metadata = {**template["metadata"], "name": f"{name}-x-workers-1"}
    pod: Object = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": template["spec"],
    }
    with pytest.raises(ApiException) as raised:
        there.server.create(pod, there.namespace)
    message = str(json.loads(raised.value.body)["message"])
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{name}-event"},
        "involvedObject": {"kind": "RayCluster", "name": f"{name}-x", "namespace": "limits"},
        "type": "Warning",
        "reason": "FailedToCreateWorkerPod",
        "message": f"Failed to create worker Pod for the cluster {name}-x, {message}",
        "lastTimestamp": "2026-01-01T00:00:00Z",
    }
    there.server.create(event, there.namespace)
    there.server.patch(job, {"status": {"jobDeploymentStatus": "Initializing"}}, part="status")
    return message


def test_a_claim_beyond_the_quota_is_explained(
    there: Releases, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SUBMIT, "first"]) == 2
    said = capsys.readouterr().err
    assert "the quota 'bayling' is exceeded" in said
    assert "persistentvolumeclaims=1, in use persistentvolumeclaims=2, of" in said
    _counted(there, {"count/rayjobs.ray.io": "0", "persistentvolumeclaims": "1"})
    assert main([*SUBMIT, "first"]) == 0


def test_a_job_beyond_the_quota_is_explained(
    there: Releases, capsys: pytest.CaptureFixture[str]
) -> None:
    _counted(there, {"count/rayjobs.ray.io": "1", "persistentvolumeclaims": "2"})
    assert main([*SUBMIT, "second"]) == 2
    said = capsys.readouterr().err
    assert "asked for count/rayjobs.ray.io=1, in use count/rayjobs.ray.io=1, of" in said
    assert "wait for other jobs to end, ask for less, or raise the quota" in said


def test_pods_beyond_the_quota_are_explained(
    there: Releases, capsys: pytest.CaptureFixture[str]
) -> None:
    used = {"count/rayjobs.ray.io": "0", "persistentvolumeclaims": "1", "requests.cpu": "4"}
    _counted(there, used)
    assert main([*SUBMIT, "third"]) == 0
    assert "exceeded quota" in _refused(there, "third")
    assert main(["job", "status", "third"]) == 0
    said = capsys.readouterr().out
    assert "the quota 'bayling' is exceeded: asked for requests.cpu=" in said
    assert "in use requests.cpu=4, of requests.cpu=4" in said


def test_a_capability_that_the_namespace_forbids_is_explained(
    there: Releases, capsys: pytest.CaptureFixture[str]
) -> None:
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    there.server.request("PATCH", "/api/v1/namespaces/limits", {"metadata": {"labels": label}})
    _counted(there, {"count/rayjobs.ray.io": "0", "persistentvolumeclaims": "1"})
    rdma = ["scale=gpu", "scale.kubernetes.network=rdma", "scale.kubernetes.memory_gib=8"]
    submit = ["submit", "train", "recipe=quickstart", "--no-wait", "--id", "fourth"]
    assert main([*submit, *rdma]) == 0
    assert 'violates PodSecurity "restricted' in _refused(there, "fourth")
    assert main(["job", "status", "fourth"]) == 0
    said = capsys.readouterr().out
    assert "the namespace's Pod Security refuses the pods (restricted" in said
    assert "IPC_LOCK" in said
