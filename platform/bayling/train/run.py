"""The train stage as the driver sees it: start the workers, watch over them, log the export."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from bayling.errors import StageFailed
from bayling.model import ModelConfig
from bayling.registry import models, runs
from bayling.registry.curve import Curve
from bayling.scale import Device
from bayling.shape import Shape
from bayling.stage import Context, Manifest, read_json
from bayling.train import (
    checkpoint,
    events,
    export,
    fitting,
    layout,
    placement,
    preflight,
    setup,
)
from bayling.train.batches import Order, PackedTokens
from bayling.train.config import TrainConfig
from bayling.train.exporting import export_checkpoint
from bayling.train.failures import explained
from bayling.train.failures import watch as watch_failures
from bayling.train.layout import Layout
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
    _say_what_is_planned(config, model, packed, context)
    runs.log_dataset(
        context.tracked,
        name=data.config["name"],
        digest=data.results["packed_digest"],
        source=str(data_folder),
        profile={"counts": data.counts, "dropped": data.dropped, "licences": data.licences},
    )
    chosen = settings_for(config, model, context, steps)
    preflight.check_vocabulary(chosen)
    preflight.check_checkpoint(chosen)
    preflight.say_what_changed(config, context)
    base = chosen.start if model.base is not None else None
    placement.check(context.scale, context.folder, base)
    _fit(chosen, context)
    return _finish(chosen, context, data)


def _say_what_is_planned(
    config: TrainConfig, model: ModelConfig, packed: PackedTokens, context: Context
) -> None:
    shape, scale = Shape.of(model), context.scale
    planned = layout.choose(
        config,
        shape,
        scale,
        packed.sequence_length,
        scale.workers,
        supervised=packed.supervised_share,
    )
    runs.set_tags(context.tracked, {"layout.precision": config.precision.value, **_tags(planned)})


def _tags(chosen: Layout) -> dict[str, str]:
    return {
        "layout.zero_stage": str(chosen.zero_stage),
        "layout.offload_optimizer": chosen.offload_optimizer.value,
        "layout.offload_parameters": chosen.offload_parameters.value,
        "layout.micro_batch": str(chosen.micro_batch),
        "layout.why": "; ".join(chosen.reasons),
    }


def _fit(settings: Settings, context: Context) -> None:
    """Run the workers to the end, whatever happens to them on the way.

    Raises:
        UserError: a worker found something that only the user can put right.
        StageFailed: too many failures, or a bad step.
    """
    import ray.train
    from ray.train.torch import TorchConfig

    scale, train = context.scale, settings.train
    cpu = scale.device is Device.cpu
    variables = setup.environment(scale.device)
    least = scale.min_workers or scale.workers
    failures = train.max_failures
    if train.micro_batch is None:
        # For Ray, which does not tell them apart; `failures` does.
        failures += settings.train.global_batch.bit_length()
    trainer = _kind_of_trainer()(
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
            callbacks=[watch_failures(train.max_failures)],
            # Ray chooses the worker's GPU before our function begins.
            worker_runtime_env={"env_vars": variables} if variables else None,
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
        events.retry(context.folder)
        for event in news.new():
            context.note(event["text"])
        _report_live(context, settings)
    if outcome:
        raise explained(outcome[0]) from outcome[0]


def _kind_of_trainer() -> Any:
    """Ray Train's trainer; without its guard over placement groups where there is no dashboard.

    The guard is an actor that outlives a controller that was killed, to free its workers' places.
    Whether the controller lives it asks the dashboard. In a cluster without one, which here is one
    that ends with its driver, it never hears, and the end of training waits 12 s for it in vain.
    """
    import ray
    from ray.train.torch import TorchTrainer

    if ray.init(ignore_reinit_error=True, logging_level="ERROR").dashboard_url:
        return TorchTrainer

    class WithoutGuard(TorchTrainer):  # type: ignore[misc]
        def _create_default_callbacks(self) -> list[Any]:
            guard = "PlacementGroupCleanerCallback"
            callbacks = super()._create_default_callbacks()
            return [one for one in callbacks if type(one).__name__ != guard]

    return WithoutGuard


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
    values, totals = live.values, live.totals
    lost = totals.checkpoint_s + totals.restart_s
    parts = [
        f"step {live.step}",
        f"loss {values['train/loss']:.3f}",
        *([f"held-out {values['heldout/loss']:.3f}"] if "heldout/loss" in values else []),
        f"lr {values['train/learning_rate']:.2g}",
        f"norm {values['train/gradient_norm']:.2g}",
        f"{values['train/tokens_per_second']:,.0f} tok/s",
        *([f"MFU {values['train/mfu']:.0%}"] if "train/mfu" in values else []),
        f"{values['memory/worker_gib']:.1f} GiB",
        f"{live.workers} workers",
        *([f"{totals.restarts} restarts"] if totals.restarts else []),
        *([f"{lost:.0f} s lost"] if lost >= 1 else []),
    ]
    context.report(" · ".join(parts), live.step, live.steps)


def _finish(settings: Settings, context: Context, data: Manifest) -> Manifest:
    steps = settings.steps
    there = checkpoint.complete(context.folder / CHECKPOINTS)
    if not there or there[0].step != steps:
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
    taken = list(read_json(context.folder / fitting.LAYOUTS, {}).values())
    runs.set_tags(context.tracked, _tags(Layout.of(taken[-1])))
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
