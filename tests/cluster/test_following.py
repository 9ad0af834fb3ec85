"""Logs and states of a job over connections that break."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from api_server import ApiServer, Log, forbidden, kubeconfig, pod, serving, status

from bayling.cluster import following, rayjob
from bayling.cluster.kubernetes_api import Cluster, Unreachable, connect
from bayling.cluster.kubernetes_jobs import State
from bayling.cluster.pod_logs import Tail
from bayling.cluster.screen import Screen
from bayling.errors import StageFailed

LINES = [
    ("2026-01-01T10:00:00.100000000Z", "one"),
    ("2026-01-01T10:00:00.100000000Z", "one"),  # the same, and at the same moment
    ("2026-01-01T10:00:00.5Z", "two"),
    ("2026-01-01T10:00:00.500000001Z", "three"),
    ("2026-01-01T10:00:01Z", ""),
    ("2026-01-01T10:00:07.25Z", "日本 " + "x" * 70_000),
    ("2026-01-01T10:00:09Z", "last"),
]
TEXTS = [text for _, text in LINES]


class Recorded(Screen):
    """A screen that is read by a test."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.notes: list[str] = []
        self.states: list[str] = []

    def log(self, line: str) -> None:
        self.lines.append(line)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def status(self, state: str, more: str) -> None:
        if self.states[-1:] != [state]:
            self.states.append(state)


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with serving() as server:
        yield server


@pytest.fixture
def cluster(api: ApiServer, tmp_path: Path) -> Cluster:
    return connect(kubeconfig=str(kubeconfig(api, tmp_path)))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_TICK_S", 1)
    monkeypatch.setattr(following, "_PAUSE_S", 0.02)
    monkeypatch.setattr(following, "_LASTS_S", 0)


def _read(tail: Tail, follow: bool = True) -> list[str]:
    found: list[str] = []
    for _ in range(20):
        try:
            found += tail.lines(follow=follow)
        except Unreachable:
            continue
        return found
    raise AssertionError("never whole")


@pytest.mark.unit
@pytest.mark.parametrize(
    "breaks", [[], [0], [40], [20, 95, 100], [70_300, 1, 70_220], [36, 36, 36, 36]]
)
def test_a_log_is_read_once_wherever_its_connections_break(
    api: ApiServer, cluster: Cluster, breaks: list[int]
) -> None:
    log = api.logs["p"] = Log(LINES, list(breaks))
    assert _read(Tail(cluster, "p", "c")) == TEXTS
    assert len(log.asked) == len(breaks) + 1
    assert {query["container"] for query in log.asked} == {"c"}


@pytest.mark.unit
def test_what_comes_after_is_read_from_the_last_second_on(api: ApiServer, cluster: Cluster) -> None:
    log = api.logs["p"] = Log(LINES[:3])
    tail = Tail(cluster, "p", "c")
    assert _read(tail) == TEXTS[:3]
    log.lines = LINES
    assert _read(tail) == TEXTS[3:]
    assert _read(tail, follow=False) == []
    assert log.asked[1]["sinceTime"] == "2026-01-01T10:00:00Z"


def _job(api: ApiServer, name: str = "a-job", age_s: float = 0) -> None:
    made = datetime.now(UTC) - timedelta(seconds=age_s)
    api.rayjobs[name] = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": name, "creationTimestamp": made.isoformat(), "labels": {}},
        "spec": {"rayClusterSpec": {"workerGroupSpecs": [{"replicas": 2}]}},
    }
    api.change(name)


def _submitter(name: str, submission: str, phase: str = "Succeeded") -> dict[str, object]:
    env = {"RAY_JOB_SUBMISSION_ID": submission}
    return pod(name, "a-job", rayjob.SUBMITTER, phase, env)


def test_a_job_is_followed_over_expired_and_broken_watches(
    api: ApiServer, cluster: Cluster, quick: None
) -> None:
    _job(api)
    api.watches = ["cut", "gone", "gone-status"]
    api.refuse = [("GET", r"rayjobs/a-job$", 500, status(500, "etcd"), 2)]
    screen = Recorded()

    def kuberay() -> None:
        while api.times("GET", "watch=true") < 4:
            time.sleep(0.02)
        api.change("a-job", jobDeploymentStatus="Initializing")
        ready = {"readyWorkerReplicas": 2}
        api.change("a-job", jobDeploymentStatus="Running", rayClusterStatus=ready)
        api.logs["s"] = Log(LINES[:4], [50])
        api.pods = [_submitter("s", "ray-1", "Running")]
        api.change("a-job", jobStatus="RUNNING")
        while len(screen.lines) < 4:
            time.sleep(0.02)
        api.logs["s"].lines = LINES
        api.pods = [_submitter("s", "ray-1")]
        api.change("a-job", jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")

    thread = threading.Thread(target=kuberay)
    thread.start()
    state = following.follow(cluster, "a-job", screen)
    thread.join()
    assert state.succeeded
    assert screen.lines == TEXTS, "each line once, and none is missing"
    assert screen.states[0].startswith("a-job starting")
    assert "a-job running · 2/2 pods of workers" in screen.states
    assert screen.states[-1].startswith("a-job succeeded")
    assert "trying again" in screen.notes[0] and "answers again" in screen.notes[1]


@pytest.mark.unit
def test_a_pod_that_never_ran_does_not_hide_the_next_ones_log(
    api: ApiServer, cluster: Cluster, quick: None
) -> None:
    _job(api)
    api.logs = {"s2": Log(LINES)}
    api.pods = [_submitter("s1", "ray-1", "Failed"), _submitter("s2", "ray-2")]
    api.pods[1]["metadata"]["creationTimestamp"] = "2026-01-01T01:00:00Z"
    api.change("a-job", jobDeploymentStatus="Complete", jobStatus="SUCCEEDED", failed=1)
    screen = Recorded()
    following.follow(cluster, "a-job", screen)
    assert screen.lines == TEXTS
    assert not [note for note in screen.notes if "cannot be shown" in note]


@pytest.mark.unit
def test_a_pod_that_submits_again_does_not_say_everything_twice(
    api: ApiServer, cluster: Cluster, quick: None
) -> None:
    _job(api)
    later = [("2026-01-01T11:00:00Z", text) for text in [*TEXTS[:4], "fourth"]]
    api.logs = {"s1": Log(LINES[:4]), "s2": Log(later), "s3": Log([LINES[0]])}
    api.pods = [_submitter("s1", "ray-1", "Failed"), _submitter("s2", "ray-1")]
    api.pods[1]["metadata"]["creationTimestamp"] = "2026-01-01T01:00:00Z"
    # Another attempt is another job of Ray's: all that it says is new.
    api.pods.append(_submitter("s3", "ray-2"))
    api.pods[2]["metadata"]["creationTimestamp"] = "2026-01-01T02:00:00Z"
    api.change("a-job", jobDeploymentStatus="Failed", jobStatus="FAILED", failed=2)
    screen = Recorded()
    state = following.follow(cluster, "a-job", screen)
    assert screen.lines == [*TEXTS[:4], "fourth", "one"]
    assert state.attempts == 2 and any("attempt 2" in note for note in screen.notes)


@pytest.mark.unit
def test_what_keeps_it_from_starting_is_said_once(
    api: ApiServer, cluster: Cluster, quick: None
) -> None:
    _job(api)
    message = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    waiting = pod("a-job-w", "a-job", "ray-worker", "Pending")
    waiting["status"]["conditions"] = [
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
        }
    ]
    api.pods = [waiting]
    screen = Recorded()

    def kuberay() -> None:
        for _ in range(3):
            seen = api.times("GET", "/pods")
            api.change("a-job", jobDeploymentStatus="Initializing")
            while api.times("GET", "/pods") < seen + 2:
                time.sleep(0.02)
        api.change("a-job", jobDeploymentStatus="Failed", reason="DeadlineExceeded")

    threading.Thread(target=kuberay).start()
    state = following.follow(cluster, "a-job", screen)
    (note,) = screen.notes
    assert "nvidia.com/gpu free, or at all" in note
    assert "deadline_s" in following.explain(cluster, state)[0]


@pytest.mark.unit
def test_a_job_that_somebody_takes_away_ends_the_following(
    api: ApiServer, cluster: Cluster, quick: None
) -> None:
    _job(api)
    threading.Timer(0.3, api.remove, ["a-job"]).start()
    with pytest.raises(StageFailed, match="taken away"):
        following.follow(cluster, "a-job", Recorded())


@pytest.mark.unit
def test_a_job_that_nobody_looks_at_is_told(api: ApiServer, cluster: Cluster) -> None:
    for age, told in ((5, False), (300, True)):
        _job(api, age_s=age)
        why = following.waits_for(cluster, State.of(api.rayjobs["a-job"]))
        assert ("KubeRay's operator has not looked" in (why or "")) is told


@pytest.mark.unit
def test_a_job_in_a_queue_is_told(api: ApiServer, cluster: Cluster) -> None:
    _job(api)
    job = api.rayjobs["a-job"]
    job["spec"]["suspend"] = True
    job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "nightly"
    state = State.of(job)
    assert state.word == "queued"
    assert following.waits_for(cluster, state) == "it waits in Kueue's queue 'nightly'"


@pytest.mark.unit
def test_who_may_not_see_pods_still_follows_the_state(
    api: ApiServer, cluster: Cluster, quick: None
) -> None:
    _job(api)
    api.refuse = [("GET", "/pods|/events", 403, forbidden("list", "pods"), 99)]
    screen = Recorded()
    end = {"jobDeploymentStatus": "Failed", "reason": "AppFailed", "message": "exit code 1"}
    threading.Timer(0.5, lambda: api.change("a-job", **end)).start()
    state = following.follow(cluster, "a-job", screen)
    (note,) = screen.notes
    assert "the log cannot be shown: jane may not list pods" in note
    assert following.explain(cluster, state) == ("the job failed: exit code 1", None)


@pytest.mark.unit
def test_a_job_that_stopped_itself_says_why_and_with_what_code(
    api: ApiServer, cluster: Cluster, quick: None
) -> None:
    _job(api)
    said = [
        "bayling: there is no file /nowhere",
        "bayling: exit code 2: another attempt would end ",
    ]
    said[-1] += "the same way, so this is the last"
    api.logs = {"s": Log([("2026-01-01T10:00:00Z", line) for line in said])}
    api.pods = [_submitter("s", "ray-1")]
    api.change("a-job", jobDeploymentStatus="Complete", jobStatus="STOPPED")
    state = following.follow(cluster, "a-job", Recorded())
    why = "the stage ended with exit code 2: there is no file /nowhere"
    assert following.explain(cluster, state) == (why, 2)
    api.logs = {"s": Log([("2026-01-01T10:00:00Z", "step 12")])}
    assert following.explain(cluster, state) == ("the job was stopped", None)
