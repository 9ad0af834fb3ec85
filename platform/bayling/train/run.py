"""The train stage as the driver sees it: start the workers, watch, log the export."""

from __future__ import annotations

import contextlib
import json
import threading
from pathlib import Path

from bayling.errors import StageFailed, UserError
from bayling.model import ModelConfig
from bayling.registry import models, runs
from bayling.scale import Device
from bayling.stage import Context, Manifest, jsonable
from bayling.train.batches import Order, PackedTokens, micro_steps
from bayling.train.config import TrainConfig
from bayling.train.export import Origin
from bayling.train.loop import LIVE, Settings, train_worker


def run(config: TrainConfig, model: ModelConfig, context: Context) -> Manifest:
    """Train on the data stage's packed tokens and log the export as a LoggedModel.

    A run that was interrupted goes on from its last checkpoint.

    Raises:
        UserError: a checkpoint does not fit, or the model's folder cannot be used.
        StageFailed: a worker failed more often than `train.max_failures`.
    """
    data_folder, data = context.upstream("data")
    packed = PackedTokens(data_folder / data.outputs["packed"])
    order = Order(len(packed), config.global_batch, context.seed)
    steps = config.steps or order.steps(config.epochs)
    runs.log_dataset(
        context.tracked,
        name=data.config["name"],
        digest=data.results["packed_digest"],
        source=str(data_folder),
        profile={"counts": data.counts, "dropped": data.dropped, "licences": data.licences},
    )
    settings = Settings(
        train=config,
        model=model,
        packed=data_folder / data.outputs["packed"],
        tokenizer=data_folder / data.outputs["tokenizer"],
        folder=context.folder,
        steps=steps,
        seed=context.seed,
        fingerprint=context.fingerprint,
        device=context.scale.device,
        threads=context.scale.cpus_per_worker,
        tracked=context.tracked,
        origin=Origin(
            model=model,
            languages=data.config["languages"],
            licences=data.licences,
            config={"train": jsonable(config), "model": jsonable(model), "data": data.config},
            data_fingerprint=data.fingerprint,
            run_id=context.tracked.run_id,
            trained_steps=steps,
        ),
    )
    _fit(settings, context)
    return _finish(settings, context, data)


def _fit(settings: Settings, context: Context) -> None:
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer

    scale, train = context.scale, settings.train
    cpu = scale.device is Device.cpu
    resources = {"CPU": scale.cpus_per_worker} | ({} if cpu else {"GPU": 1})
    needed = {key: number * scale.workers for key, number in resources.items()}
    there = ray.cluster_resources()
    for key, number in needed.items():
        if there.get(key, 0) < number:
            raise UserError(
                f"scale.workers={scale.workers} needs {number:g} {key}s and the Ray cluster has "
                f"{there.get(key, 0):g}: lower scale.workers"
            )
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"settings": settings},
        torch_config=TorchConfig(backend="gloo" if cpu else "nccl"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=scale.workers,
            use_gpu=not cpu,
            resources_per_worker=resources,
        ),
        run_config=ray.train.RunConfig(
            # The same name and place: Ray Train finds the last checkpoint there.
            name="checkpoints",
            storage_path=str(context.folder),
            failure_config=ray.train.FailureConfig(max_failures=train.max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=train.keep_checkpoints),
        ),
    )
    outcome: list[BaseException] = []

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as error:  # handed to the thread that waits
            outcome.append(error)

    # In a thread of its own: on the main one Ray Train takes over Ctrl-C and then exits
    # with 0, as if the run were done.
    thread = threading.Thread(target=fit, daemon=True, name="ray-train")
    context.report("starting workers", 0, settings.steps)
    thread.start()
    while thread.is_alive():
        thread.join(0.5)
        _report_live(context, settings.steps)
    if outcome:
        raise _explained(outcome[0]) from outcome[0]


def _report_live(context: Context, steps: int) -> None:
    # The file may not be there yet.
    with contextlib.suppress(OSError, ValueError):
        live = json.loads((context.folder / LIVE).read_text("utf-8"))
        what = (
            f"step {live['step']} · loss {live['train/loss']:.3f} · "
            f"{live['train/tokens_per_second']:,.0f} tok/s"
        )
        context.report(what, live["step"], steps)


def _explained(error: BaseException) -> Exception:
    """A worker's own reason instead of the controller's report about it."""
    from ray.train import ControllerError, WorkerGroupError

    causes = list(error.worker_failures.values()) if isinstance(error, WorkerGroupError) else []
    cause = causes[0] if causes else error
    inner = getattr(cause, "cause", None) or getattr(cause, "__cause__", None) or cause
    if isinstance(inner, UserError):
        return inner
    if isinstance(error, ControllerError) and not causes:
        return StageFailed(f"training failed in Ray's controller: {error}")
    reason = str(inner).strip().splitlines()[-1] if str(inner).strip() else type(inner).__name__
    return StageFailed(f"training failed in a worker: {reason}")


def _finish(settings: Settings, context: Context, data: Manifest) -> Manifest:
    folder = settings.folder / "model"
    if not folder.exists():
        raise StageFailed(f"training ended without an export in {folder}")
    live = json.loads((context.folder / LIVE).read_text("utf-8"))
    manifest = context.manifest("train", settings.train)
    manifest.licences = data.licences
    manifest.outputs = {"model": "model", "untrained": _untrained(settings)}
    manifest.counts = {
        "steps": settings.steps,
        "micro_steps": micro_steps(
            settings.train.global_batch, settings.train.micro_batch, context.scale.workers
        ),
        "sequences_seen": settings.steps * settings.train.global_batch,
    }
    context.report("logging the model", settings.steps, settings.steps)
    model_id = models.log_model(
        context.tracked,
        name=settings.model.name,
        folder=folder,
        params={
            "fingerprint": context.fingerprint,
            "template": settings.model.template.value,
            "steps": str(settings.steps),
            "data": data.results["packed_digest"],
        },
    )
    manifest.results = {
        "model_id": model_id,
        "loss": live["train/loss"],
        "tokens_per_second": live["train/tokens_per_second"],
        "mfu": live.get("train/mfu"),
    }
    return manifest


def _untrained(settings: Settings) -> str:
    if settings.model.base is not None:
        return str(Path(settings.model.base).resolve())
    return "untrained"
