"""The `train` group of the configuration."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any

from bayling.errors import UserError


class Precision(Enum):
    auto = "auto"
    """What the device multiplies fastest; see `bayling.train.precision`."""
    bf16 = "bf16"
    fp16 = "fp16"
    fp32 = "fp32"


class Offload(Enum):
    """Where ZeRO keeps what does not fit the device."""

    none = "none"
    cpu = "cpu"
    nvme = "nvme"


class OnBadStep(Enum):
    """What happens after a step whose loss or gradient is no number, or jumps."""

    stop = "stop"
    """End the run with an error that names the batch."""
    rollback = "rollback"
    """Go back to the last checkpoint and leave that step's batch out."""
    report = "report"
    """Say so and go on; a step without a finite gradient does not change the weights."""


@dataclass
class LoraConfig:
    """Low-rank adapters (LoRA, arXiv 2106.09685) instead of all weights."""

    rank: int = 0
    """0 trains all weights."""
    alpha: float = 32.0
    dropout: float = 0.0
    targets: list[str] = field(
        default_factory=lambda: [
            "q_proj",
            "k_proj",
            "v_proj",
            "o_proj",
            "gate_proj",
            "up_proj",
            "down_proj",
        ]
    )
    """The linear layers that get an adapter."""


CARRIED_OUT = frozenset(
    {
        "micro_batch",
        "zero_stage",
        "offload_optimizer",
        "offload_parameters",
        "nvme_path",
        "gradient_checkpointing",
        "liger",
        "checkpoint_every",
        "keep_checkpoints",
        "keep_best",
        "heldout_every",
        "log_every",
        "on_bad_step",
        "spike_factor",
        "max_failures",
        "max_preemptions",
        "stuck_after_s",
    }
)
"""Keys of `TrainConfig` that say how a run is carried out, watched and brought through trouble,
not what is learned. They can differ when an unfinished run goes on, and a finished one is not run
again for them."""


@dataclass
class TrainConfig:
    """How a model is fine-tuned. Nothing here depends on the number of workers."""

    name: str = "default"
    steps: int | None = None
    """Optimizer steps; without them `epochs` decides."""
    epochs: float = 1.0
    global_batch: int = 8
    """Packed sequences in one optimizer step, over all workers together."""
    micro_batch: int | None = None
    """Sequences that one worker takes through the network at once. Without it, the most that
    the plan finds room for; out of memory all the same, it is halved and the run goes on."""
    learning_rate: float = 2e-3
    """The highest, reached after the warm-up."""
    final_learning_rate: float = 0.02
    """What the cosine ends at, as a part of `learning_rate`."""
    warmup: float = 0.03
    """The part of all steps in which the learning rate rises."""
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    clip: float = 1.0
    """The largest norm of a gradient."""
    precision: Precision = Precision.auto
    lora: LoraConfig = field(default_factory=LoraConfig)
    zero_stage: int | None = None
    """DeepSpeed ZeRO: 0 keeps everything everywhere, 1 splits the optimizer's state, 2 the
    gradients too, 3 the weights too. Without it, what the plan picks for model and scale."""
    offload_optimizer: Offload | None = None
    """Without it, none where the plan says that all fits, else cpu."""
    offload_parameters: Offload | None = None
    """Only with ZeRO-3."""
    nvme_path: str | None = None
    """A folder on a local disk of every node, for offload to nvme."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them."""
    liger: bool | None = None
    """Liger's fused kernels. Without it, where the package is installed and the device a GPU."""
    checkpoint_every: int = 200
    """Steps between checkpoints."""
    keep_checkpoints: int = 2
    """How many of the newest stay."""
    keep_best: int = 1
    """How many with the lowest held-out loss stay beside them."""
    heldout_every: int = 200
    """Steps between measurements of the loss on held-out conversations."""
    log_every: int = 10
    on_bad_step: OnBadStep = OnBadStep.stop
    spike_factor: float = 3.0
    """A loss this many times its recent average is a spike."""
    max_failures: int = 3
    """How often a run goes on from its last checkpoint after a worker is lost."""
    max_preemptions: int = 100
    """How often it does after a node was taken away with notice."""
    stuck_after_s: float = 600.0
    """A worker that makes no progress for so long is taken for stuck, and replaced."""

    def decides(self) -> dict[str, Any]:
        """The values that decide which model comes out: all keys but `CARRIED_OUT`."""
        return {
            one.name: getattr(self, one.name) for one in fields(self) if one.name not in CARRIED_OUT
        }

    def validate(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise UserError(f"train.steps must be at least 1, not {self.steps}")
        if self.epochs <= 0:
            raise UserError(f"train.epochs must be above 0, not {self.epochs}")
        for key in (
            "global_batch",
            "checkpoint_every",
            "keep_checkpoints",
            "heldout_every",
            "log_every",
        ):
            if getattr(self, key) < 1:
                raise UserError(f"train.{key} must be at least 1, not {getattr(self, key)}")
        if self.micro_batch is not None and not 1 <= self.micro_batch <= self.global_batch:
            raise UserError(
                f"train.micro_batch={self.micro_batch} must lie between 1 and "
                f"train.global_batch={self.global_batch}"
            )
        for key in ("learning_rate", "clip", "stuck_after_s"):
            if getattr(self, key) <= 0:
                raise UserError(f"train.{key} must be above 0, not {getattr(self, key)}")
        for key in ("final_learning_rate", "warmup"):
            if not 0 <= getattr(self, key) <= 1:
                raise UserError(f"train.{key} must lie between 0 and 1, not {getattr(self, key)}")
        for key in ("beta1", "beta2"):
            if not 0 <= getattr(self, key) < 1:
                raise UserError(f"train.{key} must be at least 0 and below 1")
        if self.weight_decay < 0:
            raise UserError(f"train.weight_decay cannot be negative: {self.weight_decay}")
        for key in ("keep_best", "max_failures", "max_preemptions"):
            if getattr(self, key) < 0:
                raise UserError(f"train.{key} cannot be negative: {getattr(self, key)}")
        if self.spike_factor <= 1:
            raise UserError(f"train.spike_factor must be above 1, not {self.spike_factor}")
        self._validate_lora()
        self._validate_zero()

    def _validate_lora(self) -> None:
        lora = self.lora
        if lora.rank < 0:
            raise UserError(f"train.lora.rank cannot be negative: {lora.rank}")
        if not 0 <= lora.dropout < 1:
            raise UserError(f"train.lora.dropout must be at least 0 and below 1: {lora.dropout}")
        if lora.rank and not lora.targets:
            raise UserError("train.lora.targets is empty: name the layers that get an adapter")

    def _validate_zero(self) -> None:
        stage = self.zero_stage
        if stage not in (None, 0, 1, 2, 3):
            raise UserError(f"train.zero_stage must be 0, 1, 2 or 3, not {stage}")
        optimizer, parameters = self.offload_optimizer, self.offload_parameters
        if parameters not in (None, Offload.none) and stage not in (None, 3):
            raise UserError(
                f"train.offload_parameters={parameters.value} needs train.zero_stage=3, which "
                f"splits the weights; with stage {stage} every device keeps its own"
            )
        if optimizer not in (None, Offload.none) and stage == 0:
            raise UserError(
                f"train.offload_optimizer={optimizer.value} needs train.zero_stage=1 or more, "
                "which splits the optimizer's state"
            )
        if optimizer is Offload.nvme and stage not in (None, 3):
            raise UserError("train.offload_optimizer=nvme needs train.zero_stage=3")
        if Offload.nvme in (optimizer, parameters) and self.nvme_path is None:
            raise UserError(
                "offload to nvme needs train.nvme_path: a folder on a local disk of every node"
            )
