"""The train stage as the driver sees it: start the workers, watch over them, log the export."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from bayling.errors import StageFailed, UserError
from bayling.model import ModelConfig
from bayling.model_folder import load_tokenizer
from bayling.registry import models, runs
from bayling.registry.curve import Curve
from bayling.scale import Device
from bayling.shape import Shape
from bayling.stage import Context, Manifest
from bayling.train import checkpoint, events, export, layout, placement
from bayling.train.batches import Order, PackedTokens
from bayling.train.config import TrainConfig
from bayling.train.exporting import export_checkpoint
from bayling.train.loop import train_worker
from bayling.train.meter import Live
from bayling.train.precision import settled
from bayling.train.settings import BEATS, CHECKPOINTS, CURVE, Settings, settings_for
from bayling.train.watchdog import Stuck, Watch

_ARRIVE_S = 300.0
"""How long the end of a run waits for the tracking server to take the rest of the curve."""


def run(config: TrainConfig, model: ModelConfig, context: Context) -> Manifest:
    """Train on the data stage's packed tokens and log the export as a LoggedModel.

    A run that was interrupted goes on from its last checkpoint.

    Raises:
        UserError: the model does not fit the machines, a checkpoint does not fit the
            configuration, the model's folder cannot be used, or a node does not see the storage.
        StageFailed: a worker failed more often than `train.max_failures`, or a step was bad and
            `train.on_bad_step` says stop.
    """
    for text in layout.notes(config, context.scale):
        context.note(text)
    config = settled(config, context.scale)
    data_folder, data = context.upstream("data")
    packed = PackedTokens(data_folder / data.outputs["packed"])
    order = Order(len(packed), config.global_batch, context.seed)
    steps = config.steps or order.steps(config.epochs)
    _say_what_was_chosen(config, model, packed.sequence_length, context)
    runs.log_dataset(
        context.tracked,
        name=data.config["name"],
        digest=data.results["packed_digest"],
        source=str(data_folder),
        profile={"counts": data.counts, "dropped": data.dropped, "licences": data.licences},
    )
    chosen = settings_for(config, model, context, steps)
    _check_vocabulary(chosen)
    placement.check(context.scale, context.folder)
    _fit(chosen, context)
    return _finish(chosen, context, data)


def _check_vocabulary(settings: Settings) -> None:
    """A token without a row in the embedding would be found by a worker, on its GPU."""
    if settings.model.base is None:
        return
    tokens = len(load_tokenizer(settings.tokenizer))
    rows = Shape.of(settings.model).vocab
    if tokens > rows:
        raise UserError(
            f"model.base={settings.model.base}: the tokenizer has {tokens} tokens, the embedding "
            f"{rows} rows: take the tokenizer the model was made with"
        )


def _say_what_was_chosen(
    config: TrainConfig, model: ModelConfig, sequence_length: int, context: Context
) -> None:
    scale = context.scale
    shape = Shape.of(model)
    chosen = layout.choose(config, shape, scale, sequence_length, scale.workers)
    runs.set_tags(
        context.tracked,
        {
            "layout.precision": config.precision.value,
            "layout.zero_stage": str(chosen.zero_stage),
            "layout.offload_optimizer": chosen.offload_optimizer.value,
            "layout.offload_parameters": chosen.offload_parameters.value,
            "layout.micro_batch": str(chosen.micro_batch),
            "layout.why": "; ".join(chosen.reasons),
        },
    )


def _fit(settings: Settings, context: Context) -> None:
    """Run the workers to the end, whatever happens to them on the way.

    Raises:
        UserError: a worker found something that only the user can put right.
        StageFailed: too many failures, or a bad step.
    """
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer

    scale, train = context.scale, settings.train
    cpu = scale.device is Device.cpu
    least = scale.min_workers or scale.workers
    failures = train.max_failures
    if train.micro_batch is None:
        failures += settings.train.global_batch.bit_length()  # each may halve it once
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"settings": settings},
        torch_config=TorchConfig(backend="gloo" if cpu else "nccl"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=(least, scale.workers) if least < scale.workers else scale.workers,
            use_gpu=not cpu,
            resources_per_worker=placement.per_worker(scale),
            elastic_resize_monitor_interval_s=scale.resize_after_s,
        ),
        run_config=ray.train.RunConfig(
            name="ray",
            storage_path=str(context.folder),
            callbacks=[_stop_when_pointless()],
            failure_config=ray.train.FailureConfig(
                max_failures=failures, max_preemption_failures=train.max_preemptions
            ),
        ),
    )
    if least < scale.workers:
        # After a loss Ray first reaches for what was there, and waits a minute for it.
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "30")
    outcome: list[BaseException] = []

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as error:  # handed to the thread that waits
            outcome.append(error)

    # In a thread of its own: on the main one Ray Train takes over Ctrl-C and then exits
    # with 0, as if the run were done.
    thread = threading.Thread(target=fit, daemon=True, name="ray-train")
    watch = Watch(context.folder / BEATS, train.stuck_after_s)
    news = events.Reader(context.folder)
    context.report("starting workers", 0, settings.steps)
    thread.start()
    while thread.is_alive():
        thread.join(0.5)
        stuck = watch.check()
        if stuck is not None:
            _replace_stuck(stuck, context.folder)
        for event in news.new():
            context.note(event["text"])
        _report_live(context, settings)
    if outcome:
        raise _explained(outcome[0]) from outcome[0]


def _stop_when_pointless() -> Any:
    """Ray Train tries again after any exception; after some of ours that changes nothing."""
    import ray.train

    class StopWhenPointless(ray.train.UserCallback):  # type: ignore[misc]
        def after_exception(self, run_context: Any, worker_exceptions: dict[int, Any]) -> None:
            for error in worker_exceptions.values():
                ours = _ours(error)
                if ours is not None:
                    raise ours

    return StopWhenPointless()


def _ours(error: BaseException | None) -> Exception | None:
    """The error of this platform that Ray wrapped; None where it is something else."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        if isinstance(error, UserError | StageFailed):
            return error
        error = (
            getattr(error, "_base_exc", None)
            or getattr(error, "controller_failure", None)
            or getattr(error, "cause", None)
            or error.__cause__
        )
    return None


def _replace_stuck(stuck: Stuck, folder: Path) -> None:
    """Show where the workers hang and end them; Ray Train then starts again."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from bayling.train.watchdog import dump_and_kill

    for beat in stuck.beats:
        there = NodeAffinitySchedulingStrategy(beat.node, soft=False)
        task = ray.remote(dump_and_kill).options(num_cpus=0, scheduling_strategy=there)
        try:
            stacks = ray.get(task.remote(beat), timeout=60)
        except Exception as error:  # the node is gone: so is the worker
            events.record(folder, f"{stuck.reason}; its node does not answer ({error})")
            continue
        if stacks:
            path = folder / f"stacks-worker-{beat.rank}-{beat.attempt}.txt"
            path.write_text(stacks + "\n", "utf-8")
            text = f"{stuck.reason}: it is ended and replaced; where it hung is in {path.name}"
            events.record(folder, text, stacks=stacks)


def _report_live(context: Context, settings: Settings) -> None:
    live = Live.read(context.folder)
    if live is None or live.launch != settings.launch:
        return
    if "train/loss" not in live.values:
        context.report(live.state, live.step, live.steps)
        return
    values = live.values
    parts = [
        f"step {live.step}",
        f"loss {values['train/loss']:.3f}",
        *([f"held-out {values['heldout/loss']:.3f}"] if "heldout/loss" in values else []),
        f"{values['train/tokens_per_second']:,.0f} tok/s",
        *([f"MFU {values['train/mfu']:.0%}"] if "train/mfu" in values else []),
        f"{values['memory/worker_gib']:.1f} GiB",
        f"{live.workers} workers",
        *([f"{live.totals.restarts} restarts"] if live.totals.restarts else []),
    ]
    context.report(" · ".join(parts), live.step, live.steps)


def _explained(error: BaseException) -> Exception:
    """A worker's own reason instead of the controller's report about it."""
    from ray.train import ControllerError, WorkerGroupError

    causes = list(error.worker_failures.values()) if isinstance(error, WorkerGroupError) else []
    ours = [found for one in (error, *causes) if (found := _ours(one)) is not None]
    if ours:
        return ours[0]
    if isinstance(error, ControllerError) and not causes:
        return StageFailed(f"training failed in Ray's controller: {error}")
    cause = causes[0] if causes else error
    inner = getattr(cause, "_base_exc", None) or getattr(cause, "cause", None) or cause
    reason = str(inner).strip().splitlines()[-1] if str(inner).strip() else type(inner).__name__
    return StageFailed(f"training failed in a worker: {reason}")


def _finish(settings: Settings, context: Context, data: Manifest) -> Manifest:
    steps = settings.steps
    there = checkpoint.complete(context.folder / CHECKPOINTS)
    if not there or there[0].progress.step != steps:
        raise StageFailed(f"training ended without its last checkpoint in {context.folder}")
    context.report("exporting the model", steps, steps)
    folder = context.folder / "model"
    _export(settings, there[0].folder, folder)
    context.report("the rest of the curve goes to MLflow", steps, steps)
    trouble = _send_curve(context, _ARRIVE_S)
    if trouble is not None:
        raise StageFailed(
            f"the tracking server at {context.tracked.tracking_uri} does not take the rest of the "
            f"curve ({trouble}): when it is back, the same command goes on"
        )
    live = Live.read(context.folder)
    assert live is not None  # the meter wrote it with the first step
    manifest = context.manifest("train", settings.train)
    manifest.licences = data.licences
    manifest.outputs = {"model": "model", "untrained": _started_from(settings)}
    if settings.train.lora.rank:
        manifest.outputs["adapter"] = export.ADAPTER
    totals = live.totals
    manifest.counts = {
        "steps": steps,
        "sequences_seen": steps * settings.train.global_batch,
        "restarts": totals.restarts,
        "bad_steps": totals.bad_steps,
        "failed_checkpoints": totals.failed_checkpoints,
    }
    if (context.folder / events.EVENTS).exists():
        runs.log_file(context.tracked, context.folder / events.EVENTS)
    runs.log_metrics(
        context.tracked,
        {
            "cost/worker_hours": totals.worker_s / 3600,
            "cost/planned_worker_hours": totals.planned_worker_s / 3600,
            "cost/restarts": float(totals.restarts),
            "cost/bad_steps": float(totals.bad_steps),
            "cost/failed_checkpoints": float(totals.failed_checkpoints),
        },
    )
    context.report("logging the model", steps, steps)
    model_id = models.log_model(
        context.tracked,
        name=settings.model.name,
        folder=folder,
        params={
            "fingerprint": context.fingerprint,
            "template": settings.model.template.value,
            "steps": str(steps),
            "data": data.results["packed_digest"],
        },
    )
    manifest.results = {
        "model_id": model_id,
        "loss": live.values["train/loss"],
        "heldout_loss": live.values["heldout/loss"],
        "tokens_per_second": live.values["train/tokens_per_second"],
        "mfu": live.values.get("train/mfu"),
        "worker_hours": round(totals.worker_s / 3600, 4),
        "planned_worker_hours": round(totals.planned_worker_s / 3600, 4),
        "lost_to_restarts_s": round(totals.restart_s, 1),
        "lost_to_checkpoints_s": round(totals.checkpoint_s, 2),
    }
    return manifest


def _send_curve(context: Context, patience_s: float) -> str | None:
    """Send what the workers could not send any more; what went wrong, or None."""
    curve = Curve(context.tracked, context.folder / CURVE)
    arrived = curve.flush(patience_s)
    curve.close()
    return None if arrived else curve.trouble or "it does not answer"


def _export(settings: Settings, step: Path, folder: Path) -> None:
    """In a Ray task, as the driver may be a small machine; on a checkpoint, not on the workers."""
    import ray

    task = ray.remote(export_checkpoint).options(num_cpus=1, max_retries=2)
    error = ray.get(task.remote(settings, step, folder))
    if error is not None:
        raise error


def _started_from(settings: Settings) -> str:
    """The model that training started from: absolute, or relative to the stage's folder."""
    inside = settings.start.is_relative_to(settings.folder)
    return str(settings.start.relative_to(settings.folder) if inside else settings.start)
