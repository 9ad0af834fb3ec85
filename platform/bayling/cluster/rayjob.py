"""A stage as a RayJob of KubeRay 1.7: a Ray cluster of its own for as long as the job runs.

Modes of submission (KubeRay's `submissionMode`): a pod of its own submits the entrypoint. A
container beside Ray's head would spare the pod, but its template cannot be changed, and the
restricted standard refuses it as it is.
"""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from typing import Any

from bayling.cluster import entrypoint
from bayling.cluster.installation import Installation
from bayling.cluster.last_attempt import ATTEMPTS_VARIABLE
from bayling.cluster.local import ENVIRONMENT
from bayling.errors import UserError
from bayling.pods import Network
from bayling.scale import Device, ScaleConfig
from bayling.stage import fingerprint

GROUP, VERSION, PLURAL = "ray.io", "v1", "rayjobs"
COMPONENT = "job"
"""Label `app.kubernetes.io/component` of all pods of jobs, which the chart's policies choose."""
STAGE, TEAM, JOB = "bayling/stage", "bayling/team", "bayling/job"
SPEC = "bayling/spec"
"""Annotation: a hash of what was sent, by which a change is noticed."""
COMMAND = "bayling/command"
SUBMITTER = "ray-job-submitter"
JOB_VARIABLE = "BAYLING_JOB"
"""In the environment of a job's processes: its id."""
LONGEST_NAME = 47

_STORAGE = "bayling/storage"
_NETWORK_RESOURCE = {Network.rdma: "rdma/hca", Network.efa: "vpc.amazonaws.com/efa"}
_HOME = "/tmp"
"""Of the image's user; a folder that can be written whoever the processes run as."""

Object = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """What is to be run."""

    id: str
    stage: str
    overrides: list[str]
    """As the command in the pod gets them, storage included."""
    team: str | None = None


def pods_of(scale: ScaleConfig) -> tuple[int, int]:
    """How many pods of workers, and for how many workers each has room."""
    at_once = max(scale.workers, scale.engines)
    each = min(scale.workers_per_pod, at_once)
    return math.ceil(at_once / each), each


def manifest(job: Job, scale: ScaleConfig, there: Installation, namespace: str | None) -> Object:
    """The RayJob.

    Raises:
        UserError: no image is known, or how much memory its pods take.
    """
    return _Builder(job, scale, there).build(namespace)


class _Builder:
    def __init__(self, job: Job, scale: ScaleConfig, there: Installation) -> None:
        self.job, self.scale, self.there = job, scale, there
        self.given = scale.kubernetes
        self.gpus = scale.device is Device.cuda and job.stage in entrypoint.NEEDS_DEVICES
        self.claim = self.given.storage_claim or there.claim
        self.team = job.team or there.team

    def build(self, namespace: str | None) -> Object:
        given, queue = self.given, self._queue()
        metadata: Object = {
            "name": self.job.id,
            "labels": {
                **self._labels(),
                **({"kueue.x-k8s.io/queue-name": queue} if queue else {}),
            },
        }
        if namespace:
            metadata["namespace"] = namespace
        arguments = entrypoint.command(self.job.stage, self.job.overrides)
        spec: Object = {
            # KubeRay pastes it into a script of bash; Ray quotes again what bash has made of it.
            "entrypoint": shlex.join(arguments),
            "submissionMode": "K8sJobMode",
            "backoffLimit": given.backoff_limit,
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": given.ttl_s,
            **({"activeDeadlineSeconds": given.deadline_s} if given.deadline_s else {}),
            "submitterPodTemplate": self._submitter(),
            "rayClusterSpec": {
                "rayVersion": self.there.ray_version,
                # KubeRay draws a token for each cluster and keeps it in a Secret.
                "authOptions": {"mode": "token"},
                "headGroupSpec": {
                    "rayStartParams": {
                        "dashboard-host": "0.0.0.0",
                        "num-cpus": "0",
                        # A cluster of fixed size has nothing to scale; the monitor would call
                        # every task that waits for a CPU infeasible.
                        "no-monitor": "true",
                    },
                    "template": self._head(),
                },
                "workerGroupSpecs": [self._workers()],
            },
        }
        shown = shlex.join(["bayling", "submit", self.job.stage, *self.job.overrides])
        metadata["annotations"] = {SPEC: fingerprint(spec, metadata["labels"]), COMMAND: shown}
        return {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "RayJob",
            "metadata": metadata,
            "spec": spec,
        }

    def _queue(self) -> str:
        """Kueue's: a team has one of its name, but for the release's own, whose chart says."""
        if self.given.queue or not self.there.queue:
            return self.given.queue or ""
        return self.there.queue if self.team == self.there.team else self.team

    def _labels(self) -> dict[str, str]:
        return {
            "app.kubernetes.io/part-of": "bayling",
            "app.kubernetes.io/component": COMPONENT,
            **({"app.kubernetes.io/instance": self.there.instance} if self.there.instance else {}),
            JOB: self.job.id,
            STAGE: self.job.stage,
            **({TEAM: self.team} if self.team else {}),
        }

    def _submitter(self) -> Object:
        container = self._container(SUBMITTER, [], {"cpu": 1.0, "memory": 1.0})
        container["resources"]["requests"] = {"cpu": "100m", "memory": "256Mi"}
        container["securityContext"]["readOnlyRootFilesystem"] = True
        container["volumeMounts"] = [{"name": "tmp", "mountPath": "/tmp"}]
        pod = self._pod(container, [])
        pod["spec"]["restartPolicy"] = "Never"
        return pod

    def _head(self) -> Object:
        given = self.given
        room = {"cpu": given.head_cpus, "memory": given.head_memory_gib}
        container = self._ray("ray-head", room)
        container["ports"] = [
            {"name": "gcs-server", "containerPort": 6379},
            {"name": "dashboard", "containerPort": 8265},
            {"name": "client", "containerPort": 10001},
            {"name": "metrics", "containerPort": 8080},
        ]
        return self._ray_pod(container, given.head_memory_gib)

    def _workers(self) -> Object:
        given, scale = self.given, self.scale
        number, each = pods_of(scale)
        memory = self._memory_gib(each)
        room: dict[str, float] = {"cpu": each * scale.cpus_per_worker, "memory": memory}
        container = self._ray("ray-worker", room)
        container["ports"] = [{"name": "metrics", "containerPort": 8080}]
        devices: dict[str, int] = {}
        if self.gpus:
            devices[given.gpu_resource] = each
        if self.gpus and given.network is not Network.tcp:
            resource = given.network_resource or _NETWORK_RESOURCE[given.network]
            devices[resource] = given.network_devices
            # Registered memory is locked memory. The restricted standard, and baseline too,
            # refuse this capability: such a job needs a namespace that allows it.
            container["securityContext"]["capabilities"]["add"] = ["IPC_LOCK"]
        for kind in ("requests", "limits"):
            container["resources"][kind].update(devices)
        pod = self._ray_pod(container, min(memory, given.shm_gib or memory))
        if labels := given.labels():
            pod["spec"]["nodeSelector"] = labels
        if taints := given.taints():
            pod["spec"]["tolerations"] = taints
        return {
            "groupName": "workers",
            "replicas": number,
            "minReplicas": number,
            "maxReplicas": number,
            "rayStartParams": {},
            "template": pod,
        }

    def _memory_gib(self, workers: int) -> float:
        scale = self.scale
        if self.given.memory_gib is not None:
            return self.given.memory_gib
        if scale.device is Device.cpu:
            return 2.0 + 2.0 * workers
        if scale.node_memory_gb is None:
            raise UserError(
                "how much memory a pod with GPUs takes is not known: set scale.node_memory_gb, "
                "or scale.kubernetes.memory_gib"
            )
        # Kubernetes' own daemons need the rest; 10^9 bytes, not 2^30.
        return math.floor(
            0.9 * scale.node_memory_gb * 1e9 / 2**30 * workers / max(scale.gpus_per_node, workers)
        )

    def _ray(self, name: str, room: dict[str, float]) -> Object:
        container = self._container(name, self._environment(), room)
        container["volumeMounts"] = [
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "shm", "mountPath": "/dev/shm"},
        ]
        if self.claim:
            path = self.given.storage_path
            container["volumeMounts"].append({"name": "storage", "mountPath": path})
        return container

    def _ray_pod(self, container: Object, shm_gib: float) -> Object:
        # Ray's objects and NCCL's buffers; what is in it counts as the pod's memory.
        volumes: list[Object] = [
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": _memory(shm_gib)}}
        ]
        if self.claim:
            claim = {"persistentVolumeClaim": {"claimName": self.claim}}
            volumes.append({"name": "storage", **claim})
        pod = self._pod(container, volumes)
        pod["metadata"]["labels"]["bayling/mlflow-client"] = "true"
        # Ray's drain comes before Kubernetes' end, or the pod is killed in the middle of a save.
        pod["spec"]["terminationGracePeriodSeconds"] = self.given.grace_s
        if self.claim and self.there.claim_access != "ReadWriteMany":
            # One node has such a volume: whoever mounts it goes where the others are.
            pod["metadata"]["labels"][_STORAGE] = self.claim
            together = {
                "labelSelector": {"matchLabels": {_STORAGE: self.claim}},
                "topologyKey": "kubernetes.io/hostname",
            }
            required = {"requiredDuringSchedulingIgnoredDuringExecution": [together]}
            pod["spec"]["affinity"] = {"podAffinity": required}
        return pod

    def _pod(self, container: Object, volumes: list[Object]) -> Object:
        given, user = self.given, self.given.run_as_user
        account = given.service_account or self.there.service_account
        return {
            "metadata": {"labels": self._labels()},
            "spec": {
                **({"serviceAccountName": account} if account else {}),
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                **({"priorityClassName": given.priority_class} if given.priority_class else {}),
                **(
                    {"imagePullSecrets": [{"name": name} for name in given.pull_secrets]}
                    if given.pull_secrets
                    else {}
                ),
                "securityContext": {
                    "runAsNonRoot": user != 0,
                    "runAsUser": user,
                    "runAsGroup": user,
                    "fsGroup": user,
                    # A volume full of checkpoints is not gone through again for each pod.
                    "fsGroupChangePolicy": "OnRootMismatch",
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [container],
                "volumes": [{"name": "tmp", "emptyDir": {}}, *volumes],
            },
        }

    def _container(self, name: str, env: list[Object], room: dict[str, float]) -> Object:
        limits = {"cpu": _cpu(room["cpu"]), "memory": _memory(room["memory"])}
        part = self.given.reserved
        requests = {"cpu": _cpu(part * room["cpu"]), "memory": _memory(part * room["memory"])}
        return {
            "name": name,
            "image": self._image(),
            "imagePullPolicy": self.there.pull_policy,
            "env": [{"name": "HOME", "value": _HOME}, *env],
            "resources": {"requests": requests, "limits": limits},
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            },
        }

    def _image(self) -> str:
        cuda = self.scale.device is Device.cuda
        image = self.given.image or (self.there.gpu_image if cuda else self.there.image)
        if not image:
            raise UserError(
                "no image is known: set scale.kubernetes.image, or have charts/platform in the "
                "namespace and its name in scale.kubernetes.release"
            )
        return image

    def _environment(self) -> list[Object]:
        given, there = self.given, self.there
        plain = {
            JOB_VARIABLE: self.job.id,
            ATTEMPTS_VARIABLE: str(self.given.backoff_limit + 1),
            "BAYLING_IMAGE": self._image(),
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": str(given.drain_s),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            # What a Ray of our own has, too: head and workers must agree.
            **ENVIRONMENT,
            **self._network(),
        }
        if there.tracking_uri:
            plain["MLFLOW_TRACKING_URI"] = there.tracking_uri
        plain |= given.variables()
        env: list[Object] = [{"name": name, "value": value} for name, value in plain.items()]
        secret = given.secret_variables()
        if there.credentials_secret:
            for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
                secret.setdefault(name, (there.credentials_secret, name))
        for name, (where, key) in secret.items():
            reference = {"secretKeyRef": {"name": where, "key": key}}
            env.append({"name": name, "valueFrom": reference})
        return env

    def _network(self) -> dict[str, str]:
        given = self.given
        found: dict[str, str] = {}
        if given.interface:
            found |= {
                "NCCL_SOCKET_IFNAME": given.interface,
                "GLOO_SOCKET_IFNAME": given.interface,
            }
        if given.network is Network.tcp:
            found["NCCL_IB_DISABLE"] = "1"
        if given.network is Network.efa:
            # Pages of libfabric's own would not survive the fork of a process that loads data.
            found |= {"FI_PROVIDER": "efa", "FI_EFA_USE_HUGE_PAGE": "0"}
        return found


def claim(there: Installation, namespace: str) -> Object:
    """The PersistentVolumeClaim that the first job of a release makes."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": there.claim,
            "namespace": namespace,
            "labels": {
                "app.kubernetes.io/part-of": "bayling",
                "app.kubernetes.io/instance": there.instance,
                "app.kubernetes.io/component": COMPONENT,
            },
        },
        "spec": {
            "accessModes": [there.claim_access],
            "resources": {"requests": {"storage": there.claim_size}},
            **({"storageClassName": there.claim_class} if there.claim_class else {}),
        },
    }


def _cpu(number: float) -> str:
    return f"{number:g}" if float(number).is_integer() else f"{round(1000 * number)}m"


def _memory(gib: float) -> str:
    return f"{gib:g}Gi" if float(gib).is_integer() else f"{round(1024 * gib)}Mi"
