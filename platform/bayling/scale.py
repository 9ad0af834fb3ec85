"""How much machine a run takes: the `scale` group of the configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from bayling import accelerators
from bayling.errors import UserError
from bayling.pods import KubernetesConfig, Network


class Device(Enum):
    cpu = "cpu"
    cuda = "cuda"


@dataclass
class ScaleConfig:
    """Resources. They decide how fast a stage runs, never what comes out of it."""

    name: str = "laptop"
    device: Device = Device.cpu
    workers: int = 2
    """Training processes, one device each. The global batch does not depend on it."""
    min_workers: int | None = None
    """With fewer than `workers`, training is elastic: it goes on with what is there, and
    grows again when more comes."""
    resize_after_s: float = 60.0
    """How often an elastic run looks whether it could have more workers."""
    gpu: str | None = None
    """The kind of GPU, as `accelerators.GPUS` names it: what is planned with."""
    gpus_per_node: int = 8
    node_memory_gb: float | None = None
    """Main memory of one node, for offload; without it, this machine's."""
    expected_mfu: float = 0.4
    """The part of the device's peak that a plan counts on."""
    price_per_gpu_hour: float | None = None
    """What a GPU costs an hour, in any currency; without it a plan names no price."""
    cpus_per_worker: int = 1
    engines: int = 2
    """Copies of the model that generate side by side when a model is evaluated."""
    object_store_mb: int = 256
    """Ray's shared memory on this machine, when a local cluster is started."""
    ray_address: str | None = None
    """An existing Ray cluster; without one, a local one lives as long as the command."""
    kubernetes: KubernetesConfig = field(default_factory=KubernetesConfig)
    """How `bayling submit` makes pods of it."""

    def validate(self) -> None:
        self.kubernetes.validate()
        for key in ("workers", "cpus_per_worker", "engines", "gpus_per_node"):
            if getattr(self, key) < 1:
                raise UserError(f"scale.{key} must be at least 1, not {getattr(self, key)}")
        if self.device is Device.cpu and self.kubernetes.network is not Network.tcp:
            raise UserError(
                f"scale.kubernetes.network={self.kubernetes.network.value} is for GPUs: choose a "
                "scale with scale.device=cuda, or network=tcp"
            )
        if self.min_workers is not None and not 1 <= self.min_workers <= self.workers:
            raise UserError(
                f"scale.min_workers={self.min_workers} must lie between 1 and "
                f"scale.workers={self.workers}"
            )
        if self.gpu is not None:
            accelerators.spec(self.gpu)
        if self.device is Device.cuda and self.gpu is None:
            raise UserError(
                "scale.device=cuda needs scale.gpu, so that memory can be planned: it can be "
                + ", ".join(accelerators.GPUS)
            )
        for key in (
            "node_memory_gb",
            "price_per_gpu_hour",
            "expected_mfu",
            "resize_after_s",
        ):
            value = getattr(self, key)
            if value is not None and value <= 0:
                raise UserError(f"scale.{key} must be above 0, not {value}")
        if self.object_store_mb < 80:
            raise UserError(
                f"scale.object_store_mb must be at least 80 (Ray's minimum), "
                f"not {self.object_store_mb}"
            )

    @property
    def workers_per_pod(self) -> int:
        """How many training processes share a pod on Kubernetes: those of a node, with GPUs."""
        if self.kubernetes.workers_per_pod is not None:
            return self.kubernetes.workers_per_pod
        return self.gpus_per_node if self.device is Device.cuda else 1

    @property
    def gpus_per_worker(self) -> int:
        return 1 if self.device is Device.cuda else 0
