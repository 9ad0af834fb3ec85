"""What the workers of a gang do in the trainer's tests."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from bayling.model import ModelConfig
from bayling.model_folder import load_chat
from bayling.scale import Device, ScaleConfig
from bayling.shape import Shape
from bayling.train import allocator, layout, network, state
from bayling.train.batches import PackedTokens
from bayling.train.checkpoint import Progress, complete
from bayling.train.config import Offload, Precision, TrainConfig
from bayling.train.guard import Guard
from bayling.train.precision import settled
from bayling.train.trainer import Trainer, tell_transformers
from bayling.train.writer import Writer


def make(train: TrainConfig, model: ModelConfig, folder: Path, steps: int) -> Trainer:
    """A trainer on the packed tokens and the tokenizer below `folder`."""
    gc.collect()  # the scene before: a network's form hangs on whether ZeRO-3 is at work
    gc.freeze()  # what stays need not be looked at again: it takes longer than a scene
    train = settled(train, ScaleConfig())
    packed = PackedTokens(folder / "packed")
    chosen = layout.choose(
        train,
        Shape.of(model),
        ScaleConfig(),
        packed.sequence_length,
        dist.get_world_size(),
        free=2**36,  # whatever else this machine does
    )
    none = Offload.none
    # On a CPU a run has no use for offload; DeepSpeed does it all the same, as it would on a GPU.
    chosen = replace(
        chosen,
        offload_optimizer=train.offload_optimizer or none,
        offload_parameters=train.offload_parameters or none,
    )
    chat = load_chat(folder / "tokenizer", model.template.value)
    return Trainer(
        train, model, chosen, chat, packed, seed=1, steps=steps, device=torch.device("cpu")
    )


def train(
    config: TrainConfig,
    model: ModelConfig,
    folder: Path,
    steps: int,
    *,
    resume: Path | None = None,
    save: dict[int, Path] | None = None,
    stop: int | None = None,
    heldout_every: int | None = None,
) -> dict[str, Any]:
    """Train from the start or from the newest checkpoint in `resume` up to step `stop` or `steps`.

    Returns losses, norms and rates by step, the weights and the held-out loss.
    """
    trainer = make(config, model, folder, steps)
    step = 0
    if resume is not None:
        found = complete(resume)[0]
        step = found.progress.step
        trainer.restore(found.read, found.progress.applied, found.progress.scaler)
    heldout = PackedTokens(_heldout(folder))
    losses, norms, rates, by_group = {}, {}, {}, {}
    while step < (stop or steps):
        outcome = trainer.step(step)
        assert outcome.applied, outcome.trouble
        step += 1
        losses[step], norms[step] = outcome.losses.mean, outcome.norm
        rates[step] = outcome.rate
        by_group[step] = outcome.losses.by_group.numpy()
        if save and step in save:
            write(trainer, save[step], step, config)
        if heldout_every and step % heldout_every == 0:
            trainer.heldout(heldout)
    return {
        "losses": losses,
        "norms": norms,
        "rates": rates,
        "by_group": by_group,
        "weights": weights(trainer),
        "heldout": trainer.heldout(heldout).mean,
        "micro_steps": trainer.layout.micro_steps,
    }


def _heldout(folder: Path) -> Path:
    """Beside the packed tokens: where a test put it, or the data stage."""
    return next(
        path
        for path in (folder / "heldout-packed", folder / "heldout")
        if (path / "groups.json").exists()
    )


def bad_step(
    config: TrainConfig,
    model: ModelConfig,
    folder: Path,
    bad: int,
    prepare: Callable[[Trainer], None] | None = None,
) -> dict[str, Any]:
    """Take a good step, step `bad` and another good one; returns what came of each of them."""
    trainer = make(config, model, folder, 50)
    good = [step for step in range(50) if step != bad][:3]
    trainer.step(good[0])
    trainer.step(good[1])
    before = weights(trainer)
    if prepare is not None:
        prepare(trainer)
    outcome = trainer.step(bad)
    after = weights(trainer)
    trainer.guard = Guard(config.spike_factor)
    following = trainer.step(good[2])
    return {
        "outcome": outcome,
        "before": before,
        "after": after,
        "following": following,
        "at_the_end": weights(trainer),
    }


def skipping(config: TrainConfig, model: ModelConfig, folder: Path, root: Path) -> dict[str, Any]:
    """Leave a step out, save after the next one, and take another: at once, and resumed."""
    trainer = make(config, model, folder, 50)
    trainer.step(0)
    expect_less(trainer)
    assert not trainer.step(1).applied
    trainer.guard = Guard(config.spike_factor)
    trainer.step(2)
    write(trainer, root, 3, config)
    trainer.step(3)
    whole = weights(trainer)
    found = complete(root)[0]
    applied = found.progress.applied
    assert applied is not None
    again = make(config, model, folder, 50)
    again.restore(found.read, applied, found.progress.scaler)
    again.step(3)
    return {"applied": applied, "whole": whole, "resumed": weights(again)}


def loading(model: ModelConfig, tokenizer: Path, stage: int) -> list[int]:
    """How many bytes each worker's own memory grew by while the network was read, at most.

    Pages of mapped files do not count: the system drops them when it needs the room.
    """
    gc.collect()
    allocator.give_back()  # what is freed is not to be counted, nor to be used again unseen
    chat = load_chat(tokenizer, model.template.value)
    train = settled(TrainConfig(zero_stage=stage, precision=Precision.fp32), ScaleConfig())
    chosen = layout.Layout(stage, Offload.none, Offload.none, 1, 1, ())
    keep = tell_transformers(train, chosen, Device.cpu)
    before, peak, done = _own_bytes(), [0], threading.Event()

    def look() -> None:
        while not done.wait(0.001):
            peak[0] = max(peak[0], _own_bytes())

    thread = threading.Thread(target=look)
    thread.start()
    made = network.build(model, chat.tokenizer, 1, list(chat.stop_ids), device=torch.device("cpu"))
    done.set()
    thread.join()
    assert made is not None and (stage < 3) == (keep is None)
    grown: list[int] = [0] * dist.get_world_size()
    dist.all_gather_object(grown, max(peak[0], _own_bytes()) - before)
    return grown


def _own_bytes() -> int:
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssAnon: is this Linux?")


def expect_less(trainer: Trainer) -> None:
    """Make any loss a spike."""
    trainer.guard = Guard(trainer.train.spike_factor, [1e-3] * 20)


def signals(config: TrainConfig, model: ModelConfig, folder: Path) -> list[float]:
    """What a step says of numbers that every worker passes to it."""
    trainer = make(config, model, folder, 10)
    return trainer.step(0, [1.0, float(trainer.rank)]).signals


def write(trainer: Trainer, root: Path, step: int, config: TrainConfig) -> None:
    """Write a checkpoint to its end."""
    made = Writer(
        root,
        rank=trainer.rank,
        workers=trainer.workers,
        attempt="test",
        newest=config.keep_checkpoints,
        best=config.keep_best,
    )
    progress = Progress(
        step,
        trainer.workers,
        "test",
        state.shapes(trainer.engine),
        scaler=trainer.scaler(),
        applied=trainer.applied,
    )
    made.save(trainer.pieces(), progress)
    made.wait()
    assert made.failure is None, made.failure
    dist.barrier()


def weights(trainer: Trainer) -> dict[str, np.ndarray]:
    """Every weight that the network computes with."""
    return {name: tensor.float().numpy() for name, tensor in state.whole_weights(trainer.engine)}
