"""`bayling submit` and `bayling job` at a real API server, with the token of the role's account.

There is no operator: what KubeRay, Kueue and the collector of garbage would do, the test does. Nor
is there a kubelet, so nobody has logs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from charted import Object
from cluster_server import RealServer
from releases import Releases, releases

from bayling.cli import main
from bayling.cluster import following
from bayling.cluster.kubernetes_jobs import State

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]
JOB = "ray.io/v1/RayJob"
SUBMIT = ["submit", "data", "recipe=quickstart", "--id", "a-job"]


@pytest.fixture(scope="module")
def there(real_server: RealServer) -> Iterator[Releases]:
    with releases(real_server, "jobs") as made:
        made.install("platform", "bayling", {"team": "nlp", "kueue": {"enabled": True}})
        yield made


@pytest.fixture(autouse=True)
def submitter(there: Releases, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whoever runs the commands is the role's account; no job is left."""
    token = there.server.account("bayling-submit", there.namespace)
    monkeypatch.setenv("KUBECONFIG", str(token))
    monkeypatch.setattr(following, "_TICK_S", 1)
    yield
    for name, found in there.server.inside(there.namespace).items():
        if name.startswith(("RayJob ", "Pod ")):
            path = there.server.path(found, there.namespace)
            there.server.request("DELETE", f"{path}/{found['metadata']['name']}")


Written = Callable[..., None]
Meanwhile = Callable[..., None]


@pytest.fixture
def written(there: Releases) -> Written:
    """Writes a job's status as the operator does, once it is there."""

    def write(**status: object) -> None:
        job = there.server.get(JOB, "a-job", there.namespace)
        there.server.patch(job, {"status": status}, part="status")

    return write


def _pod(there: Releases, name: str, template: Object, **status: object) -> None:
    """A pod of the job's, as it ended."""
    metadata = {**template["metadata"], "name": name}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
    made = there.server.create(pod, there.namespace)
    there.server.patch(made, {"status": status}, part="status")


def _job(there: Releases) -> Object:
    return there.server.get(JOB, "a-job", there.namespace)


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Does one after the other, a moment between them, once a job is followed."""
    begun = threading.Event()
    changes = following.changes
    threads: list[threading.Thread] = []

    def observed(*given: Any) -> Iterator[State]:
        for state in changes(*given):
            begun.set()
            yield state

    def start(*steps: Callable[[], object]) -> None:
        def work() -> None:
            assert begun.wait(60)
            for step in steps:
                time.sleep(0.5)
                step()

        threads.append(threading.Thread(target=work))
        threads[0].start()

    monkeypatch.setattr(following, "changes", observed)
    yield start
    for thread in threads:
        thread.join()


def test_a_job_is_made_listed_found_again_and_followed_to_its_end(
    there: Releases, written: Written, meanwhile: Meanwhile, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SUBMIT, "--no-wait"]) == 0
    assert "a-job was made" in capsys.readouterr().err
    claim = there.server.get("v1/PersistentVolumeClaim", "bayling-jobs", there.namespace)
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert main(["job", "list"]) == 0
    row = capsys.readouterr().out.splitlines()[1].split()
    assert row[:4] == ["a-job", "data", "nlp", "starting"]
    ready = {"readyWorkerReplicas": 1}
    steps = [
        lambda: written(jobDeploymentStatus="Initializing", rayClusterName="a-job-x"),
        lambda: written(jobDeploymentStatus="Running", jobStatus="RUNNING", rayClusterStatus=ready),
        lambda: written(jobDeploymentStatus="Complete", jobStatus="SUCCEEDED"),
    ]
    meanwhile(*steps)
    assert main(SUBMIT) == 0
    said = capsys.readouterr().err
    assert "a-job is starting already" in said and "a-job succeeded" in said
    assert main(SUBMIT) == 0
    assert "succeeded already: nothing to do" in capsys.readouterr().err


def test_a_second_attempt_is_told_and_the_last_one_counted(
    there: Releases, written: Written, meanwhile: Meanwhile, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "Job entrypoint command failed with exit code 1, last available logs"
    steps = [
        lambda: written(jobDeploymentStatus="Running", jobStatus="RUNNING", jobId="a-job-1"),
        lambda: written(jobDeploymentStatus="Retrying", jobStatus="FAILED", failed=1),
        lambda: written(jobDeploymentStatus="Running", jobStatus="RUNNING", jobId="a-job-2"),
        lambda: written(
            jobDeploymentStatus="Failed",
            jobStatus="FAILED",
            failed=3,
            reason="AppFailed",
            message=code,
        ),
    ]
    assert main([*SUBMIT, "--no-wait"]) == 0
    assert _job(there)["spec"]["backoffLimit"] == 2
    meanwhile(*steps)
    assert main(SUBMIT) == 1
    said = capsys.readouterr().err
    assert "attempt 2: a new Ray cluster; stages go on where they were" in said
    assert "exit code 1" in said and "(the last of 3 attempts)" in said


@pytest.mark.parametrize(
    ("status", "sentence", "exit_code"),
    [
        (
            {"reason": "DeadlineExceeded", "message": "the RayJob has passed its deadline"},
            "longer than scale.kubernetes.deadline_s",
            1,
        ),
        (
            {"jobDeploymentStatus": "ValidationFailed", "message": "the name is too long"},
            "KubeRay refuses the job: the name is too long",
            1,
        ),
        (
            {"reason": "AppFailed", "message": "Ray head pod not found."},
            "Ray's head was lost with its node",
            1,
        ),
        (
            {"reason": "SubmissionFailed", "message": "no answer within 300 s"},
            "could not be handed to Ray: no answer",
            1,
        ),
        (
            {"reason": "AppFailed", "message": "entrypoint command failed with exit code 3"},
            "exit code 3",
            3,
        ),
    ],
)
def test_why_a_job_failed_is_a_sentence(
    written: Written,
    capsys: pytest.CaptureFixture[str],
    status: dict[str, object],
    sentence: str,
    exit_code: int,
) -> None:
    deadline = "scale.kubernetes.deadline_s=60"
    assert main([*SUBMIT, deadline, "--no-wait"]) == 0
    written(**{"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", **status})
    assert main(["job", "logs", "a-job", "--follow"]) == exit_code
    assert sentence in capsys.readouterr().err
    assert main(["job", "status", "a-job"]) == 0
    assert sentence in capsys.readouterr().out


def test_a_pod_that_took_too_much_memory_is_named(
    there: Releases, written: Written, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SUBMIT, "--no-wait"]) == 0
    (workers,) = _job(there)["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    killed = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
    container = {"name": "ray-worker", "image": "i", "imageID": "", "ready": False}
    container |= {"restartCount": 0, "state": killed}
    _pod(there, "a-job-w", workers["template"], phase="Failed", containerStatuses=[container])
    written(jobDeploymentStatus="Failed", jobStatus="FAILED", reason="AppFailed")
    assert main(["job", "status", "a-job"]) == 0
    assert "scale.kubernetes.memory_gib" in capsys.readouterr().out


def test_a_submitter_that_never_ran_does_not_end_the_following(
    there: Releases, written: Written, meanwhile: Meanwhile, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SUBMIT, "--no-wait"]) == 0
    template = _job(there)["spec"]["submitterPodTemplate"]
    _pod(there, "a-job-s", template, phase="Failed", reason="Evicted")
    meanwhile(
        lambda: written(jobDeploymentStatus="Running", jobStatus="RUNNING"),
        lambda: written(jobDeploymentStatus="Complete", jobStatus="SUCCEEDED"),
    )
    assert main(["job", "logs", "a-job", "--follow"]) == 0
    assert "the log cannot be shown" not in capsys.readouterr().err


def test_a_job_that_is_taken_away_while_it_is_followed_is_told(
    there: Releases, meanwhile: Meanwhile, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SUBMIT, "--no-wait"]) == 0
    path = f"{there.server.path(_job(there), there.namespace)}/a-job"
    meanwhile(lambda: there.server.request("DELETE", path))
    assert main(SUBMIT) == 1
    assert "a-job was taken away" in capsys.readouterr().err


def test_a_failed_job_begins_again_under_its_name(
    there: Releases, written: Written, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SUBMIT, "--no-wait"]) == 0
    before = _job(there)["metadata"]["uid"]
    written(jobDeploymentStatus="Failed", jobStatus="FAILED", reason="AppFailed")
    collector = _collector(there)
    assert main([*SUBMIT, "--no-wait"]) == 0
    collector.join()
    assert "a-job failed before: it begins again" in capsys.readouterr().err
    assert _job(there)["metadata"]["uid"] != before
    assert main([*SUBMIT, "scale.kubernetes.backoff_limit=0", "--no-wait"]) == 2
    assert "with another image, scale or environment" in capsys.readouterr().err
    collector = _collector(there)
    assert main(["job", "stop", "a-job"]) == 0
    collector.join()
    assert main(["job", "stop", "a-job"]) == 2
    assert "there is no job 'a-job'" in capsys.readouterr().err


def _collector(there: Releases) -> threading.Thread:
    """Takes its finalizer away from a job that is to go, as when all that belongs to it is gone."""

    def work() -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            time.sleep(0.2)
            if (job := _job(there))["metadata"].get("finalizers") == ["foregroundDeletion"]:
                there.server.patch(job, {"metadata": {"finalizers": None}})
                return

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_a_job_in_kueues_queue_is_shown_as_queued(
    there: Releases, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SUBMIT, "--no-wait"]) == 0
    job = _job(there)
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "nlp"
    there.server.patch(job, {"spec": {"suspend": True}}, manager="kueue")
    capsys.readouterr()
    assert main(["job", "status", "a-job"]) == 0
    said = capsys.readouterr().out
    assert "a-job queued" in said and "it waits in Kueue's queue 'nlp'" in said
    # What Kueue changes is no change of the job's.
    assert main([*SUBMIT, "--no-wait"]) == 0
    assert "a-job is queued already" in capsys.readouterr().err
    there.server.patch(_job(there), {"spec": {"suspend": False}}, manager="kueue")
    assert main(["job", "list"]) == 0
    assert "starting" in capsys.readouterr().out
