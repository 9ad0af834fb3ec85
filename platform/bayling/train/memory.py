"""How much memory training takes: per worker at the moment that takes most, and on its node.

Training has four such moments, and each can be the one that takes most: *load*, when the network
is built; *forward*, when the loss is known and no activation has been freed; *backward*, when all
gradients are there and no activation is left; and *step*, when the optimizer works. What is
counted in each is what the sources keep, read in DeepSpeed 0.19 (runtime/zero/stage_1_and_2.py,
stage3.py, fp16/unfused_optimizer.py) and in transformers 5 (modeling_llama.py); see docs/design.md.

The model states are those of ZeRO (arXiv 1910.02054, section 3.1): with Adam and half precision
2 bytes a parameter for the weight, 2 for the gradient, 12 for fp32 weight and both moments.
"""

from __future__ import annotations

from dataclasses import dataclass

from bayling.scale import Device
from bayling.shape import Shape
from bayling.train.activations import MASKED_UP_TO, Activations, Batch, element
from bayling.train.config import Offload, TrainConfig

# DeepSpeed's defaults, in elements; `deepspeed_config` leaves them as they are.
REDUCE_BUCKET = 500_000_000
PREFETCH_BUCKET = 50_000_000
LIVE_PARAMETERS = 1_000_000_000
SUB_GROUP = 1_000_000_000
PERSISTENT = 100_000
_SWAP_BUFFERS = 4
_PARAMETER_SWAP_BYTES = 5 * 100_000_000 * 2

GPU_PROCESS = int(1.3 * 2**30)
"""Bytes that torch's allocator does not count: the CUDA context, kernels, NCCL's for one worker.
1.28 GiB of an H200 in use beside torch's (driver 580, CUDA 13)."""
GPU_COMMUNICATION = int(0.4 * 2**30)
"""Bytes of NCCL's channels, on top, when there is more than one worker. An estimate."""
HOST_PROCESS = int(0.6 * 2**30)
"""Bytes of main memory of a CPU's worker: 547 MiB after importing torch, DeepSpeed, transformers,
Ray Train and MLflow, and what oneDNN and the threads add in the first step."""
HOST_PROCESS_GPU = int(1.5 * 2**30)
"""The same with CUDA's libraries, as far as they do not count as page cache. An estimate."""


@dataclass(frozen=True)
class Placement:
    """How ZeRO splits the model states, and what of them leaves the device."""

    zero_stage: int
    offload_optimizer: Offload = Offload.none
    offload_parameters: Offload = Offload.none


@dataclass(frozen=True)
class Memory:
    """Bytes of one worker at the moment `phase`, and bytes beside its device."""

    phase: str
    """load, forward, backward or step."""
    weights: int = 0
    """The network's own, and under ZeRO-3 those that are gathered at that moment."""
    gradients: int = 0
    optimizer: int = 0
    """fp32 copies of the weights, and Adam's two moments."""
    activations: int = 0
    """What the backward pass needs of the forward pass, and the logits."""
    buffers: int = 0
    """Reduction buckets, copies that live for as long as a step, and on a CPU the copy that
    checkpoints are written from."""
    process: int = 0
    """What the process takes before there is a tensor."""
    host: int = 0
    """Main memory of this worker at its own worst moment, with the copy that checkpoints are
    written from; on a CPU 0, as it is counted above."""
    disk: int = 0
    """Bytes of this worker on `train.nvme_path`."""

    @property
    def total(self) -> int:
        """All on the device, or in main memory where that is the device."""
        return (
            self.weights
            + self.gradients
            + self.optimizer
            + self.activations
            + self.buffers
            + self.process
        )


def trainable(train: TrainConfig, shape: Shape) -> int:
    """Parameters that have gradients: all, or the adapters'."""
    if train.lora.rank:
        return shape.adapters(train.lora.rank, train.lora.targets)
    return shape.parameters


def states(
    train: TrainConfig, shape: Shape, placement: Placement, workers: int
) -> tuple[int, int, int]:
    """Bytes of weights, gradients and optimizer states per worker, wherever they lie.

    ZeRO's model states alone: without activations, buffers and what is gathered for a while.
    """
    size, stage = element(train.precision), placement.zero_stage
    learnt = trainable(train, shape)
    frozen = shape.parameters - learnt if not train.lora.rank else shape.parameters
    whole = frozen + learnt
    weights = whole * size // (workers if stage == 3 else 1)
    gradients = learnt * size // (workers if stage >= 2 else 1)
    # A second, exact copy of what is trained: also of fp32 weights, which ZeRO clones all the same
    # (stage 3 means not to, but compares a device with its name). Without ZeRO torch's AdamW works
    # on the weights themselves.
    master = 0 if size == 4 and stage == 0 else 4
    optimizer = learnt * (master + 8) // (workers if stage >= 1 else 1)
    return weights, gradients, optimizer


def estimate(
    train: TrainConfig,
    shape: Shape,
    placement: Placement,
    batch: Batch,
    workers: int,
    device: Device,
) -> Memory:
    """What one worker takes at the moment that takes most."""
    return max(phases(train, shape, placement, batch, workers, device), key=lambda m: m.total)


def phases(
    train: TrainConfig,
    shape: Shape,
    placement: Placement,
    batch: Batch,
    workers: int,
    device: Device,
) -> list[Memory]:
    """What one worker takes when it loads, after forward, after backward and in the step."""
    return _Worker(train, shape, placement, batch, workers, device).phases()


class _Worker:
    """The arithmetic for one worker; all members are bytes unless they say otherwise."""

    def __init__(
        self,
        train: TrainConfig,
        shape: Shape,
        placement: Placement,
        batch: Batch,
        workers: int,
        device: Device,
    ) -> None:
        self.train, self.shape, self.placement, self.batch = train, shape, placement, batch
        self.workers, self.device = workers, device
        self.stage, self.size = placement.zero_stage, element(train.precision)
        self.half = self.size == 2
        self.cpu = device is Device.cpu
        self.learnt = trainable(train, shape)
        """Parameters, not bytes."""
        self.whole = shape.parameters + (self.learnt if train.lora.rank else 0)
        """Parameters, adapters included."""
        self.optimizer_away = not self.cpu and placement.offload_optimizer is not Offload.none
        self.parameters_away = not self.cpu and placement.offload_parameters is not Offload.none
        self.weights, self.gradients, self.optimizer = states(train, shape, placement, workers)
        self.owned = self.learnt / (workers if self.stage >= 1 else 1)
        """Parameters that this worker updates, not bytes."""
        largest = shape.largest
        if train.lora.rank:
            sizes = (shape.linears[name] for name in train.lora.targets)
            largest = train.lora.rank * max(max(pair) for pair in sizes)
        self.largest = largest * self.size
        """The largest gradient."""

    def phases(self) -> list[Memory]:
        exact = self.cpu and self.batch.length <= MASKED_UP_TO
        activations = Activations(self.train, self.shape, self.batch, exact)
        process = HOST_PROCESS if self.cpu else GPU_PROCESS
        if not self.cpu and self.workers > 1:
            process += GPU_COMMUNICATION
        always = {
            "process": process,
            "optimizer": 0 if self.optimizer_away else self.optimizer,
            "host": self._host(),
            "disk": self._disk(),
        }
        weights = 0 if self.parameters_away else self.weights
        earlier = self._accumulated() if self.batch.micro_steps > 1 else 0
        first = 0 if self.train.lora.rank else self.shape.head * self.size
        copy = self._checkpoint() if self.cpu else 0
        return [
            self._load(process),
            Memory(
                "forward",
                weights=weights + self._gathered(),
                gradients=earlier + (first if self.stage <= 1 else 0),
                activations=activations.peak,
                buffers=self._bucket(first) + copy,
                **always,
            ),
            Memory(
                "backward",
                weights=weights + self._gathered(),
                gradients=self._after_backward(earlier),
                buffers=self._bucket(self.learnt * self.size) + copy,
                **always,
            ),
            Memory(
                "step",
                weights=weights,
                gradients=0 if self.optimizer_away else self._accumulated(),
                buffers=self._step() + self._kept_bucket() + copy,
                **always,
            ),
        ]

    def _load(self, process: int) -> Memory:
        """The network as it is built, or read.

        What is read comes tensor by tensor from files that are mapped, whose pages the system can
        drop at any time. Under ZeRO-3 every worker keeps its part of each, and only rank 0 reads.
        """
        if self.cpu and not self.shape.stored:
            # Built in fp32. Rank 0 also writes the untrained model: a copy in half precision.
            return Memory("load", weights=4 * self.whole, buffers=2 * self.whole, process=process)
        weights, buffers = self.whole * self.size, 0
        if self.stage == 3 and self.shape.stored:
            weights, buffers = self.weights, self.shape.largest * self.size
            if self.parameters_away:
                weights = 0
        elif self.stage in (1, 2):
            # DeepSpeed copies what is trained into one flat tensor.
            buffers = self.learnt * self.size
        return Memory(
            "load",
            weights=weights,
            buffers=buffers,
            process=process,
            host=self._host(),
            disk=self._disk(),
        )

    def _checkpoint(self) -> int:
        """The copy of this worker's pieces that a checkpoint is written from, beside training: it
        stays from the first one on. Whatever the stage, workers write no piece twice."""
        return 12 * self.learnt // self.workers

    def _gathered(self) -> int:
        """Weights that ZeRO-3 has gathered for the modules around the one that computes."""
        if self.stage < 3 or (self.workers == 1 and not self.parameters_away):
            return 0  # a single worker's part is the whole: it is used where it lies
        live = min(self.whole, LIVE_PARAMETERS)
        fetching = min(self.whole, PREFETCH_BUCKET + self.shape.largest)
        return (live + fetching) * self.size

    def _bucket(self, filled: int) -> int:
        """The buffer that gradients are reduced in, once `filled` bytes of them were made.

        A GPU's is there in full; of a CPU's only those pages exist that were written to.
        """
        if self.stage == 0:
            if filled < self.learnt * self.size:
                return 0
            # Gradients are copied together for one all-reduce after the backward pass.
            return min(filled, REDUCE_BUCKET * self.size)
        full = REDUCE_BUCKET * self.size
        if self.stage == 1 and self.cpu:
            return 0  # its gradients are moved into the bucket, so they are counted once
        if self.stage == 3:
            # It stays for ever, so that all its pages exist after the first step. Beside it a
            # copy: of the bucket where it is reduced whole (CPU), or of what goes to its owners.
            kept = self._kept_bucket()
            return kept + (min(filled, full) if self.workers > 1 else 0)
        return min(filled, full) if self.cpu else full

    def _kept_bucket(self) -> int:
        """What is left of the bucket in the step: stage 3 keeps its for ever."""
        if self.stage < 3:
            return 0
        full = REDUCE_BUCKET * self.size
        return min(self.learnt * self.size, full) if self.cpu else full

    def _accumulated(self) -> int:
        """Gradients that are kept from one micro batch to the next."""
        if self.stage == 0 or (self.stage >= 2 and not self.optimizer_away):
            return self.gradients
        if self.optimizer_away:
            return 0
        return self.learnt * self.size

    def _after_backward(self, earlier: int) -> int:
        """Gradients when the last one has been made."""
        made = self.learnt * self.size
        if self.stage == 0:
            return made
        if self.stage == 1:
            return made + made // self.workers
        if self.stage == 2:
            part = 0 if self.optimizer_away else made // self.workers
            # The bucket is copied to the worker's own part once it is full or all is done. The
            # sum of the earlier micro batches stays until then; the embedding's gradient, which
            # comes last, lies beside the bucket for a moment.
            return earlier + max(part, self.largest)
        return earlier or (0 if self.optimizer_away else self.gradients)

    def _step(self) -> int:
        """Copies that the optimizer's step makes."""
        if self.optimizer_away:
            return 0
        if self.stage == 0:
            return 4 * self.learnt if self.half else 0
        group = min(self.owned, SUB_GROUP) if self.stage == 3 else self.owned
        # Flattened, then converted to fp32, all of a parameter group together.
        return int(group * (self.size + 4 if self.half else 4))

    def _host(self) -> int:
        """Main memory: the process, what was offloaded to it, and a checkpoint's copy.

        Weights are read, or drawn, on the device.
        """
        if self.cpu:
            return 0
        offloaded = 0.0
        if self.optimizer_away:
            # fp32 weights and moments and gradients, the half-precision copy that goes back to
            # the device, and the sum of the micro batches.
            kept = 4 + self.size + (self.size if self.batch.micro_steps > 1 else 0)
            if self.placement.offload_optimizer is Offload.nvme:
                offloaded += _SWAP_BUFFERS * 4 * min(self.owned, SUB_GROUP)
                offloaded += self.size * self.owned
            else:
                offloaded += (12 + kept - (self.size if self.stage == 3 else 0)) * self.owned
        if self.placement.offload_parameters is Offload.cpu:
            offloaded += self.weights
        elif self.placement.offload_parameters is Offload.nvme:
            offloaded += _PARAMETER_SWAP_BYTES
        return HOST_PROCESS_GPU + self._checkpoint() + int(offloaded)

    def _disk(self) -> int:
        """What NVMe offload writes."""
        if self.cpu:
            return 0
        used = 0.0
        if self.placement.offload_optimizer is Offload.nvme:
            used += 16 * self.owned
        if self.placement.offload_parameters is Offload.nvme:
            used += self.weights
        return int(used)
