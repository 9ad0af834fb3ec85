"""What the pods of a submitted job are given: the `scale.kubernetes` part of the configuration."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum

from bayling.errors import UserError

_NAME = r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?"
_LABEL = r"([a-z0-9.-]+/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?"
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")


class Network(Enum):
    """What the workers' traffic goes over."""

    tcp = "tcp"
    """The pods' own network."""
    rdma = "rdma"
    """InfiniBand or RoCE, as a device plugin offers it."""
    efa = "efa"
    """Amazon's Elastic Fabric Adapter."""


@dataclass
class KubernetesConfig:
    """How `bayling submit` makes a RayJob of a stage.

    What is null comes from the release of charts/platform: its ConfigMap RELEASE-jobs.
    """

    context: str | None = None
    """Context of the kubeconfig; null for its current one."""
    kubeconfig: str | None = None
    """Path of the kubeconfig; null for $KUBECONFIG, ~/.kube/config or a pod's own account."""
    namespace: str | None = None
    """Namespace of the job; null for the context's."""
    release: str = "bayling"
    """Name of the release of charts/platform in that namespace (or its fullnameOverride)."""
    image: str | None = None
    """The project's image with tag or digest; null for the release's, by device."""
    pull_secrets: list[str] = field(default_factory=list)
    """Secrets with credentials of the registry, beside those of the service account."""
    service_account: str | None = None
    """Whom the pods run as; null for the release's account of jobs."""
    run_as_user: int = 1000
    """User id of the processes. The image's user is 1000. 0 is outside the restricted standard."""
    workers_per_pod: int | None = None
    """Training processes in one pod; null for gpus_per_node on GPUs, and 1 on CPUs."""
    memory_gib: float | None = None
    """Memory of a pod of workers; null for nine tenths of node_memory_gb's share on GPUs, and on
    CPUs for 2 GiB and 2 more for each worker."""
    head_cpus: float = 2.0
    """CPUs of Ray's head, which runs the stage's driver and no tasks."""
    head_memory_gib: float = 6.0
    reserved: float = 1.0
    """The part of CPUs and memory that pods are sure to have (their requests). Below 1 they share
    nodes with others, which suits CPUs and small machines."""
    shm_gib: float | None = None
    """The most that /dev/shm takes, for NCCL and Ray's objects; it counts as the pod's memory.
    null for as much as the pod has."""
    gpu_resource: str = "nvidia.com/gpu"
    """The resource by which nodes offer GPUs."""
    storage_claim: str | None = None
    """PersistentVolumeClaim for data, checkpoints and models; null for the release's."""
    storage_path: str = "/mnt/bayling"
    """Where it is mounted. output_dir and models_dir are folders below, unless they are set."""
    node_selector: list[str] = field(default_factory=list)
    """Labels of nodes for workers, as KEY:VALUE."""
    tolerations: list[str] = field(default_factory=list)
    """Taints that workers tolerate, as KEY:EFFECT or KEY:VALUE:EFFECT."""
    spot: bool = False
    """Let workers (never the head) run on the spot nodes of GKE and AKS, which are tainted."""
    priority_class: str | None = None
    queue: str | None = None
    """LocalQueue of Kueue; null for the release's, or none."""
    backoff_limit: int = 2
    """How often a failed job begins again, each time with a new Ray cluster."""
    deadline_s: int | None = None
    """Seconds after which the job is ended, retries included; null for never."""
    ttl_s: int = 30
    """Seconds for which the Ray cluster of a job that is over stays."""
    drain_s: int = 90
    """Seconds in which a pod that has to go lets training save and leave; more than a step and a
    checkpoint take. The pod is given 30 more."""
    network: Network = Network.tcp
    network_resource: str | None = None
    """Resource of RDMA devices; null for rdma/hca, and vpc.amazonaws.com/efa with efa."""
    network_devices: int = 1
    """How many of them a pod of workers takes."""
    interface: str | None = None
    """Interface for NCCL's and gloo's own connections, such as eth0; null: they find one."""
    env: list[str] = field(default_factory=list)
    """Environment of the pods, as NAME:VALUE. No secrets: anybody who sees the job sees them."""
    secrets: list[str] = field(default_factory=list)
    """Environment from Secrets, as NAME:SECRET/KEY, such as HF_TOKEN:hub/token."""

    def validate(self) -> None:
        for key, least in (
            ("workers_per_pod", 1),
            ("backoff_limit", 0),
            ("deadline_s", 1),
            ("ttl_s", 0),
            ("drain_s", 1),
            ("network_devices", 1),
            ("run_as_user", 0),
        ):
            value = getattr(self, key)
            if value is not None and value < least:
                raise UserError(f"scale.kubernetes.{key} must be at least {least}, not {value}")
        for key in ("memory_gib", "head_memory_gib", "head_cpus", "shm_gib"):
            value = getattr(self, key)
            if value is not None and value <= 0:
                raise UserError(f"scale.kubernetes.{key} must be above 0, not {value}")
        if not 0 < self.reserved <= 1:
            raise UserError(
                f"scale.kubernetes.reserved must lie above 0 and at most 1, not {self.reserved}"
            )
        if not re.fullmatch(r"/[\w./-]*[\w-]", self.storage_path) or ".." in self.storage_path:
            raise UserError(
                f"scale.kubernetes.storage_path={self.storage_path!r} must be an absolute path"
            )
        if self.storage_path.split("/")[1] in ("tmp", "dev", "proc", "sys"):
            raise UserError(
                f"scale.kubernetes.storage_path={self.storage_path} would hide what Ray needs: "
                "choose a folder of its own, such as /mnt/bayling"
            )
        for key in ("namespace", "release", "storage_claim", "service_account", "queue"):
            value = getattr(self, key)
            if value is not None and not re.fullmatch(_NAME, value):
                raise UserError(
                    f"scale.kubernetes.{key}={value!r} is no name in Kubernetes: use small "
                    "letters, digits and '-'"
                )
        if self.image is not None and not re.search(r"@sha256:|:(?!.*/)", self.image):
            raise UserError(
                f"scale.kubernetes.image={self.image} has no tag: a job that is retried must find "
                "the same image; give a version or a digest"
            )
        self.labels()
        self.taints()
        self.variables()
        self.secret_variables()

    def labels(self) -> dict[str, str]:
        """`node_selector` as a mapping."""
        found = {}
        for text in self.node_selector:
            key, colon, value = text.partition(":")
            if not colon or not re.fullmatch(_LABEL, key):
                raise UserError(f"scale.kubernetes.node_selector: {text!r} is not KEY:VALUE")
            found[key] = value
        return found

    def taints(self) -> list[dict[str, str]]:
        """`tolerations`, and those of `spot`, as Kubernetes has them."""
        texts = [*self.tolerations]
        if self.spot:
            texts += [
                "cloud.google.com/gke-spot:true:NoSchedule",
                "kubernetes.azure.com/scalesetpriority:spot:NoSchedule",
            ]
        found = []
        for text in texts:
            parts = re.fullmatch(rf"({_LABEL})(:(?P<value>[^:]*))?:(?P<effect>\w+)", text)
            if parts is None or parts["effect"] not in _EFFECTS:
                raise UserError(
                    f"scale.kubernetes.tolerations: {text!r} is not KEY[:VALUE]:EFFECT, with an "
                    f"effect of {', '.join(_EFFECTS)}"
                )
            value = parts["value"]
            match = {"operator": "Exists"} if value is None else {"value": value}
            found.append({"key": parts[1], **match, "effect": parts["effect"]})
        return found

    def variables(self) -> dict[str, str]:
        """`env` as a mapping."""
        return dict(_named(text, "env", r".*", "NAME:VALUE") for text in self.env)

    def secret_variables(self) -> dict[str, tuple[str, str]]:
        """`secrets` as name → (Secret, key)."""
        pattern, form = rf"{_NAME}/[-\w.]+", "NAME:SECRET/KEY"
        named = dict(_named(text, "secrets", pattern, form) for text in self.secrets)
        return {name: tuple(where.split("/", 1)) for name, where in named.items()}  # type: ignore[misc]

    @property
    def grace_s(self) -> int:
        """How long Kubernetes waits for a pod to end: Ray's drain comes first."""
        return self.drain_s + 30


def _named(text: str, key: str, value: str, form: str) -> tuple[str, str]:
    parts = re.fullmatch(rf"([A-Za-z_]\w*):({value})", text, re.S)
    if parts is None:
        raise UserError(f"scale.kubernetes.{key}: {text!r} is not {form}")
    return parts[1], parts[2]
