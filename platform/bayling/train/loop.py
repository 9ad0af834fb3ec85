"""The training loop: what each Ray Train worker runs."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bayling.model import ModelConfig
from bayling.model_folder import load_chat
from bayling.scale import Device
from bayling.stage import TrackedRun, write_json
from bayling.train import checkpoint, export, network
from bayling.train.batches import Order, PackedTokens, deal, micro_steps
from bayling.train.config import Precision, TrainConfig
from bayling.train.schedule import learning_rate

LIVE = "progress.json"
"""Written by rank 0 beside the checkpoints, for whoever watches."""


@dataclass(frozen=True)
class Settings:
    """All that a worker needs to know."""

    train: TrainConfig
    model: ModelConfig
    packed: Path
    tokenizer: Path
    folder: Path
    steps: int
    seed: int
    fingerprint: str
    device: Device
    threads: int
    tracked: TrackedRun
    origin: export.Origin


def deepspeed_config(train: TrainConfig, workers: int, device: Device) -> dict[str, Any]:
    """DeepSpeed's configuration for this many workers; the global batch stays the same."""
    zero: dict[str, Any] = {"stage": train.zero_stage}
    if device is Device.cpu:
        # There is no second stream to overlap with, and over gloo one all-reduce is faster than
        # a reduction to each owner: by about 5 % of a step of the quickstart's.
        zero |= {"overlap_comm": False, "reduce_scatter": False}
    return {
        "train_micro_batch_size_per_gpu": train.micro_batch,
        "gradient_accumulation_steps": micro_steps(train.global_batch, train.micro_batch, workers),
        "gradient_clipping": train.clip,
        "bf16": {"enabled": train.precision is Precision.bf16},
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 1_000_000_000,
        "wall_clock_breakdown": False,
    }


def train_worker(config: dict[str, Any]) -> None:
    """The function Ray Train runs in every worker; `config["settings"]` is a `Settings`."""
    settings: Settings = config["settings"]
    if settings.device is Device.cpu:
        os.environ["DS_ACCELERATOR"] = "cpu"
        # Importing DeepSpeed compiles an optimizer that is not used here: seconds a worker.
        os.environ["TORCHDYNAMO_DISABLE"] = "1"
        # More threads than this worker's cores make OpenMP spin against the other workers.
        torch.set_num_threads(settings.threads)
    _Worker(settings).run()


class _Worker:
    def __init__(self, settings: Settings) -> None:
        import deepspeed
        import ray.train
        from ray.train.torch import get_device

        self.settings, train = settings, settings.train
        context = ray.train.get_context()
        self.rank, self.workers = context.get_world_rank(), context.get_world_size()
        self.device = get_device()
        self.packed = PackedTokens(settings.packed)
        self.order = Order(len(self.packed), train.global_batch, settings.seed)
        self.chat = load_chat(settings.tokenizer, settings.model.template.value)

        model = network.build(
            settings.model,
            self.chat.tokenizer,
            settings.seed,
            self.chat.stop_ids,
            network.attention_for(self.device),
        )
        self.parameters = network.parameter_count(model)
        if self.rank == 0 and settings.model.base is None:
            self._export_untrained(model)
        if train.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        module = network.PackedLoss(model)
        optimizer = torch.optim.AdamW(
            network.parameter_groups(model, train.weight_decay),
            lr=train.learning_rate,
            betas=(train.beta1, train.beta2),
            fused=True,  # one pass over the state instead of ten, on a CPU too
        )
        buffers = network.exact_buffers(model)
        self.engine, *_ = deepspeed.initialize(
            model=module,
            optimizer=optimizer,
            config=deepspeed_config(train, self.workers, settings.device),
        )
        self.model = model
        network.restore_buffers(model, buffers)
        self.step, self.seconds = 0, 0.0
        restored = ray.train.get_checkpoint()
        if restored is not None:
            with restored.as_directory() as folder:
                progress = checkpoint.read_progress(
                    Path(folder), settings.fingerprint, self.workers
                )
                checkpoint.load(self.engine, Path(folder))
            self.step, self.seconds = progress.step, progress.seconds

    def run(self) -> None:
        settings, train = self.settings, self.settings.train
        meter = _Meter(self) if self.rank == 0 else None
        window = torch.zeros(4, dtype=torch.float64)  # loss, supervised, tokens, seconds
        while self.step < settings.steps:
            started = time.perf_counter()
            rate = learning_rate(self.step, settings.steps, train)
            for group in self.engine.optimizer.param_groups:
                group["lr"] = rate
            sequences = self.order.step(self.step)
            supervised = int(self.packed.supervised[sequences].sum())
            loss = self._step(sequences, supervised)
            self.step += 1
            elapsed = time.perf_counter() - started
            self.seconds += elapsed
            tokens = int(self.packed.lengths[sequences].sum())
            window += torch.tensor([loss, supervised, tokens, elapsed])
            last = self.step == settings.steps
            if self.step % train.log_every == 0 or last:
                total = self._sum_losses(window)
                if meter is not None:
                    norm = float(self.engine.get_global_grad_norm() or 0.0)
                    meter.log(self.step, total, rate, norm)
                window.zero_()
            if self.step % train.checkpoint_every == 0 or last:
                if meter is not None:
                    # What comes before a checkpoint is not computed again after it.
                    meter.flush()
                self._save()
        self._export()

    def _step(self, sequences: Any, supervised: int) -> float:
        """One optimizer step; returns this worker's part of the summed loss."""
        micro = deal(sequences, self.settings.train.micro_batch, self.rank, self.workers)
        # DeepSpeed divides by the accumulation steps and averages over the workers. What is
        # wanted is the sum over the whole batch divided by its supervised tokens.
        scale = len(micro) * self.workers / max(1, supervised)
        total = 0.0
        for part in micro:
            # An empty share still takes part in the collectives, with a loss of nothing.
            batch = self.packed.batch(part if len(part) else sequences[:1])
            batch = {name: tensor.to(self.device) for name, tensor in batch.items()}
            loss = self.engine(**batch)
            if not len(part):
                loss = loss * 0.0
            self.engine.backward(loss * scale)
            self.engine.step()
            total += loss.item()
        return total

    def _sum_losses(self, window: torch.Tensor) -> torch.Tensor:
        """The window with its loss summed over all workers; the rest is the same everywhere."""
        total = window.clone()
        if self.workers > 1:
            loss = total[:1].to(self.device, torch.float32)
            torch.distributed.all_reduce(loss)
            total[0] = loss.item()
        return total

    def _save(self) -> None:
        import ray.train

        progress = checkpoint.Progress(
            self.step, self.workers, self.settings.fingerprint, self.seconds
        )
        with tempfile.TemporaryDirectory(prefix="bayling-checkpoint-") as folder:
            checkpoint.save(self.engine, Path(folder), self.rank, progress)
            ray.train.report(
                {"step": self.step},
                checkpoint=ray.train.Checkpoint.from_directory(folder),
            )

    def _export(self) -> None:
        state = None
        if self.settings.train.zero_stage == 3:
            whole = self.engine._zero3_consolidated_16bit_state_dict()  # every rank takes part
            if self.rank == 0:
                state = {name.removeprefix("model."): value for name, value in whole.items()}
        if self.rank == 0:
            export.write(
                self.settings.folder / "model", self.model, state, self.chat, self.settings.origin
            )

    def _export_untrained(self, model: Any) -> None:
        from dataclasses import replace

        folder = self.settings.folder / "untrained"
        if not folder.exists():
            origin = replace(self.settings.origin, trained_steps=0)
            export.write(folder, model, None, self.chat, origin)


class _Meter:
    """What rank 0 tells MLflow and whoever watches."""

    def __init__(self, worker: _Worker) -> None:
        from bayling.registry.runs import Curve
        from bayling.train import flops

        settings = worker.settings
        self._worker = worker
        self._curve = Curve(settings.tracked, "train/loss")
        dtype = torch.bfloat16 if settings.train.precision is Precision.bf16 else torch.float32
        self._peak = flops.peak(worker.device, dtype) * worker.workers
        config = worker.model.config
        self._per_token = flops.per_token(
            worker.parameters,
            config.num_hidden_layers,
            config.hidden_size,
            worker.packed.sequence_length,
        )

    def log(self, step: int, window: torch.Tensor, rate: float, norm: float) -> None:
        loss, supervised, tokens, seconds = window.tolist()
        speed = tokens / seconds
        values = {
            "train/loss": loss / max(1.0, supervised),
            "train/learning_rate": rate,
            "train/gradient_norm": norm,
            "train/tokens_per_second": speed,
        }
        if self._peak:
            values["train/mfu"] = speed * self._per_token / self._peak
        self._curve.log(step, values)
        live = {"step": step, "steps": self._worker.settings.steps, **values}
        write_json(self._worker.settings.folder / LIVE, live)

    def flush(self) -> None:
        self._curve.flush()
