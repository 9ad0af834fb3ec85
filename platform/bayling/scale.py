"""How much machine a run takes: the `scale` group of the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from bayling.errors import UserError


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
    cpus_per_worker: int = 1
    engines: int = 2
    """Copies of the model that generate side by side when a model is evaluated."""
    object_store_mb: int = 256
    """Ray's shared memory on this machine, when a local cluster is started."""
    ray_address: str | None = None
    """An existing Ray cluster; without one, a local one lives as long as the command."""

    def validate(self) -> None:
        for key in ("workers", "cpus_per_worker", "engines"):
            if getattr(self, key) < 1:
                raise UserError(f"scale.{key} must be at least 1, not {getattr(self, key)}")
        if self.object_store_mb < 80:
            raise UserError(
                f"scale.object_store_mb must be at least 80 (Ray's minimum), "
                f"not {self.object_store_mb}"
            )

    @property
    def gpus_per_worker(self) -> int:
        return 1 if self.device is Device.cuda else 0
