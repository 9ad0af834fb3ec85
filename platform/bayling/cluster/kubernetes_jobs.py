"""Jobs on Kubernetes: RayJobs that are made, found, looked at and taken away."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from bayling.cluster import rayjob
from bayling.cluster.installation import Installation
from bayling.cluster.kubernetes_api import REQUEST_S, Cluster, Unreachable, explained
from bayling.cluster.rayjob import GROUP, PLURAL, VERSION, Object
from bayling.errors import UserError
from bayling.pods import KubernetesConfig

_GONE_WITHIN_S = 900.0
"""Pods save what they have before they go."""
_OURS = "app.kubernetes.io/part-of=bayling"
OVER = ("Complete", "Failed", "ValidationFailed")
"""Values of `jobDeploymentStatus` after which nothing comes."""


@dataclass(frozen=True)
class State:
    """What a RayJob's status says."""

    id: str
    deployment: str
    """KubeRay's own state; empty before it has looked."""
    job: str
    """Ray's state of the entrypoint; empty before it was submitted."""
    reason: str
    message: str
    ready: int
    """Pods of workers that are ready, of `wanted`."""
    wanted: int
    attempts: int
    """Of clusters, this one included."""
    submission: str
    """Ray's id of the job, another one in each attempt."""
    cluster: str
    stage: str
    team: str
    started: str
    ended: str
    suspended: bool
    queue: str

    @classmethod
    def of(cls, found: Object) -> State:
        status = found.get("status") or {}
        cluster = status.get("rayClusterStatus") or {}
        metadata, spec = found["metadata"], found.get("spec", {})
        labels = metadata.get("labels") or {}
        over = status.get("jobDeploymentStatus") in OVER
        groups = spec.get("rayClusterSpec", {}).get("workerGroupSpecs", [])
        return cls(
            id=metadata["name"],
            deployment=status.get("jobDeploymentStatus", ""),
            job=status.get("jobStatus", ""),
            reason=status.get("reason", ""),
            message=status.get("message", ""),
            ready=cluster.get("readyWorkerReplicas", 0),
            wanted=sum(group.get("replicas", 0) for group in groups),
            # KubeRay counts those that failed.
            attempts=max(1, status.get("failed", 0) + (not over)),
            submission=status.get("jobId", ""),
            cluster=status.get("rayClusterName", ""),
            stage=labels.get(rayjob.STAGE, ""),
            team=labels.get(rayjob.TEAM, ""),
            started=status.get("startTime") or metadata.get("creationTimestamp", ""),
            ended=status.get("endTime") or "",
            suspended=bool(spec.get("suspend")),
            queue=labels.get("kueue.x-k8s.io/queue-name", ""),
        )

    @property
    def over(self) -> bool:
        return self.deployment in OVER

    @property
    def succeeded(self) -> bool:
        return self.deployment == "Complete" and self.job == "SUCCEEDED"

    @property
    def word(self) -> str:
        """What a person calls it."""
        if self.succeeded:
            return "succeeded"
        if self.over:
            return "stopped" if self.job == "STOPPED" else "failed"
        if self.suspended:
            return "queued"
        if self.deployment == "Retrying":
            return "retrying"
        if self.job == "RUNNING":
            return "running"
        if self.job in ("SUCCEEDED", "FAILED", "STOPPED"):
            return "ending"
        return "starting"


def installation(cluster: Cluster, given: KubernetesConfig) -> Installation:
    """What the platform's release says in its ConfigMap.

    Where there is no release of the name, and just one of another, that is the one.

    Raises:
        UserError: there is none and the configuration names no image, or it is too old.
    """
    from kubernetes.client.exceptions import NotFoundException

    name = f"{given.release}-jobs"
    try:
        with explained(cluster):
            found = cluster.core.read_namespaced_config_map(
                name, cluster.namespace, _request_timeout=REQUEST_S
            )
    except NotFoundException:
        there = _releases(cluster)
        if len(there) == 1:
            return Installation.of(*there.popitem())
        if given.image:
            return Installation.none()
        named = f"there are {', '.join(sorted(there))}; " if there else ""
        raise UserError(
            f"there is no release {given.release!r} of charts/platform in the namespace "
            f"{cluster.namespace} (no ConfigMap {name}): {named}helm install {given.release} "
            f"charts/platform --namespace {cluster.namespace}, or set scale.kubernetes.namespace, "
            "scale.kubernetes.release, or scale.kubernetes.image to do without"
        ) from None
    return Installation.of(given.release, found.data or {})


def _releases(cluster: Cluster) -> dict[str, dict[str, str]]:
    """Releases in the namespace with what they say; none where nobody may look for them."""
    try:
        with explained(cluster):
            found: Any = cluster.core.list_namespaced_config_map(
                cluster.namespace, label_selector=_OURS, _request_timeout=REQUEST_S
            )
    except Unreachable:
        raise
    except UserError:  # the role of whoever submits has one ConfigMap only
        return {}
    return {
        one.metadata.name.removesuffix("-jobs"): one.data
        for one in found.items
        if one.metadata.name.endswith("-jobs") and "service-account" in (one.data or {})
    }


def get(cluster: Cluster, name: str) -> Object | None:
    """The RayJob of this name; None where there is none."""
    from kubernetes.client.exceptions import NotFoundException

    try:
        with explained(cluster):
            found: Any = cluster.custom.get_namespaced_custom_object(
                GROUP, VERSION, cluster.namespace, PLURAL, name, _request_timeout=REQUEST_S
            )
    except NotFoundException:
        return None
    return dict(found)


def require(cluster: Cluster, name: str) -> Object:
    """The RayJob of this name.

    Raises:
        UserError: there is none.
    """
    found = get(cluster, name)
    if found is None:
        raise UserError(
            f"there is no job {name!r} in the namespace {cluster.namespace}: `bayling job list` "
            "has those that are there"
        )
    return found


def every(cluster: Cluster) -> list[Object]:
    """All jobs of this platform in the namespace, the newest first."""
    with explained(cluster):
        found: Any = cluster.custom.list_namespaced_custom_object(
            GROUP,
            VERSION,
            cluster.namespace,
            PLURAL,
            label_selector=_OURS,
            _request_timeout=REQUEST_S,
        )
    items: list[Object] = found["items"]
    return sorted(items, key=lambda one: one["metadata"]["creationTimestamp"], reverse=True)


def create(cluster: Cluster, wanted: Object) -> Object:
    """Have the API server check the RayJob, then make it; the one that is there where another
    process was faster.

    Raises:
        UserError: it is refused, and why.
    """
    from kubernetes.client.exceptions import ConflictException

    try:
        with explained(cluster):
            for only_try in (True, False):
                made: Any = cluster.custom.create_namespaced_custom_object(
                    GROUP,
                    VERSION,
                    cluster.namespace,
                    PLURAL,
                    wanted,
                    field_validation="Strict",
                    dry_run="All" if only_try else None,
                    _request_timeout=REQUEST_S,
                )
    except ConflictException:
        return require(cluster, wanted["metadata"]["name"])
    return dict(made)


def delete(cluster: Cluster, name: str, *, gone: bool = True) -> None:
    """Take a RayJob away, with its cluster and its logs. What it wrote stays.

    Args:
        gone: wait until it is.

    Raises:
        UserError: there is none, or it does not go.
    """
    from kubernetes.client.exceptions import NotFoundException

    try:
        with explained(cluster):
            cluster.custom.delete_namespaced_custom_object(
                GROUP,
                VERSION,
                cluster.namespace,
                PLURAL,
                name,
                propagation_policy="Foreground",
                _request_timeout=REQUEST_S,
            )
    except NotFoundException:
        raise UserError(f"there is no job {name!r} in {cluster.namespace}") from None
    until = time.monotonic() + _GONE_WITHIN_S
    while gone and get(cluster, name) is not None:
        if time.monotonic() > until:
            raise UserError(
                f"the job {name} is asked to go and does not within {_GONE_WITHIN_S:g} s: does "
                "KubeRay's operator run? (It takes the finalizer of a job away.)"
            )
        time.sleep(1)


def storage(cluster: Cluster, there: Installation, given: KubernetesConfig) -> Installation:
    """See that the claim is there; make the release's own on its first use.

    It is not the chart's because many storage classes wait for a first pod, and `helm install
    --wait` would wait for a claim without any.

    Returns:
        The installation, with the access mode that the claim really has.

    Raises:
        UserError: somebody else's claim that is not there.
    """
    from dataclasses import replace

    from kubernetes.client.exceptions import ConflictException, NotFoundException

    name = given.storage_claim or there.claim
    if not name:
        return there
    found: Any
    try:
        with explained(cluster):
            found = cluster.core.read_namespaced_persistent_volume_claim(
                name, cluster.namespace, _request_timeout=REQUEST_S
            )
    except NotFoundException:
        if name != there.claim or not there.claim_size:
            key = "scale.kubernetes.storage_claim" if given.storage_claim else "jobs.storage"
            raise UserError(
                f"there is no PersistentVolumeClaim {name!r} in the namespace "
                f"{cluster.namespace}: make it, or name another with {key}"
            ) from None
        body: Any = rayjob.claim(there, cluster.namespace)
        try:
            with explained(cluster):
                cluster.core.create_namespaced_persistent_volume_claim(
                    cluster.namespace, body, _request_timeout=REQUEST_S
                )
        except ConflictException:
            pass  # another job was faster
        return there
    modes = found.spec.access_modes or []
    shared = "ReadWriteMany" in modes
    return replace(there, claim_access="ReadWriteMany" if shared else "ReadWriteOnce")
