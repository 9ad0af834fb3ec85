"""A RayJob followed to its end: its log as it grows, its state, and why it does not go on."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from bayling.cluster import causes, kubernetes_jobs, rayjob
from bayling.cluster.kubernetes_api import REQUEST_S, Cluster, Unreachable, explained, patiently
from bayling.cluster.kubernetes_jobs import State
from bayling.cluster.pod_logs import NoLog, Tail
from bayling.cluster.rayjob import GROUP, PLURAL, VERSION, Object
from bayling.cluster.screen import Screen
from bayling.cluster.submitter_log import OwnLines
from bayling.errors import StageFailed, UserError

AWAY_S = 1800.0
"""How long the API server may be away before a follower gives up; the job goes on without."""
_TICK_S = 5
"""How often pods are looked at while a job does not run yet, and the clock is drawn."""
_OPERATOR_S = 60
_LASTS_S = 10.0
"""What keeps a job from running is said after so long: between two attempts, say, the new pods find
no room until the old ones are gone."""
_PAUSE_S = 1.0
_KEPT = 200
"""Lines of the log that explanations look into."""


def follow(cluster: Cluster, name: str, screen: Screen) -> State:
    """Show a job until it is over; its last state.

    Raises:
        StageFailed: it was taken away meanwhile.
        Unreachable: the API server was away for too long.
    """
    pump = _Pump(cluster, name, screen)
    pump.start()
    said: set[str] = set()
    since, before = 0.0, ""
    attempt = 1
    try:
        for state in changes(cluster, name, screen):
            if state.attempts > attempt:
                attempt = state.attempts
                screen.note(f"attempt {attempt}: a new Ray cluster; stages go on where they were")
            screen.status(_described(state), f"{_since(state.started)}")
            if state.over:
                break
            if state.job != "RUNNING":
                sentence = waits_for(cluster, state) or ""
                if sentence != before:
                    since, before = time.monotonic(), sentence
                if sentence not in {"", *said} and time.monotonic() - since >= _LASTS_S:
                    said.add(sentence)
                    screen.note(sentence)
        pump.finish()
    finally:
        # Not waited for where a person interrupts: its connection may be quiet for long.
        pump.abandon()
        screen.close()
    return state


def changes(cluster: Cluster, name: str, screen: Screen) -> Iterator[State]:
    """The states of a job as they come, and every few seconds the last one again.

    Raises:
        StageFailed: the job was taken away.
        Unreachable: the API server was away for `AWAY_S`.
    """
    while True:
        found = patiently(lambda: kubernetes_jobs.get(cluster, name), AWAY_S, screen.note)
        if found is None:
            raise StageFailed(
                f"the job {name} was taken away; what it wrote is still there, and the same "
                "command goes on from it"
            )
        yield State.of(found)
        try:
            yield from _watched(cluster, name, found)
        except (Unreachable, _Expired):
            time.sleep(_PAUSE_S)  # what was missed is asked for anew


class _Expired(Exception):
    """The server does not remember that far back (410): ask for the state as it is."""


def _watched(cluster: Cluster, name: str, found: Object) -> Iterator[State]:
    """States from one that is known on, until the job is taken away."""
    from kubernetes import watch
    from kubernetes.client import ApiException

    watcher: Any = watch.Watch  # has no annotations
    while True:
        try:
            with explained(cluster):
                for event in watcher().stream(
                    cluster.custom.list_namespaced_custom_object,
                    GROUP,
                    VERSION,
                    cluster.namespace,
                    PLURAL,
                    field_selector=f"metadata.name={name}",
                    resource_version=found["metadata"]["resourceVersion"],
                    timeout_seconds=_TICK_S,
                    _request_timeout=(REQUEST_S, _TICK_S + REQUEST_S),
                ):
                    if event["type"] == "DELETED":
                        return
                    found = event["raw_object"]
                    yield State.of(found)
        except ApiException as error:
            if error.status != 410:
                raise
            raise _Expired from None
        yield State.of(found)


def pods_of(cluster: Cluster, name: str) -> list[Object]:
    """A job's pods as they are on the wire."""
    with explained(cluster):
        found = cluster.core.list_namespaced_pod(
            cluster.namespace, label_selector=f"{rayjob.JOB}={name}", _request_timeout=REQUEST_S
        )
    client: Any = cluster.client
    return [client.sanitize_for_serialization(pod) for pod in found.items]


def warnings_of(cluster: Cluster, name: str) -> list[Object]:
    """Warnings about a job, its cluster and its pods, whose names begin with the job's."""
    with explained(cluster):
        found = cluster.core.list_namespaced_event(
            cluster.namespace, field_selector="type=Warning", _request_timeout=REQUEST_S
        )
    client: Any = cluster.client
    events = [client.sanitize_for_serialization(event) for event in found.items]
    return [
        event
        for event in events
        if f"{event.get('involvedObject', {}).get('name', '')}-".startswith(f"{name}-")
    ]


def log(cluster: Cluster, name: str) -> Iterator[str]:
    """What a job has said so far; nothing where its container never ran."""
    for pod in _submitters(pods_of(cluster, name))[-1:]:
        tail, own = Tail(cluster, pod["metadata"]["name"], rayjob.SUBMITTER), OwnLines()
        with suppress(NoLog):
            yield from (line for line in tail.lines(follow=False) if line in own)


def explain(cluster: Cluster, state: State) -> tuple[str, int | None]:
    """Why a job that is over did not succeed, and the exit code of its stage, if it is known."""
    pods: list[Object] = []
    events: list[Object] = []
    lines: list[str] = []
    with suppress(UserError):  # what this person may see of it
        pods = pods_of(cluster, state.id)
        events = warnings_of(cluster, state.id)
        lines = list(deque(log(cluster, state.id), maxlen=_KEPT))
    return causes.failure(state, pods, events, lines), causes.exit_code(state, lines)


def waits_for(cluster: Cluster, state: State) -> str | None:
    """What keeps a job from running; None while nothing is known of, or nobody can be asked."""
    if state.suspended:
        return f"it waits in Kueue's queue {state.queue!r}" if state.queue else "it is suspended"
    first = state.attempts == 1
    if first and not state.deployment and _seconds_since(state.started) > _OPERATOR_S:
        return (
            "KubeRay's operator has not looked at the job yet: does it run, and does it watch "
            f"the namespace {cluster.namespace}?"
        )
    try:
        return causes.trouble(pods_of(cluster, state.id), warnings_of(cluster, state.id))
    except UserError:  # away, or not for this person to see: the job goes on all the same
        return None


def _described(state: State) -> str:
    pods = f" · {state.ready}/{state.wanted} pods of workers" if state.wanted else ""
    return f"{state.id} {state.word}{pods}"


def _seconds_since(time: str) -> int:
    try:
        began = datetime.fromisoformat(time)
    except ValueError:
        return 0
    return max(0, int((datetime.now(UTC) - began).total_seconds()))


def _since(time: str) -> str:
    hours, seconds = divmod(_seconds_since(time), 3600)
    minutes, seconds = divmod(seconds, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"


def _submitters(pods: list[Object]) -> list[Object]:
    """Pods that submit, the oldest first: a lost one is replaced."""
    found = [p for p in pods if p["spec"]["containers"][0]["name"] == rayjob.SUBMITTER]
    return sorted(found, key=lambda pod: str(pod["metadata"].get("creationTimestamp")))


class _Pump:
    """Brings the log of the pod that submits, which is the stage's, to the screen."""

    def __init__(self, cluster: Cluster, name: str, screen: Screen) -> None:
        self._cluster, self._name, self._screen = cluster, name, screen
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="log")
        self._read: set[str] = set()
        """Pods whose log was read to its end."""
        self._submission = ""
        self._printed: Counter[str] = Counter()

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        """Read what is still to come of a job that is over, for a moment at most."""
        self._end.set()
        self._thread.join(2 * REQUEST_S)

    def abandon(self) -> None:
        """Read no further."""
        self._end.set()

    def _run(self) -> None:
        while True:
            last = self._end.is_set()
            try:
                pod = self._next()
                if pod is not None:
                    self._pump(pod)
                    continue
            except Unreachable:
                pass  # the thread that follows the state says so
            except UserError as error:
                self._screen.note(f"the log cannot be shown: {error}")
                return
            if last:
                return
            self._end.wait(_PAUSE_S)

    def _next(self) -> Object | None:
        """The next pod with a log to read."""
        for pod in _submitters(pods_of(self._cluster, self._name)):
            begun = pod["status"].get("phase") in ("Running", "Succeeded", "Failed")
            if begun and pod["metadata"]["uid"] not in self._read:
                return pod
        return None

    def _pump(self, pod: Object) -> None:
        """Read a pod's log to its end, over as many connections as it takes."""
        from kubernetes.client import ApiException

        tail = Tail(self._cluster, pod["metadata"]["name"], rayjob.SUBMITTER)
        again, own = self._known(pod), OwnLines()
        while True:
            over = pod["status"].get("phase") in ("Succeeded", "Failed")
            try:
                # The last look is at all there is: a log that is followed may end early.
                with suppress(NoLog):
                    for line in tail.lines(follow=not over):
                        if again[line] > 0:
                            again[line] -= 1
                            continue
                        self._printed[line] += 1
                        if line in own:
                            self._screen.log(line)
                if over:
                    break
                time.sleep(_PAUSE_S)  # the pod's state follows its log
                pod = self._again(pod)
            except (ApiException, Unreachable):
                if self._end.is_set():
                    return
                time.sleep(_PAUSE_S)
        self._read.add(pod["metadata"]["uid"])

    def _known(self, pod: Object) -> Counter[str]:
        """Lines that come again: a second pod for the same job of Ray's begins with its first."""
        env = pod["spec"]["containers"][0].get("env") or []
        named = {each["name"]: each.get("value", "") for each in env}
        submission = named.get("RAY_JOB_SUBMISSION_ID", pod["metadata"]["uid"])
        if submission != self._submission:
            self._submission, self._printed = submission, Counter()
        return Counter(self._printed)

    def _again(self, pod: Object) -> Object:
        """The pod as it is now; ended where it is gone."""
        for each in pods_of(self._cluster, self._name):
            if each["metadata"]["uid"] == pod["metadata"]["uid"]:
                return each
        return {**pod, "status": {"phase": "Failed"}}
