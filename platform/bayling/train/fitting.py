"""How an attempt to train fits its devices: its layout, and what follows when it does not fit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import torch

from bayling.accelerators import spec
from bayling.errors import UserError
from bayling.scale import ScaleConfig
from bayling.shape import Shape
from bayling.stage import fingerprint, read_json, write_json
from bayling.train import events, layout
from bayling.train.batches import PackedTokens
from bayling.train.failures import OutOfMemory, TooLarge
from bayling.train.layout import Layout
from bayling.train.settings import Settings

LAYOUTS, MICRO_BATCH = "layouts.json", "micro-batch.json"
"""Below the stage's folder."""
_WAYS_OUT = (
    "the ways out are train.zero_stage=3, train.offload_optimizer=cpu (on GPUs), "
    "train.gradient_checkpointing=true, train=lora, more workers or larger devices"
)


def agreed_layout(settings: Settings, packed: PackedTokens, rank: int, workers: int) -> Layout:
    """The layout of all workers. Every worker must call it, in a Ray Train worker group.

    That of an earlier attempt in the same circumstances, where there was one: a new one depends
    on the memory that is free just now, and a run that goes on is to compute as it did.

    Raises:
        UserError: nothing fits.
    """
    from ray.train.collective import broadcast_from_rank_zero

    mine: Layout | UserError | None = None
    if rank == 0:
        try:
            mine = layout_for(settings, packed, workers)
        except UserError as error:  # the others must not wait for an answer
            mine = error
    agreed: Layout | UserError = broadcast_from_rank_zero(mine)
    if isinstance(agreed, UserError):
        raise agreed
    return agreed


def layout_for(settings: Settings, packed: PackedTokens, workers: int) -> Layout:
    """The layout that the run's folder remembers, or a new one, which it remembers from now on.

    Raises:
        UserError: nothing fits.
    """
    train, path = settings.train, settings.folder / LAYOUTS
    limit = read_json(settings.folder / MICRO_BATCH, None)
    if limit and train.micro_batch is None:
        train = replace(train, micro_batch=limit)
    scale = settings.scale
    circumstances = fingerprint(
        [train.zero_stage, train.offload_optimizer, train.offload_parameters, train.micro_batch],
        [train.gradient_checkpointing, train.precision],
        [scale.device, scale.gpu, scale.gpus_per_node, scale.node_memory_gb, scale.min_workers],
        workers,
    )
    known = read_json(path, {})
    if circumstances in known:
        return Layout.of(known[circumstances])
    made = layout.choose(
        train,
        Shape.of(settings.model),
        scale,
        packed.sequence_length,
        workers,
        supervised=packed.supervised_share,
    )
    with suppress(OSError):  # a full disk: it is found again, or chosen anew
        write_json(path, {**known, circumstances: made})
    return made


def is_out_of_memory(error: BaseException) -> bool:
    """Of a GPU, or of main memory where the system refuses more (a limit on the process)."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return "can't allocate memory" in str(error)


@contextmanager
def explained_while_loading() -> Iterator[None]:
    """Turn a lack of memory into a sentence: a smaller micro batch would not help.

    Raises:
        UserError: the model does not fit.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"out of memory while the model was loaded ({_reason(error)}): {_WAYS_OUT}"
        ) from None


def smaller(settings: Settings, there: Layout, error: BaseException, begun: bool) -> Exception:
    """Write down that the next attempt takes half the micro batch; the exception to end with.

    Args:
        begun: whether this attempt did a step. If not, the next would end like it.
    """
    micro, at_will = there.micro_batch, settings.train.micro_batch is None
    what = f"out of memory with a micro batch of {micro} ({_reason(error)})"
    if at_will and micro > 1:
        write_json(settings.folder / MICRO_BATCH, micro // 2)
        events.record(settings.folder, f"{what}: {micro // 2} now")
        return TooLarge(what)
    if micro > 1:
        text = f"{what}: set a smaller train.micro_batch, or none, and it is found"
    else:
        text = f"{what}: {_WAYS_OUT}, or a shorter data.sequence_length"
    return OutOfMemory(text) if begun else UserError(text)


def check_gpu(scale: ScaleConfig) -> None:
    """Refuse a GPU that is smaller than the one that was planned with.

    Raises:
        UserError: names both.
    """
    if scale.gpu is None or not torch.cuda.is_available():
        return
    there = torch.cuda.get_device_properties(torch.cuda.current_device())
    if there.total_memory < 0.95 * spec(scale.gpu).memory_gib * 2**30:
        raise UserError(
            f"scale.gpu={scale.gpu}, but a worker has a {there.name} with "
            f"{there.total_memory / 2**30:.0f} GiB: set scale.gpu to what there is"
        )


def _reason(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].strip() if lines else type(error).__name__
