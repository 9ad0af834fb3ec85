"""The training loop: what each Ray Train worker runs."""

from __future__ import annotations

import math
import time
import uuid
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist

from bayling.errors import StageFailed
from bayling.model_folder import load_chat
from bayling.registry.curve import Curve
from bayling.stage import read_json, write_json
from bayling.templates import ChatFormat
from bayling.train import checkpoint, events, export, fitting, flops, setup, state
from bayling.train.batches import PackedTokens
from bayling.train.checkpoint import Checkpoint, Progress
from bayling.train.config import OnBadStep
from bayling.train.meter import Live, Meter
from bayling.train.settings import BEATS, CHECKPOINTS, CURVE, Settings
from bayling.train.system import SystemMetrics
from bayling.train.trainer import Outcome, Trainer
from bayling.train.watchdog import Beat, Heart, forget_earlier
from bayling.train.writer import Writer

_LEFT_OUT = "left-out.json"
_ASK_AFTER_S = 2.0
"""Between two questions to Ray whether a node is about to be taken away."""
_MOST_LEFT_OUT = 20


class BadStep(StageFailed):
    """Training was stopped because of a step's loss or gradient."""


def train_worker(config: dict[str, Any]) -> None:
    """The function Ray Train runs in every worker; `config["settings"]` is a `Settings`.

    Raises:
        TooLarge, OutOfMemory: what to do next is Ray Train's to decide.
        UserError: a checkpoint of something else, or a model that does not fit.
        BadStep: see `train.on_bad_step`.
    """
    settings: Settings = config["settings"]
    setup.prepare_process(settings.scale.device, settings.scale.cpus_per_worker)
    with fitting.explained_while_loading():
        worker = _Worker(settings)
    try:
        worker.run()
    except (RuntimeError, MemoryError) as error:
        if not fitting.is_out_of_memory(error):
            raise
        begun = worker.step > worker.start
        raise fitting.smaller(settings, worker.layout, error, begun) from None
    finally:
        worker.close()


class _Worker:
    def __init__(self, settings: Settings) -> None:
        import ray
        import ray.train
        from ray.train.collective import broadcast_from_rank_zero
        from ray.train.torch import get_device

        self.began = time.time()
        self.settings = settings
        self.train = settings.train
        context = ray.train.get_context()
        self.rank, self.workers = context.get_world_rank(), context.get_world_size()
        self.root = settings.folder / CHECKPOINTS
        self.attempt: str = broadcast_from_rank_zero(uuid.uuid4().hex[:8])
        beats = settings.folder / BEATS
        if self.rank == 0:
            forget_earlier(beats, self.attempt)
        node = ray.get_runtime_context().get_node_id()
        self.heart = Heart(beats, Beat.of_this_process(self.rank, node, self.attempt))
        self.system = SystemMetrics(settings.tracked, context.get_node_rank())
        if context.get_local_rank() == 0:
            self.system.start()
        fitting.check_gpu(settings.scale)
        packed = PackedTokens(settings.packed)
        self.heldout = PackedTokens(settings.heldout)
        chat = load_chat(settings.tokenizer, settings.model.template.value)
        self.layout = fitting.agreed_layout(settings, packed, self.rank, self.workers)
        self.trainer = Trainer(
            self.train,
            settings.model,
            self.layout,
            chat,
            packed,
            seed=settings.seed,
            steps=settings.steps,
            device=get_device(),
        )
        self.writer = Writer(
            self.root,
            rank=self.rank,
            workers=self.workers,
            attempt=self.attempt,
            newest=self.train.keep_checkpoints,
            best=self.train.keep_best,
        )
        self.shapes = state.shapes(self.trainer.engine)
        self.meter: Meter | None = None
        self.step = 0
        self.heldout_loss: float | None = None
        """Of the weights as they are now; None where it was not measured after the last step."""
        self.doomed: set[int] = set()
        self.reported = False
        self.asked = time.monotonic()
        self.left_out: set[int] = set(read_json(settings.folder / _LEFT_OUT, []))
        kept = self._resume()
        self.start = self.step
        if self.rank == 0:
            self._report_restart()
        if kept is None and settings.model.base is None:
            self._export_untrained(chat)
        self.meter = self._meter(packed, kept) if self.rank == 0 else None
        self.heart.progress()

    def run(self) -> None:
        while self.step < self.settings.steps:
            outcome = self._step()
            if outcome is not None and outcome.trouble is not None:
                if self._went_back(outcome):
                    continue
                if self.step - 1 in self.left_out:
                    outcome = None
            last = self.step == self.settings.steps
            self._measure(outcome, last)
            if self.step % self.train.checkpoint_every == 0 or last:
                self._save()
            if outcome is not None and outcome.signals[1]:
                self._ask_for_preemption()
        self._finish()

    def close(self) -> None:
        """Let go of threads; whatever happened."""
        self.heart.stop()
        if self.meter is not None:
            self.meter.close()
        self.system.stop()

    def _signals(self) -> list[float]:
        """A write of this worker that failed, and rank 0's wish to ask Ray for preemptions."""
        failed = self.writer.failure is not None and not self.reported
        ask = self.rank == 0 and time.monotonic() - self.asked > _ASK_AFTER_S
        if ask:
            self.asked = time.monotonic()
        return [float(failed), float(ask)]

    def _step(self) -> Outcome | None:
        """Take the next step; None where its batch is left out."""
        self.step += 1
        self.heldout_loss = None
        if self.step - 1 in self.left_out:
            return None
        started = time.perf_counter()
        outcome = self.trainer.step(self.step - 1, self._signals())
        self.heart.progress()
        if self.meter is not None:
            self.meter.stepped(self.step, outcome, time.perf_counter() - started)
        if outcome.signals[0]:
            self._lost_checkpoint()
        return outcome

    def _measure(self, outcome: Outcome | None, last: bool) -> None:
        if self.step % self.train.heldout_every == 0 or last:
            measured = self.trainer.heldout(self.heldout, self.heart.progress)
            self.heldout_loss = measured.mean
            if self.meter is not None:
                self.meter.heldout(measured)
        if self.meter is not None:
            self.meter.live.totals.checkpoint_s += self._new_pause()
            if outcome is not None and (self.step % self.train.log_every == 0 or last):
                self.meter.log(outcome)
            self.meter.commit(self.step)
        self.system.keep_going()
        events.retry(self.settings.folder)

    def _new_pause(self) -> float:
        pause, self.writer.pause_s = self.writer.pause_s, 0.0
        return pause

    def _save(self, wait: bool = False) -> None:
        self.heart.progress()
        started = time.perf_counter()
        if self._lost_the_last() and not self.reported:
            self._lost_checkpoint()
        self.writer.pause_s += time.perf_counter() - started
        trainer = self.trainer
        progress = Progress(
            step=self.step,
            workers=self.workers,
            fingerprint=self.settings.fingerprint,
            shapes=self.shapes,
            heldout=self.heldout_loss,
            scaler=trainer.scaler(),
            applied=trainer.applied,
            losses=trainer.guard.losses,
            meter=self.meter.state if self.meter is not None else {},
        )
        self.reported = False
        self.writer.save(trainer.pieces(), progress)
        if wait:
            self._lost_the_last()
        self.heart.progress()

    def _lost_the_last(self) -> bool:
        """Wait until the last checkpoint is published, or lost for all workers; whether it is
        lost. Every worker must call it: one that only waited would do so for ever where another
        could not write its part."""
        # Slow storage is no standstill: a large part takes minutes.
        if self._agree(float(not self.writer.wait_for_part(self.heart.progress))):
            self.writer.give_up()
        self.writer.wait(self.heart.progress)
        return bool(self._agree(float(self.writer.failure is not None)))

    def _lost_checkpoint(self) -> None:
        self.reported = True
        self.writer.give_up()
        if self.meter is not None:
            self.meter.live.totals.failed_checkpoints += 1
            why = self.writer.failure or "another worker could not write its part"
            text = f"a checkpoint could not be written ({why}): training goes on without it"
            events.record(self.settings.folder, text, step=self.step)

    def _ask_for_preemption(self) -> None:
        import ray.train

        info = ray.train.get_preemption_info()  # a collective, which is why all ask at once
        new = sorted(set(info.preempted_ranks) - self.doomed) if info is not None else []
        if not new:
            return
        self.doomed |= set(new)
        self._save(wait=True)
        if self.rank == 0:
            ranks = ", ".join(str(rank) for rank in new)
            what = "could not save" if self.writer.failure else "saved"
            text = f"the node of worker {ranks} is about to be taken away: {what} step {self.step}"
            events.record(self.settings.folder, text, step=self.step)

    def _went_back(self, outcome: Outcome) -> bool:
        """Deal with a bad step; whether training goes on from an earlier one.

        Raises:
            BadStep: the run is to be stopped.
        """
        index = self.step - 1
        what = f"step {self.step}: {outcome.trouble}"
        if self.rank == 0:
            self._report_bad_step(index, what)
        mode = self.train.on_bad_step
        if mode is OnBadStep.report:
            return False
        if mode is OnBadStep.stop:
            raise BadStep(
                f"training was stopped at {what}; the batch's conversations are named in "
                f"{self.settings.folder / events.EVENTS}. Look at them, lower "
                "train.learning_rate, or go on without the batch: train.on_bad_step=rollback"
            )
        self.left_out.add(index)
        if len(self.left_out) > _MOST_LEFT_OUT:
            raise BadStep(
                f"training was stopped at {what}: {_MOST_LEFT_OUT} batches were left out before "
                "it, so the batches are not the cause: lower train.learning_rate"
            )
        if self.rank == 0:
            write_json(self.settings.folder / _LEFT_OUT, sorted(self.left_out))
        self._lost_the_last()
        kept = self._resume()
        if kept is None:
            # Nothing to go back to yet. The step changed no weight, so it is left out where it is.
            return False
        if self.meter is not None:
            self.meter.resume(kept.meter)
        return True

    def _report_bad_step(self, index: int, what: str) -> None:
        sequences = self.trainer.order.step(index)
        names = self.trainer.packed.conversations(sequences)
        mode = self.train.on_bad_step.value
        text = f"{what} ({mode}); {len(names)} conversations in its batch, from {names[0]} on"
        events.record(
            self.settings.folder,
            text,
            step=self.step,
            sequences=sequences.tolist(),
            conversations=names,
        )
        assert self.meter is not None
        self.meter.live.totals.bad_steps += 1

    def _resume(self) -> Progress | None:
        """Go on from the newest checkpoint that is whole; None where there is none.

        Raises:
            UserError: it is of another configuration or another model.
        """
        from ray.train.collective import broadcast_from_rank_zero

        if self.rank == 0 and self.step == 0:
            checkpoint.clean(self.root)
        while True:
            there = [one.folder.name for one in checkpoint.complete(self.root)]
            newest = broadcast_from_rank_zero(there[:1])
            if not newest:
                return None
            found = Checkpoint(self.root / newest[0])
            damage = found.damage(self.rank, self.workers)
            if damage is not None:
                text = f"{damage}: the checkpoint before it is used"
                events.record(self.settings.folder, text)
            self.heart.progress()
            if not self._agree(float(damage is not None)):
                break
            if self.rank == 0:
                checkpoint.set_aside(found)
            self._agree(0.0)
        progress = found.progress
        checkpoint.check_fits(progress, self.settings.fingerprint, self.shapes)
        applied = progress.step if progress.applied is None else progress.applied

        def read(name: str, key: str, start: int, stop: int) -> torch.Tensor:
            self.heart.progress()
            return found.read(name, key, start, stop)

        self.trainer.restore(read, applied, progress.scaler)
        self.trainer.guard = type(self.trainer.guard)(self.train.spike_factor, progress.losses)
        self.step, self.heldout_loss = progress.step, progress.heldout
        if self.rank == 0 and progress.workers != self.workers:
            text = f"goes on with {self.workers} workers instead of {progress.workers}"
            events.record(self.settings.folder, text, step=self.step)
        return progress

    def _report_restart(self) -> None:
        before = Live.read(self.settings.folder)
        if before is None or before.state == "done":
            return
        where = f"from step {self.step}" if self.step else "from the beginning"
        if before.launch == self.settings.launch:
            text = (
                f"the workers were started again after step {before.step}: training goes on {where}"
            )
        else:
            text = f"an earlier command ended after step {before.step}: this one goes on {where}"
        events.record(self.settings.folder, text, step=self.step)

    def _agree(self, value: float) -> float:
        """The sum over all workers."""
        vector = torch.tensor([value], dtype=torch.float64, device=self.trainer.device)
        dist.all_reduce(vector)
        return float(vector)

    def _finish(self) -> None:
        if self._lost_the_last():
            why = self.writer.failure or "see the other workers"
            raise StageFailed(
                f"the last checkpoint could not be written ({why}): make room in {self.root}, and "
                "the same command goes on"
            )
        if self.meter is not None:
            self.meter.say("done")

    def _export_untrained(self, chat: ChatFormat) -> None:
        """What the trained model is compared with, where it starts from random weights."""
        folder = self.settings.folder / "untrained"
        weights = dict(state.whole_weights(self.trainer.engine))  # every worker takes part
        if self.rank == 0 and not folder.exists():
            source = export.InMemory(self.trainer.model.config, weights)
            export.write(folder, source, chat, replace(self.settings.origin, trained_steps=0))

    def _meter(self, packed: PackedTokens, kept: Progress | None) -> Meter:
        settings, trainer = self.settings, self.trainer
        curve = Curve(settings.tracked, settings.folder / CURVE)
        config = trainer.model.config
        trained = self.shapes.values()
        frozen = trainer.parameters - sum(math.prod(shape) for shape in trained)
        per_token = flops.per_token(
            trainer.parameters,
            config.num_hidden_layers,
            config.hidden_size,
            packed.sequence_length,
            frozen=frozen,
        )
        peak = flops.peak(trainer.device, setup.DTYPES[self.train.precision]) * self.workers
        tokens = settings.steps * self.train.global_batch * float(packed.lengths.mean())
        expected = peak * settings.scale.expected_mfu
        return Meter(
            settings.folder,
            curve,
            launch=settings.launch,
            began=self.began,
            steps=settings.steps,
            workers=self.workers,
            start=self.step,
            state=kept.meter if kept is not None else {},
            flops_per_token=per_token,
            peak=peak,
            planned_worker_s=self.workers * tokens * per_token / expected if peak else 0.0,
            groups=packed.groups,
        )
