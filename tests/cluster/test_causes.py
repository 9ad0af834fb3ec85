"""Why jobs do not start or end, from what the API server says of pods and events."""

from __future__ import annotations

from typing import Any

import pytest

from bayling.cluster.causes import failure, last_words, trouble
from bayling.cluster.kubernetes_jobs import State

pytestmark = pytest.mark.unit

CONTAINERS = [
    {
        "name": "ray-worker",
        "image": "r.example.com/bayling:1",
        "resources": {
            "requests": {"cpu": "32", "nvidia.com/gpu": 8},
            "limits": {"memory": "6Gi"},
        },
    }
]


def _pod(**status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "a-job-x-workers-1"},
        "spec": {"containers": CONTAINERS},
        "status": status,
    }


def _container(**state: Any) -> list[dict[str, Any]]:
    return [{"name": "ray-worker", "image": "r.example.com/bayling:1", **state}]


def _unscheduled(message: str) -> dict[str, Any]:
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": message,
    }
    return _pod(phase="Pending", conditions=[condition])


@pytest.mark.parametrize(
    ("pod", "sentence"),
    [
        (
            _pod(
                containerStatuses=_container(
                    state={"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}
                )
            ),
            "the image r.example.com/bayling:1 cannot be pulled (ImagePullBackOff: not found)",
        ),
        (
            _pod(
                containerStatuses=_container(
                    state={}, lastState={"terminated": {"reason": "OOMKilled", "exitCode": 137}}
                )
            ),
            "took more than its 6Gi of memory: raise scale.kubernetes.memory_gib",
        ),
        (
            _pod(
                containerStatuses=_container(
                    state={
                        "waiting": {
                            "reason": "CreateContainerConfigError",
                            "message": 'secret "hub" not found',
                        }
                    }
                )
            ),
            'cannot be made: secret "hub" not found',
        ),
        (
            _unscheduled("0/3 nodes are available: 3 Insufficient nvidia.com/gpu."),
            "none has 8 nvidia.com/gpu free, or at all",
        ),
        (
            _unscheduled("0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory."),
            "none has 32 of cpu free (lower scale.cpus_per_worker or scale.kubernetes.reserved",
        ),
        (
            _unscheduled(
                "0/2 nodes are available: 2 node(s) had untolerated taint {gpu: present}."
            ),
            "tainted with gpu (scale.kubernetes.tolerations)",
        ),
        (
            _unscheduled("0/2 nodes are available: 2 node(s) didn't match pod affinity rules."),
            "can be mounted on one node only",
        ),
        (
            _unscheduled(
                "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."
            ),
            "is there a default StorageClass",
        ),
        (
            _pod(phase="Failed", reason="Evicted", message="The node was low on memory."),
            "was evicted: The node was low on memory.",
        ),
    ],
)
def test_a_pod_that_does_not_run_is_explained(pod: dict[str, Any], sentence: str) -> None:
    assert sentence in (trouble([pod], []) or "")


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (
            'Failed to create head Pod ml/a-job-x-head, pods "a-job-x-head" is forbidden: exceeded '
            "quota: bayling, requested: requests.cpu=2, used: requests.cpu=63, limited: "
            "requests.cpu=64",
            "the quota 'bayling' is exceeded: asked for requests.cpu=2, in use requests.cpu=63, "
            "of requests.cpu=64",
        ),
        (
            'pods "x" is forbidden: violates PodSecurity "restricted:latest": unrestricted '
            "capabilities (container must not include IPC_LOCK)",
            "Pod Security refuses the pods (restricted:latest: unrestricted capabilities",
        ),
    ],
)
def test_what_only_events_say_is_explained(message: str, sentence: str) -> None:
    event = {"message": message, "reason": "FailedToCreateHeadPod", "lastTimestamp": "2026"}
    assert sentence in (trouble([], [event]) or "")


def test_pods_that_run_are_no_trouble() -> None:
    assert trouble([_pod(phase="Running", containerStatuses=_container(state={}))], []) is None


def _over(deployment: str = "Failed", **status: Any) -> State:
    return State.of(
        {
            "metadata": {"name": "a-job", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "status": {"jobDeploymentStatus": deployment, "jobStatus": "FAILED", **status},
        }
    )


def test_an_error_of_the_stage_is_its_own_last_sentence() -> None:
    log = [
        "12:00:01 train begins",
        "Traceback (most recent call last):",
        "bayling: scale.workers=2 needs 2 CPUs and the Ray cluster has 1: lower scale.workers",
        "",
        "----------------",
        "\x1b[31mJob 'a-job-abc' failed\x1b[39m",
        "----------------",
        "Status message: Job entrypoint command failed with exit code 2, last available logs",
    ]
    message = "Job entrypoint command failed with exit code 2, last available logs (truncated"
    told = failure(_over(reason="AppFailed", message=message, failed=3), [], [], log)
    assert told == (
        "the stage ended with exit code 2: scale.workers=2 needs 2 CPUs and the Ray cluster has "
        "1: lower scale.workers (the last of 3 attempts)"
    )


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        (_over(reason="DeadlineExceeded"), "longer than scale.kubernetes.deadline_s"),
        (_over("ValidationFailed", message="name too long"), "KubeRay refuses the job: name too"),
        (_over(reason="AppFailed", message="Ray head pod not found."), "lost with its node"),
        (_over("Complete", jobStatus="STOPPED"), "was stopped"),
    ],
)
def test_other_ends_are_told(state: State, sentence: str) -> None:
    assert sentence in failure(state, [], [], [])


def test_memory_goes_before_what_the_log_ends_with() -> None:
    killed = _pod(
        containerStatuses=_container(state={"terminated": {"reason": "OOMKilled"}}, lastState={})
    )
    assert "6Gi" in failure(_over(reason="AppFailed"), [killed], [], ["a worker died"])


def test_last_words_of_nothing_are_nothing() -> None:
    assert last_words([]) == last_words(["", "----"]) == ""


def test_a_volume_is_no_matter_of_admission_and_none_once_its_pod_runs() -> None:
    pod = _pod(phase="Pending")
    event = {
        "reason": "FailedMount",
        "message": 'persistentvolumeclaims "bayling-jobs" is forbidden: no relationship found',
        "involvedObject": {"kind": "Pod", "name": pod["metadata"]["name"]},
    }
    told = trouble([pod], [event])
    assert told is not None and told.startswith("a volume cannot be mounted: ")
    assert trouble([_pod(phase="Running")], [event]) is None
