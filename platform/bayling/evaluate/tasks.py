"""The suite that asks by itself: lm-evaluation-harness over one system, in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable

import ray
from ray.exceptions import RayTaskError
from ray.util.queue import Empty, Queue

from bayling.errors import StageFailed, UserError
from bayling.evaluate.answers import read_lines, write_lines
from bayling.evaluate.config import EvaluateConfig
from bayling.evaluate.suite import Scored
from bayling.evaluate.suites.harness import Harness
from bayling.evaluate.systems import System
from bayling.registry import scores
from bayling.scale import Device
from bayling.stage import Context

_EVERY_S = 1.0


def put_through(
    harness: Harness, system: System, config: EvaluateConfig, context: Context
) -> Scored:
    """What the harness finds; read back where it is known, from the folder or from MLflow."""
    path = context.folder / "answers" / system.name / f"{harness.name}.jsonl"
    if not path.exists() and system.version is not None:
        uri = context.tracked.tracking_uri
        known = scores.answers_of(uri, system.version, harness.name, harness.digest)
        if known:
            write_lines(path, known)
    if not path.exists():
        write_lines(path, [_ask(system, config, context).stored()])
    [stored] = read_lines(path)
    return Scored.restored(stored)


def _ask(system: System, config: EvaluateConfig, context: Context) -> Scored:
    """Its model is loaded once, and its memory goes with the task."""
    scale = context.scale
    device = "cuda" if scale.device is Device.cuda else "cpu"
    told = Queue(actor_options={"num_cpus": 0})
    task = ray.remote(_run).options(
        num_cpus=scale.cpus_per_worker, num_gpus=scale.gpus_per_worker, max_retries=1
    )
    where = system.url or str(system.folder)
    running = task.remote(config, where, device, scale.cpus_per_worker, told)
    what = f"{system.called} answers lm-eval's tasks"
    context.report(what, 0, 0)
    while not ray.wait([running], timeout=_EVERY_S)[0]:
        try:
            context.report(what, *told.get_nowait_batch(told.qsize())[-1])
        except (Empty, IndexError):
            continue
    try:
        scored: Scored = ray.get(running)
    except RayTaskError as error:
        # Its own message is the worker's traceback.
        if isinstance(error.cause, UserError | StageFailed):
            raise error.cause from None
        raise
    finally:
        told.shutdown()
    return scored


def _run(config: EvaluateConfig, where: str, device: str, threads: int, told: Queue) -> Scored:
    return Harness(config).run(where, device, threads, _now_and_then(told))


def _now_and_then(told: Queue) -> Callable[[int, int], None]:
    last = 0.0

    def report(done: int, of: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _EVERY_S:
            last = time.monotonic()
            told.put((done, of))

    return report
