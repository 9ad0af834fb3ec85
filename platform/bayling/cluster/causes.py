"""Why a job does not start, or why it ended, in a sentence: from its pods and events.

Pure functions of what the API server says, as it says it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from bayling.cluster import last_attempt
from bayling.cluster.kubernetes_jobs import State
from bayling.cluster.submitter_log import COLOURS

Object = dict[str, Any]

_PULL = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
_EXIT = re.compile(r"failed with exit code (\d+)")
GATE_SAID_NO = 3
"""Exit code of a stage: nothing broke."""


def trouble(pods: list[Object], events: list[Object]) -> str | None:
    """What keeps a job from running, if anything does that can be seen."""
    for look in (_killed_for_memory, _image, _configuration, _unschedulable, _evicted):
        for pod in pods:
            if sentence := look(pod):
                return sentence
    # An event outlives what it warned of: what became of a pod that runs is no trouble.
    runs = {_name(pod) for pod in pods if pod.get("status", {}).get("phase") != "Pending"}
    left = [e for e in events if e.get("involvedObject", {}).get("name") not in runs]
    return _from_events(left)


def failure(state: State, pods: list[Object], events: list[Object], log: list[str]) -> str:
    """Why a job that is over did not succeed.

    Args:
        log: its last lines.
    """
    sentence = _failure(state, pods, events, log)
    if state.attempts > 1:
        sentence += f" (the last of {state.attempts} attempts)"
    return sentence


def exit_code(state: State, log: list[str]) -> int | None:
    """The entrypoint's, where Ray says it, or the entrypoint itself before it stopped its job."""
    if found := _EXIT.search(state.message):
        return int(found[1])
    codes = [code for line in log if (code := last_attempt.exit_code(line)) is not None]
    return codes[-1] if codes else None


def _failure(state: State, pods: list[Object], events: list[Object], log: list[str]) -> str:
    if state.job == "STOPPED" and exit_code(state, log) is None:
        return "the job was stopped"
    if state.deployment == "ValidationFailed":
        return f"KubeRay refuses the job: {_one_line(state.message)}"
    if state.reason == "DeadlineExceeded":
        return (
            "the job took longer than scale.kubernetes.deadline_s; the same command goes on from "
            "the last checkpoint"
        )
    for pod in pods:
        if sentence := _killed_for_memory(pod):
            return sentence
    if state.reason == "AppFailed" and "head pod not found" in state.message.lower():
        return "Ray's head was lost with its node; the same command goes on from the checkpoint"
    if state.reason == "SubmissionFailed":
        why = trouble(pods, events) or _one_line(state.message)
        return f"the job could not be handed to Ray: {why}"
    line = last_words(log)
    code = exit_code(state, log)
    if line:
        how = f"exit code {code}" if code is not None else "an error"
        return f"the stage ended with {how}: {line}"
    return f"the job failed: {_one_line(state.message) or state.reason or 'nobody says why'}"


def last_words(log: list[str]) -> str:
    """The line in which a program said why it ended; empty where there is none."""
    lines = [plain for line in log if (plain := COLOURS.sub("", line).strip())]
    # Ray's own words come after the program's.
    for place, line in enumerate(lines):
        if re.fullmatch(r"Job '[^']+' failed", line):
            lines = lines[:place]
            break
    while lines and set(lines[-1]) <= {"-"}:
        lines.pop()
    own = [line for line in lines if line.startswith("bayling: ")]
    own = [line for line in own if last_attempt.exit_code(line) is None] or own
    if own:
        return own[-1].removeprefix("bayling: ")
    return lines[-1] if lines else ""


def _killed_for_memory(pod: Object) -> str | None:
    for status in _containers(pod):
        for when in ("state", "lastState"):
            ended = (status.get(when) or {}).get("terminated") or {}
            if ended.get("reason") == "OOMKilled":
                limit = _limit(pod, status["name"], "memory")
                head = status["name"] == "ray-head"
                key = "head_memory_gib" if head else "memory_gib"
                return (
                    f"the container {status['name']} of {_name(pod)} was killed because it took "
                    f"more than its {limit} of memory: raise scale.kubernetes.{key}"
                )
    return None


def _image(pod: Object) -> str | None:
    for status in _containers(pod):
        waiting = (status.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in _PULL:
            why = _one_line(waiting.get("message", ""))
            return (
                f"the image {status.get('image')} cannot be pulled ({waiting['reason']}"
                f"{': ' + why if why else ''}): is it in the registry, and do the nodes have the "
                "credentials (image.pullSecrets of the chart, scale.kubernetes.pull_secrets)?"
            )
    return None


def _configuration(pod: Object) -> str | None:
    for status in _containers(pod):
        waiting = (status.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in ("CreateContainerConfigError", "CreateContainerError"):
            why = _one_line(waiting.get("message", ""))
            return f"the container {status['name']} of {_name(pod)} cannot be made: {why}"
        ended = (status.get("lastState") or {}).get("terminated") or {}
        if waiting.get("reason") == "CrashLoopBackOff":
            return (
                f"the container {status['name']} of {_name(pod)} ends again and again (exit code "
                f"{ended.get('exitCode')}): kubectl logs {_name(pod)} -c {status['name']} "
                "--previous"
            )
    return None


def _unschedulable(pod: Object) -> str | None:
    for condition in pod.get("status", {}).get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            message = _one_line(condition.get("message", ""))
            if condition.get("reason") == "SchedulingGated":
                return None
            return _placement(pod, message)
    return None


def _placement(pod: Object, message: str) -> str:
    lacking = sorted(set(re.findall(r"Insufficient ([\w./-]*\w)", message)))
    where = f"no node takes {_name(pod)}"
    ways = []
    for resource in lacking:
        asked = _asked(pod, resource)
        if resource in ("cpu", "memory"):
            key = {"cpu": "scale.cpus_per_worker", "memory": "scale.kubernetes.memory_gib"}
            ways.append(
                f"none has {asked} of {resource} free (lower {key[resource]} or "
                "scale.kubernetes.reserved, or add nodes)"
            )
        else:
            ways.append(
                f"none has {asked} {resource} free, or at all (scale.gpus_per_node or "
                "scale.kubernetes.workers_per_pod sets how many a pod asks for, "
                "scale.kubernetes.gpu_resource what they are called)"
            )
    if taints := re.findall(r"untolerated taint(?:\(s\))? \{([^}:]+)", message):
        named = ", ".join(sorted(set(taints)))
        ways.append(f"nodes are tainted with {named} (scale.kubernetes.tolerations)")
    if "node affinity/selector" in message:
        ways.append("none has the labels of scale.kubernetes.node_selector")
    if "volume node affinity" in message or "pod affinity rules" in message:
        ways.append(
            "the storage can be mounted on one node only, which is full (use a storage class "
            "with ReadWriteMany: jobs.storage.accessMode of the chart)"
        )
    if missing := re.search(r'persistentvolumeclaim "([^"]+)" not found', message):
        ways.append(f"there is no PersistentVolumeClaim {missing[1]}")
    if "unbound immediate PersistentVolumeClaims" in message:
        ways.append(
            "its PersistentVolumeClaim has no volume (is there a default StorageClass, or one in "
            "jobs.storage.storageClass?)"
        )
    return f"{where}: {'; '.join(ways) or message}"


def _evicted(pod: Object) -> str | None:
    status = pod.get("status", {})
    if status.get("phase") == "Failed" and status.get("reason") in ("Evicted", "Preempting"):
        return f"{_name(pod)} was evicted: {_one_line(status.get('message', ''))}"
    return None


def _from_events(events: list[Object]) -> str | None:
    """The newest warning that says what to do about it."""
    for event in sorted(events, key=_when, reverse=True):
        message = _one_line(event.get("message") or "")
        if "exceeded quota" in message:
            found = re.search(
                r"exceeded quota: ([^,]+), requested: (.+?), used: (.+?), limited: (.+)", message
            )
            if found:
                return (
                    f"the quota {found[1]!r} is exceeded: asked for {found[2]}, in use "
                    f"{found[3]}, of {found[4]}; wait for other jobs to end, ask for less, or "
                    "raise the quota"
                )
        if "violates PodSecurity" in message:
            which = re.search(r'violates PodSecurity "([^"]+)": (.+)', message)
            said = f"{which[1]}: {which[2]}" if which else message
            return (
                f"the namespace's Pod Security refuses the pods ({said}): jobs over rdma or efa, "
                "and run_as_user=0, need a namespace that allows them"
            )
        if event.get("reason") in ("FailedMount", "FailedAttachVolume"):
            return f"a volume cannot be mounted: {message}"
        if "is forbidden" in message or "admission webhook" in message:
            return f"the cluster's admission refuses a pod: {message}"
    return None


def _containers(pod: Object) -> Iterator[Object]:
    status = pod.get("status", {})
    yield from status.get("initContainerStatuses") or []
    yield from status.get("containerStatuses") or []


def _limit(pod: Object, container: str, resource: str) -> str:
    for each in pod["spec"]["containers"]:
        if each["name"] == container:
            return str((each.get("resources", {}).get("limits") or {}).get(resource, "limit"))
    return "limit"


def _asked(pod: Object, resource: str) -> str:
    for each in pod["spec"]["containers"]:
        if amount := (each.get("resources", {}).get("requests") or {}).get(resource):
            return str(amount)
    return "enough"


def _name(pod: Object) -> str:
    return str(pod["metadata"]["name"])


def _when(event: Object) -> str:
    times = (event.get(key) for key in ("lastTimestamp", "eventTime"))
    return str(next((time for time in times if time), ""))


def _one_line(text: str) -> str:
    return " ".join(text.split())
