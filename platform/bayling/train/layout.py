"""How training is laid out over the workers: ZeRO stage, offload and micro batch.

What the configuration sets is kept. For the rest the plan goes from what is fast to what is
small, and takes the first that fits. Imports neither torch nor DeepSpeed nor Ray: a plan for a
hundred GPUs is made on a laptop.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bayling import accelerators
from bayling.errors import UserError
from bayling.scale import Device, ScaleConfig
from bayling.shape import Shape
from bayling.train.activations import Batch
from bayling.train.config import Offload, Precision, TrainConfig
from bayling.train.memory import Memory, Placement, estimate

GIB = 2**30
USABLE = 0.9
"""The part of a device that is planned with. The rest is for what no plan sees: fragmentation,
and sequences with more supervised tokens than the average."""
USABLE_CPU = 0.65
"""The same for main memory. glibc keeps freed blocks below 32 MiB, so that a worker mostly
holds up to half as much again as its tensors (see bayling.train.allocator)."""
ENOUGH_TOKENS = 32_768
"""Tokens of a micro batch beyond which a GPU gets no faster: its matrix products are large."""


@dataclass(frozen=True)
class Layout:
    """What a run is started with, for one number of workers."""

    zero_stage: int
    offload_optimizer: Offload
    offload_parameters: Offload
    micro_batch: int
    micro_steps: int
    reasons: tuple[str, ...]
    """Why each was chosen, a sentence each; nothing about what the configuration set."""

    @staticmethod
    def of(raw: dict[str, Any]) -> Layout:
        """What `bayling.stage.write_json` wrote of one."""
        return Layout(
            raw["zero_stage"],
            Offload(raw["offload_optimizer"]),
            Offload(raw["offload_parameters"]),
            raw["micro_batch"],
            raw["micro_steps"],
            tuple(raw["reasons"]),
        )

    @property
    def placement(self) -> Placement:
        return Placement(self.zero_stage, self.offload_optimizer, self.offload_parameters)


@dataclass(frozen=True)
class Room:
    """Bytes there are."""

    device: int
    """For one worker, on its GPU, or its share of main memory."""
    node: int
    """Main memory of a node."""
    on_node: int
    """Workers of one node, not bytes."""


def choose(
    train: TrainConfig,
    shape: Shape,
    scale: ScaleConfig,
    sequence_length: int,
    workers: int,
    *,
    supervised: float = 1.0,
    free: int | None = None,
) -> Layout:
    """The layout for `workers` workers.

    ZeRO stage and offload are those that fit `scale.min_workers` where training is elastic, so
    that they stay when workers leave; the micro batch is as large as `workers` allow.

    Args:
        supervised: the part of the positions that have logits; 1 is the worst case.
        free: bytes of main memory to plan with on a CPU, for all workers of a node; None takes
            what this machine has. Workers must agree: measure once and hand it on.

    Raises:
        UserError: nothing fits; names what is short, by how much, and the ways out. Or the
            device cannot compute in `train.precision`.
    """
    _check_precision(train, scale)
    fewest = min(workers, scale.min_workers or workers)
    reasons: list[str] = []
    tightest: tuple[int, str] | None = None
    for place, why in _candidates(train, scale):
        room = room_for(scale, fewest, free)
        smallest = _batch(train, train.micro_batch or 1, sequence_length, fewest, supervised)
        lack = shortage(train, shape, place, smallest, fewest, scale.device, room)
        if lack is not None:
            if tightest is None or lack[0] < tightest[0]:
                tightest = lack
            continue
        if why:
            reasons.append(why)
        if fewest < workers:
            reasons.append(f"chosen so that it fits {fewest} workers too (scale.min_workers)")
        micro, reason = _micro_batch(
            train, shape, place, scale, sequence_length, workers, supervised, free
        )
        if reason:
            reasons.append(reason)
        return Layout(
            zero_stage=place.zero_stage,
            offload_optimizer=place.offload_optimizer,
            offload_parameters=place.offload_parameters,
            micro_batch=micro,
            micro_steps=_micro_steps(train, micro, workers),
            reasons=tuple(reasons),
        )
    assert tightest is not None  # there is always a candidate
    raise UserError(_refusal(tightest, train, scale, fewest, sequence_length))


def room_for(scale: ScaleConfig, workers: int, free: int | None = None) -> Room:
    """What each of `workers` workers may fill, with a margin."""
    if scale.device is Device.cpu:
        node = free if free is not None else free_memory()
        return Room(int(USABLE_CPU * node / workers), int(USABLE_CPU * node), workers)
    on_node = min(workers, scale.gpus_per_node)
    assert scale.gpu is not None  # ScaleConfig.validate says so
    device = accelerators.spec(scale.gpu).memory_gib * GIB
    node = int(scale.node_memory_gb * GIB) if scale.node_memory_gb else free_memory()
    return Room(int(USABLE * device), int(USABLE * node), on_node)


def shortage(
    train: TrainConfig,
    shape: Shape,
    place: Placement,
    batch: Batch,
    workers: int,
    device: Device,
    room: Room,
) -> tuple[int, str] | None:
    """How many bytes are short, and of what; None where it fits."""
    return lacking(estimate(train, shape, place, batch, workers, device), room)


def lacking(memory: Memory, room: Room) -> tuple[int, str] | None:
    """How many bytes `memory` is short of, and of what; None where it fits."""
    if memory.total > room.device:
        return memory.total - room.device, "device"
    if memory.host * room.on_node > room.node:
        return memory.host * room.on_node - room.node, "node"
    return None


def plan_memory(
    train: TrainConfig,
    shape: Shape,
    scale: ScaleConfig,
    place: Placement,
    sequence_length: int,
    workers: int,
    micro_batch: int,
    supervised: float = 1.0,
) -> Memory:
    """The memory of one worker under a placement and a micro batch."""
    batch = _batch(train, micro_batch, sequence_length, workers, supervised)
    return estimate(train, shape, place, batch, workers, scale.device)


def free_memory() -> int:
    """Bytes of main memory that new processes of this machine, or this container, can have."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        for line in Path("/proc/meminfo").read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                free = min(free, int(line.split()[1]) * 1024)
    except OSError:
        pass  # not Linux: all of it
    try:  # a container's limit (cgroup v2) less what is in use
        group = Path("/sys/fs/cgroup")
        limit = (group / "memory.max").read_text("ascii").strip()
        if limit.isdigit():
            used = int((group / "memory.current").read_text("ascii"))
            free = min(free, max(0, int(limit) - used))
    except OSError:
        pass
    return free


def notes(train: TrainConfig, scale: ScaleConfig) -> list[str]:
    """What one would not expect of this configuration on this device, a sentence each."""
    said = []
    if scale.device is Device.cpu:
        slow = not accelerators.cpu_multiplies_bf16()
        if train.precision is Precision.auto and slow:
            said.append("training in fp32: this CPU has no instructions for bf16")
        if train.precision is Precision.bf16 and slow:
            said.append(
                "train.precision=bf16 is several times slower than fp32 on this CPU, which has no "
                "instructions for it; train.precision=auto takes the faster one"
            )
        if train.liger:
            said.append("train.liger has no effect on a CPU: its kernels are for GPUs")
        for key in ("offload_optimizer", "offload_parameters"):
            value = getattr(train, key)
            if value not in (None, Offload.none):
                said.append(
                    f"train.{key}={value.value} has no effect on a CPU: all is in main memory"
                )
        if scale.gpu is not None:
            said.append(f"scale.gpu={scale.gpu} has no effect with scale.device=cpu")
        if train.precision is Precision.fp16:
            said.append(
                "train.precision=fp16 runs on CPUs with AVX512-FP16 only, DeepSpeed refuses "
                "others; bf16 runs on all"
            )
    both = math.lcm(train.checkpoint_every, train.heldout_every)
    measured = train.steps is None or train.steps > train.heldout_every
    if train.keep_best and measured and both > max(train.checkpoint_every, train.heldout_every):
        said.append(
            f"train.keep_best looks at the checkpoints of every {both} steps only, where the "
            "held-out loss is measured too: let one of train.checkpoint_every and "
            "train.heldout_every be a multiple of the other"
        )
    if scale.workers == 1 and train.zero_stage in (1, 2, 3):
        said.append(
            f"train.zero_stage={train.zero_stage} splits nothing among one worker, scale.workers=1"
        )
    return said


def _check_precision(train: TrainConfig, scale: ScaleConfig) -> None:
    if scale.device is Device.cuda and train.precision is Precision.bf16 and scale.gpu is not None:
        gpu = accelerators.spec(scale.gpu)
        if not gpu.bf16:
            raise UserError(
                f"a {scale.gpu} does not compute in bf16: set train.precision=fp16, or choose "
                "another scale.gpu"
            )


def _candidates(train: TrainConfig, scale: ScaleConfig) -> Iterator[tuple[Placement, str]]:
    """Placements that agree with what is set, from the fastest to the smallest, and why."""
    none, cpu = Offload.none, Offload.cpu
    if scale.device is Device.cpu:
        stages = (2, 3) if train.zero_stage is None else (train.zero_stage,)
        for stage in stages:
            why = "ZeRO-3: with stage 2 the weights do not fit" if stage == 3 else ""
            yield Placement(stage), why if train.zero_stage is None else ""
        return
    ladder = (
        (2, none, none, "ZeRO-2: all fits the GPU, and only gradients are exchanged"),
        (3, none, none, "ZeRO-3: the weights have to be split too"),
        (2, cpu, none, "the optimizer in main memory: its states do not fit the GPUs"),
        (3, cpu, none, "ZeRO-3 with the optimizer in main memory: neither alone is enough"),
        (3, cpu, cpu, "optimizer and weights in main memory: a GPU holds a layer at a time"),
    )
    seen = set()
    for stage, optimizer, parameters, why in ladder:
        place = Placement(
            stage if train.zero_stage is None else train.zero_stage,
            optimizer if train.offload_optimizer is None else train.offload_optimizer,
            parameters if train.offload_parameters is None else train.offload_parameters,
        )
        if _possible(place) and place not in seen:
            seen.add(place)
            chosen = place == Placement(stage, optimizer, parameters)
            free = None in (train.zero_stage, train.offload_optimizer, train.offload_parameters)
            yield place, why if chosen and free else ""


def _possible(place: Placement) -> bool:
    """Whether DeepSpeed has it; the same rules as `TrainConfig.validate`."""
    away = place.offload_optimizer is not Offload.none
    if place.offload_parameters is not Offload.none and place.zero_stage != 3:
        return False
    if place.offload_optimizer is Offload.nvme and place.zero_stage != 3:
        return False
    return not (away and place.zero_stage == 0)


def _batch(
    train: TrainConfig, micro_batch: int, length: int, workers: int, supervised: float
) -> Batch:
    return Batch(micro_batch, length, _micro_steps(train, micro_batch, workers), supervised)


def _micro_steps(train: TrainConfig, micro_batch: int, workers: int) -> int:
    return math.ceil(math.ceil(train.global_batch / workers) / micro_batch)


def _micro_batch(
    train: TrainConfig,
    shape: Shape,
    place: Placement,
    scale: ScaleConfig,
    length: int,
    workers: int,
    supervised: float,
    free: int | None,
) -> tuple[int, str]:
    """The largest micro batch that fits, and why it is no larger."""
    if train.micro_batch is not None:
        return train.micro_batch, ""
    share = math.ceil(train.global_batch / workers)
    most = share
    if scale.device is Device.cuda:
        most = min(share, max(1, ENOUGH_TOKENS // length))
    room = room_for(scale, workers, free)

    def fits(micro: int) -> bool:
        batch = _batch(train, micro, length, workers, supervised)
        return shortage(train, shape, place, batch, workers, scale.device, room) is None

    # What fits is a prefix: a larger micro batch never takes less.
    low, high = 1, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    # As many micro steps as that takes, all of the same size.
    even = math.ceil(share / math.ceil(share / low))
    if low == share:
        return even, f"micro batch {even}: a worker's whole share of the global batch"
    if low == most:
        return even, f"micro batch {even}: {ENOUGH_TOKENS:,} tokens keep a GPU busy"
    return even, f"micro batch {even}: the most that fits is {low}"


def _refusal(
    lack: tuple[int, str], train: TrainConfig, scale: ScaleConfig, workers: int, length: int
) -> str:
    """One sentence: what is short, by how much, and the ways out that are left."""
    short, where = lack
    ways = []
    on_gpu = scale.device is Device.cuda
    if where == "node":
        what = f"{short / GIB:.1f} GiB of a node's main memory are short for offload"
        ways.append("nodes with more memory (scale.node_memory_gb)")
        if train.offload_optimizer is not Offload.nvme:
            ways.append("train.zero_stage=3 train.offload_optimizer=nvme train.nvme_path=FOLDER")
    else:
        kind = f"a {scale.gpu}" if on_gpu else "this machine's free memory"
        what = f"{short / GIB:.1f} GiB a worker are short on {kind}"
    ways.append(f"more workers than {workers} (scale.workers)" if on_gpu else "a GPU (scale=gpu)")
    if on_gpu and where == "device":
        ways.append("a larger GPU (scale.gpu)")
    if not train.lora.rank:
        ways.append("adapters instead of all weights (train=lora)")
    if not train.gradient_checkpointing:
        ways.append("train.gradient_checkpointing=true")
    if where == "device":
        if train.micro_batch is not None and train.micro_batch > 1:
            ways.append(f"a smaller train.micro_batch than {train.micro_batch}")
        ways.append(f"a shorter data.sequence_length than {length}")
        if train.zero_stage is not None and train.zero_stage < 3:
            ways.append("train.zero_stage=3")
        if on_gpu and train.offload_optimizer is Offload.none:
            ways.append("train.offload_optimizer=cpu")
    return f"the model does not fit: {what}; the ways out are {'; '.join(ways)}"
