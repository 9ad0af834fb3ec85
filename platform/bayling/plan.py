"""What a training run will take: memory, time, money, disk, and what it asks of the cluster.

Needs no Ray, no GPU and no weights; runs nothing. Memory and layout are `bayling.train`'s own, so
a run is started as it was planned.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from bayling import accelerators
from bayling.config import Config
from bayling.corpus import Corpus, corpus
from bayling.errors import UserError
from bayling.scale import Device, ScaleConfig
from bayling.shape import Shape
from bayling.train import flops, layout
from bayling.train.config import Offload, Precision, TrainConfig
from bayling.train.layout import GIB, Layout
from bayling.train.memory import Memory, Placement, trainable
from bayling.train.precision import settled

_RAYLET = 2 * GIB
"""Main memory of a pod for Ray itself and the page cache of what is read."""
_SHARED = 2 * GIB
"""/dev/shm for NCCL's and torch's own segments, beside Ray's object store."""

PLACEMENTS = (
    Placement(0),
    Placement(1),
    Placement(2),
    Placement(3),
    Placement(2, Offload.cpu),
    Placement(3, Offload.cpu),
    Placement(3, Offload.cpu, Offload.cpu),
    Placement(3, Offload.nvme, Offload.nvme),
)
"""What a plan compares, beside the one that was picked."""


@dataclass(frozen=True)
class Row:
    """One way to place the model states, with the run's micro batch."""

    placement: Placement
    memory: Memory
    picked: bool
    short: int
    """Bytes that are missing; 0 where it fits."""
    short_of: str
    """device or node; empty where it fits."""


@dataclass(frozen=True)
class Pods:
    """What is asked of Kubernetes for one kind of pod."""

    name: str
    count: int
    cpu: int
    memory: int
    """Bytes."""
    gpu: int
    """nvidia.com/gpu"""
    shared_memory: int
    """Bytes of /dev/shm: an emptyDir with `medium: Memory`; they count as the pod's memory."""


@dataclass(frozen=True)
class Run:
    """The plan for one number of workers."""

    workers: int
    micro_batch: int
    micro_steps: int
    memory: Memory
    hours: float | None
    """None where the device's speed in this precision is not known."""
    gpu_hours: float | None
    """On a CPU, hours of a worker."""
    price: float | None
    pods: tuple[Pods, ...]


@dataclass(frozen=True)
class Plan:
    """All figures; bytes and numbers, units in the names where they are others."""

    name: str
    model: str
    scale: str
    device: str
    shape: Shape
    parameters: int
    parameters_by_part: dict[str, int]
    trainable: int
    layout: Layout
    rows: tuple[Row, ...]
    device_bytes: int
    """What a worker may fill: with a margin."""
    corpus: Corpus
    steps: int
    epochs: float
    tokens_per_step: int
    tokens: int
    """That are trained on, repetitions included."""
    flops_per_token: float
    peak_flops: float | None
    """FLOP/s of one worker."""
    expected_mfu: float
    runs: tuple[Run, ...]
    """For `scale.workers`, and for `scale.min_workers` where training is elastic."""
    checkpoint_bytes: int
    checkpoints: int
    """Kept at a time, at most, with the one that is being written."""
    export_bytes: int
    disk_bytes: int
    notes: tuple[str, ...]


def make(config: Config) -> Plan:
    """The plan for a configuration.

    Raises:
        UserError: nothing fits, or the base's folder cannot be used; with the way out.
    """
    scale, length = config.scale, config.data.sequence_length
    train = settled(config.train, scale)
    shape = Shape.of(config.model)
    data = corpus(config)
    free = layout.free_memory()
    chosen = {
        workers: layout.choose(
            train, shape, scale, length, workers, supervised=data.supervised, free=free
        )
        for workers in dict.fromkeys((scale.workers, scale.min_workers or scale.workers))
    }
    first = chosen[scale.workers]
    steps = train.steps or max(1, round(train.epochs * data.sequences / train.global_batch))
    per_step = round(train.global_batch * length * data.fill)
    learnt = trainable(train, shape)
    per_token = flops.per_token(
        shape.parameters + (learnt if train.lora.rank else 0),
        shape.layers,
        shape.attention,
        length,
        frozen=shape.parameters if train.lora.rank else 0,
    )
    peak = _peak(train, scale)
    # Whatever the stage and the precision: fp32 weights and both moments of what is trained.
    checkpoint = 12 * learnt
    kept = train.keep_checkpoints + train.keep_best + 1
    # Without a base the untrained model is exported too, to be compared with.
    export = 2 * shape.parameters
    exports = export * (1 if config.model.base else 2)
    return Plan(
        name=config.name,
        model=config.model.name,
        scale=scale.name,
        device=scale.gpu if scale.device is Device.cuda and scale.gpu else "CPU",
        shape=shape,
        parameters=shape.parameters,
        parameters_by_part={
            "embedding": shape.embedding,
            "head": shape.head,
            "layers": shape.layers * shape.per_layer,
            "norms": shape.norms,
            "adapters": learnt if train.lora.rank else 0,
        },
        trainable=learnt,
        layout=first,
        rows=_rows(train, shape, scale, length, first, data.supervised, free),
        device_bytes=layout.room_for(scale, scale.workers, free).device,
        corpus=data,
        steps=steps,
        epochs=steps * train.global_batch / data.sequences,
        tokens_per_step=per_step,
        tokens=steps * per_step,
        flops_per_token=per_token,
        peak_flops=peak,
        expected_mfu=scale.expected_mfu,
        runs=tuple(
            _run(config, shape, workers, made, data, steps * per_step * per_token, peak)
            for workers, made in chosen.items()
        ),
        checkpoint_bytes=checkpoint,
        checkpoints=kept,
        export_bytes=export,
        disk_bytes=kept * checkpoint + exports,
        notes=(*layout.notes(config.train, scale), *_notes(train, scale)),
    )


def _run(
    config: Config,
    shape: Shape,
    workers: int,
    made: Layout,
    data: Corpus,
    operations: float,
    peak: float | None,
) -> Run:
    train, scale = settled(config.train, config.scale), config.scale
    memory = layout.plan_memory(
        train,
        shape,
        scale,
        made.placement,
        config.data.sequence_length,
        workers,
        made.micro_batch,
        data.supervised,
    )
    hours = operations / (workers * peak * scale.expected_mfu) / 3600 if peak else None
    gpu_hours = hours * workers if hours is not None else None
    cost = scale.price_per_gpu_hour
    priced = gpu_hours is not None and cost is not None and scale.device is Device.cuda
    return Run(
        workers=workers,
        micro_batch=made.micro_batch,
        micro_steps=made.micro_steps,
        memory=memory,
        hours=hours,
        gpu_hours=gpu_hours,
        price=gpu_hours * cost if priced and gpu_hours is not None and cost is not None else None,
        pods=_pods(scale, workers, memory),
    )


def _rows(
    train: TrainConfig,
    shape: Shape,
    scale: ScaleConfig,
    length: int,
    made: Layout,
    supervised: float,
    free: int,
) -> tuple[Row, ...]:
    """Every placement with the micro batch that was picked."""
    cpu = scale.device is Device.cpu
    placements = [
        place for place in PLACEMENTS if not cpu or place.offload_optimizer is Offload.none
    ]
    if made.placement not in placements:
        placements.append(made.placement)
    room = layout.room_for(scale, scale.workers, free)
    rows = []
    for place in placements:
        memory = layout.plan_memory(
            train, shape, scale, place, length, scale.workers, made.micro_batch, supervised
        )
        lack = layout.lacking(memory, room)
        rows.append(
            Row(place, memory, place == made.placement, *(lack if lack is not None else (0, "")))
        )
    return tuple(rows)


def _pods(scale: ScaleConfig, workers: int, memory: Memory) -> tuple[Pods, ...]:
    """The head, and a pod a node: workers of one node share memory and /dev/shm."""
    store = scale.object_store_mb * 2**20
    gpu = scale.device is Device.cuda
    on_node = min(workers, scale.workers_per_pod)
    # A CPU's worker is in `total`; a GPU's has `host` beside the device.
    each = memory.host if gpu else memory.total
    shared = store + (_SHARED if gpu else 0)
    head = Pods("head", 1, 2, 4 * GIB + store, 0, store)
    return head, Pods(
        "worker",
        math.ceil(workers / on_node),
        on_node * scale.cpus_per_worker + 1,  # one for Ray itself
        math.ceil(on_node * each / layout.USABLE) + _RAYLET + shared,
        on_node if gpu else 0,
        shared,
    )


def _peak(train: TrainConfig, scale: ScaleConfig) -> float | None:
    """FLOP/s of one worker; None where no data sheet says it."""
    if scale.device is Device.cuda:
        assert scale.gpu is not None  # ScaleConfig.validate says so
        if train.precision is Precision.fp32:
            return None  # the table has half precision
        return accelerators.spec(scale.gpu).bf16_tflops * 1e12
    try:
        import torch
    except ImportError:
        raise UserError(
            "planning for a CPU measures its speed with torch: pip install "
            "'bayling-platform[stages]', or plan with scale=gpu"
        ) from None
    before = torch.get_num_threads()
    torch.set_num_threads(scale.cpus_per_worker)
    dtype = torch.float32 if train.precision is Precision.fp32 else torch.bfloat16
    try:
        return flops.peak(torch.device("cpu"), dtype)
    finally:
        torch.set_num_threads(before)


def _notes(train: TrainConfig, scale: ScaleConfig) -> list[str]:
    said = []
    if scale.price_per_gpu_hour is not None and scale.device is Device.cpu:
        said.append("scale.price_per_gpu_hour has no effect with scale.device=cpu")
    if scale.device is Device.cuda and train.precision is Precision.fp32:
        said.append("no hours: the peaks of GPUs are known in half precision, not in fp32")
    if train.gradient_checkpointing:
        said.append(
            "gradient checkpointing computes a third more than is counted in MFU: "
            "scale.expected_mfu should be lower with it"
        )
    return said
