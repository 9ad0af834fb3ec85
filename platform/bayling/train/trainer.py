"""The trainer without a cluster: model, batches, one optimizer step, held-out loss, state.

Every worker of a run has one, over an initialised `torch.distributed`. Imports without Ray, so
that benchmarks run the very step that training runs.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from bayling.errors import UserError
from bayling.model import ModelConfig
from bayling.scale import Device
from bayling.templates import ChatFormat
from bayling.train import adapters, attention, network, setup, state
from bayling.train.batches import Order, PackedTokens, deal
from bayling.train.config import OnBadStep, Precision, TrainConfig
from bayling.train.guard import Guard
from bayling.train.layout import Layout
from bayling.train.schedule import learning_rate


@dataclass(frozen=True)
class Losses:
    """Sums over supervised tokens, over all workers."""

    total: float
    supervised: int
    by_group: torch.Tensor
    """Loss and number of tokens by group of conversations, (2, groups), float64."""

    @property
    def mean(self) -> float:
        return self.total / max(1, self.supervised)

    def means(self, names: Sequence[str]) -> dict[str, float]:
        """The mean loss of every group that had tokens, by its name."""
        loss, count = self.by_group.tolist()
        return {n: value / c for n, value, c in zip(names, loss, count, strict=True) if c}


@dataclass(frozen=True)
class Outcome:
    """What came of one optimizer step; the same on every worker."""

    losses: Losses
    tokens: int
    """Tokens of the batch that are not padding."""
    rate: float
    norm: float
    """Of the gradient before it was clipped."""
    applied: bool
    """Whether the weights changed."""
    trouble: str | None
    """What is wrong with the step; None where nothing is."""
    signals: list[float]
    """The sums over all workers of the numbers that each passed to `step`."""


class Trainer:
    """One worker's model, optimizer and batches."""

    def __init__(
        self,
        train: TrainConfig,
        model: ModelConfig,
        layout: Layout,
        chat: ChatFormat,
        packed: PackedTokens,
        *,
        seed: int,
        steps: int,
        device: torch.device,
    ) -> None:
        self.train, self.layout, self.packed = train, layout, packed
        self.seed, self.steps, self.device = seed, steps, device
        self.rank, self.workers = dist.get_rank(), dist.get_world_size()
        self.order = Order(len(packed), train.global_batch, seed)
        self.guard = Guard(train.spike_factor)
        # Losses and signals are a few numbers a step: they must not wait in the queue of a GPU.
        self._control = dist.new_group(backend="gloo") if device.type == "cuda" else None
        kind = Device.cuda if device.type == "cuda" else Device.cpu
        self._keep = tell_transformers(train, layout, kind)
        dtype = setup.DTYPES[train.precision]
        self.model = network.build(
            model,
            chat.tokenizer,
            seed,
            list(chat.stop_ids),
            dtype=dtype,
            implementation=attention.choose(device, dtype, packed.sequence_length),
            device=device,
        )
        if train.lora.rank:
            torch.manual_seed(seed)
            adapters.insert(self.model, train.lora)
        if train.liger is not False and device.type == "cuda":
            _use_liger(self.model, wanted=train.liger is True)
        self.parameters = network.parameter_count(self.model)
        self.module = network.PackedLoss(self.model, len(packed.groups))
        self.engine = setup.engine(train, self.module, layout, kind)
        state.start(self.engine)
        self._clipped_by_hand = train.precision is Precision.fp32 and not layout.zero_stage
        if self._clipped_by_hand:
            self.engine.clip_fp32_gradients = self._clip
        self.applied = 0
        """Steps that changed the weights."""
        self._norm = 0.0
        self._shared: _Shared | None = None
        self._trouble: str | None = None
        # Of the trained parameters the first is the last to get its gradient. Weak: torch keeps a
        # parameter's hooks where no garbage collector finds them.
        judge = weakref.WeakMethod(self._judge)
        first = next(p for p in self.module.parameters() if p.requires_grad)
        first.register_hook(lambda gradient: judge()(gradient))  # type: ignore[no-untyped-call,misc]

    def step(self, index: int, signals: Sequence[float] = ()) -> Outcome:
        """Take optimizer step `index` (from 0). Every worker must call it.

        Args:
            signals: numbers to be added up over the workers, as many on each.

        A step whose loss is no number is not applied, nor is one that jumps, unless such steps
        are only reported.
        """
        sequences = self.order.step(index)
        supervised = int(self.packed.supervised[sequences].sum())
        rate = learning_rate(index, self.steps, self.train)
        for group in self.engine.optimizer.param_groups:
            group["lr"] = rate
        micro = deal(sequences, self.layout.micro_batch, self.rank, self.workers)
        # DeepSpeed divides by the accumulation steps and averages over the workers. What is
        # wanted is the sum over the whole batch divided by its supervised tokens.
        scale = len(micro) * self.workers / max(1, supervised)
        mine = torch.zeros(2, self.module.groups, device=self.device)
        for place, part in enumerate(micro):
            self._seed_dropout(index, place)
            # An empty share still takes part in the collectives, with a loss of nothing.
            loss = self.engine(**self._batch(part if len(part) else sequences[:1]))
            if len(part):
                mine += self.module.by_group
            else:
                loss = loss * 0.0
            if place == len(micro) - 1:
                self._shared = _Shared(mine, signals, self._control, self.workers)
            self.engine.backward(loss * scale)
            self.engine.step()
        shared, self._shared = self._shared, None
        assert shared is not None and shared.judged
        (losses, heard), trouble = shared.arrived(), self._trouble
        applied = self._applied()
        if not applied and trouble is None and self.train.precision is not Precision.fp16:
            trouble = "the gradient is not finite"
        if applied:
            self.applied += 1
            self.guard.accept(losses.mean)
        norm = self._norm if self._clipped_by_hand else self.engine.get_global_grad_norm()
        return Outcome(
            losses,
            int(self.packed.lengths[sequences].sum()),
            rate,
            float(norm or 0.0),
            applied,
            trouble,
            heard,
        )

    def heldout(
        self, packed: PackedTokens, after_each: Callable[[], None] = lambda: None
    ) -> Losses:
        """The loss on other packed conversations. Every worker must call it.

        Args:
            after_each: called after every micro batch, as a sign of life.
        """
        everything = np.arange(len(packed))
        rows = self.layout.micro_batch * self.workers
        mine = torch.zeros(2, self.module.groups, device=self.device)
        self.engine.eval()
        with torch.no_grad():
            for first in range(0, len(packed), rows):
                part = everything[first : first + rows][self.rank :: self.workers]
                self.engine(**self._batch(part if len(part) else everything[:1], packed))
                if len(part):
                    mine += self.module.by_group
                after_each()
        self.engine.train()
        return _Shared(mine, (), self._control, self.workers).arrived()[0]

    def pieces(self) -> Iterator[state.Piece]:
        """This worker's part of the training state."""
        return state.pieces(self.engine)

    def restore(self, read: state.Read, applied: int, scaler: dict[str, float]) -> None:
        """Go on from a state after `applied` steps that changed the weights. Every worker must
        call it."""
        self.applied = applied
        state.restore(self.engine, read, applied)
        own = getattr(self.engine.optimizer, "loss_scaler", None)
        for key, value in scaler.items():
            setattr(own, key, value)

    def scaler(self) -> dict[str, float]:
        """The state of fp16's dynamic loss scale; nothing in other precisions."""
        if self.train.precision is not Precision.fp16:
            return {}
        own = vars(self.engine.optimizer.loss_scaler)
        return {key: value for key, value in own.items() if isinstance(value, int | float)}

    def _batch(
        self, sequences: np.ndarray, packed: PackedTokens | None = None
    ) -> dict[str, torch.Tensor]:
        batch = (packed or self.packed).batch(sequences)
        return {name: tensor.to(self.device) for name, tensor in batch.items()}

    def _judge(self, gradient: torch.Tensor) -> torch.Tensor | None:
        """The hook of the last gradient of a backward pass: spoils it where the step is bad.

        By now the losses of all workers have arrived, which was not waited for before: workers
        meet once a step. A gradient that is no number is what DeepSpeed leaves a step out for.
        """
        if self._shared is None:
            return None  # more micro batches follow
        self._shared.judged = True
        mean = self._shared.arrived()[0].mean
        self._trouble = self.guard.judge(mean)
        if self._trouble is None or self._applied_all_the_same(mean):
            return None
        return gradient * float("nan")

    def _applied_all_the_same(self, loss: float) -> bool:
        return self.train.on_bad_step is OnBadStep.report and np.isfinite(loss)

    def _applied(self) -> bool:
        if self._clipped_by_hand:
            return bool(np.isfinite(self._norm))
        return bool(self.engine.was_step_applied())

    def _clip(self) -> None:
        """In DeepSpeed's place where no ZeRO stage does it: clip, or leave the step out."""
        trained = [p for p in self.module.parameters() if p.grad is not None]
        norm = torch.nn.utils.clip_grad_norm_(trained, self.train.clip)
        self._norm = float(norm)
        if not np.isfinite(self._norm):
            for parameter in trained:
                parameter.grad = None

    def _seed_dropout(self, index: int, place: int) -> None:
        if self.train.lora.dropout:
            # A step that is done again after a restart drops the same.
            key = [self.seed, index, place, self.rank]
            torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))


class _Shared:
    """Losses and signals on their way to all workers. Every worker must make one."""

    def __init__(
        self, mine: torch.Tensor, signals: Sequence[float], group: Any, workers: int
    ) -> None:
        self.judged = False
        self._groups = mine.shape[1]
        self._vector = torch.cat([mine.flatten().double().cpu(), torch.tensor(signals).double()])
        self._work = (
            dist.all_reduce(self._vector, group=group, async_op=True) if workers > 1 else None
        )

    def arrived(self) -> tuple[Losses, list[float]]:
        """The sums; waits for the other workers."""
        if self._work is not None:
            self._work.wait()
            self._work = None
        table = self._vector[: 2 * self._groups].view(2, self._groups)
        total, count = table.sum(1).tolist()
        return Losses(total, int(count), table), self._vector[2 * self._groups :].tolist()


def tell_transformers(train: TrainConfig, layout: Layout, device: Device) -> Any:
    """Under ZeRO-3, what makes `from_pretrained` keep each worker's part only; to be held on to."""
    if layout.zero_stage < 3:
        return None
    from transformers.integrations import HfDeepSpeedConfig

    return HfDeepSpeedConfig(setup.deepspeed_config(train, layout, device))


def _use_liger(model: Any, wanted: bool) -> None:
    """Liger's kernels for norms, rotary positions and the MLP, where the package is installed.

    Not its loss: ours makes logits at supervised positions only.
    """
    try:
        from liger_kernel.transformers import _apply_liger_kernel_to_instance
    except ImportError:
        if wanted:
            raise UserError(
                "train.liger=true needs the package liger-kernel on every GPU node: "
                "pip install liger-kernel"
            ) from None
        return
    try:
        _apply_liger_kernel_to_instance(
            model=model, fused_linear_cross_entropy=False, cross_entropy=False
        )
    except TypeError as error:  # a release with other options
        raise UserError(
            f"liger-kernel cannot be applied ({error}): set train.liger=false"
        ) from None
