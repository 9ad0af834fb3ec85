"""A plan as tables for a person."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from bayling.plan import Plan, Pods, Row, Run
from bayling.train.config import Offload
from bayling.train.layout import GIB
from bayling.train.memory import Placement

if TYPE_CHECKING:
    from rich.table import Table


def show(plan: Plan) -> None:
    """Print a plan."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=max(console.width, 110))  # a log has no edge
    for table in (_model(plan), _memory(plan), _runs(plan), _cluster(plan)):
        console.print(table)
    for line in _lines(plan):
        console.print(line, soft_wrap=True)


def size(number: float) -> str:
    """Bytes as a person reads them: GiB, or MiB below one tenth of it."""
    if number < GIB / 10:
        return f"{number / 2**20:.0f} MiB"
    return f"{number / GIB:.1f} GiB"


def duration(hours: float | None) -> str:
    """Hours, or minutes below one; a dash where nothing is known."""
    if hours is None:
        return "–"
    return f"{hours * 60:.1f} min" if hours < 1 else f"{hours:,.1f} h"


def named(place: Placement) -> str:
    """A placement in words."""
    name = f"ZeRO-{place.zero_stage}"
    if place.offload_optimizer is not Offload.none:
        what = "optim"
        if place.offload_parameters is place.offload_optimizer:
            what = "all"
        name += f", {what} → {place.offload_optimizer.value}"
    if place.offload_parameters not in (Offload.none, place.offload_optimizer):
        name += f", weights → {place.offload_parameters.value}"
    return name


def _model(plan: Plan) -> Table:
    table = _plain(f"{plan.name}: {plan.model} on scale={plan.scale} ({plan.device})")
    parts = ", ".join(
        f"{name} {number:,}" for name, number in plan.parameters_by_part.items() if number
    )
    table.add_row("parameters", f"{plan.parameters:,} ({parts})")
    if plan.trainable != plan.parameters:
        share = plan.trainable / plan.parameters
        table.add_row("trained", f"{plan.trainable:,} ({share:.2%})")
    corpus = plan.corpus
    table.add_row(
        "corpus",
        f"{corpus.conversations:,} conversations, {corpus.tokens:,} tokens in "
        f"{corpus.sequences:,} sequences, {corpus.source}",
    )
    table.add_row(
        "training",
        f"{plan.steps:,} steps of {plan.tokens_per_step:,} tokens: {plan.tokens:,} tokens, "
        f"{plan.epochs:.3g} epochs",
    )
    return table


def _memory(plan: Plan) -> Table:
    workers, micro = plan.runs[0].workers, plan.layout.micro_batch
    large = max(row.memory.total for row in plan.rows) > 10 * GIB
    unit, name = (GIB, "GiB") if large else (2**20, "MiB")
    table = _table(
        f"{name} a worker: {_workers(workers)}, micro batch {micro}; "
        f"{plan.device_bytes / unit:,.1f} can be filled"
    )
    table.add_column("", no_wrap=True)
    for column in ("weights", "grads", "optim", "activ", "other", "total"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("most in", no_wrap=True)
    gpu = plan.device != "CPU"
    if gpu:
        table.add_column("host", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in plan.rows:
        memory = row.memory
        numbers = [
            memory.weights,
            memory.gradients,
            memory.optimizer,
            memory.activations,
            memory.buffers + memory.process,
            memory.total,
        ]
        digits = 1 if large else 0
        cells = [named(row.placement), *(f"{number / unit:,.{digits}f}" for number in numbers)]
        cells += [memory.phase]
        cells += [f"{memory.host / unit:,.{digits}f}"] if gpu else []
        table.add_row(*cells, _verdict(row), style="bold" if row.picked else "")
    return table


def _verdict(row: Row) -> str:
    if row.short:
        where = "" if row.short_of == "device" else " of the node"
        return f"[red]{size(row.short)}{where} short[/]"
    return "[green]← picked[/]" if row.picked else "fits"


def _runs(plan: Plan) -> Table:
    title = f"time, at {plan.expected_mfu:.0%} of {_speed(plan.peak_flops)} a worker"
    table = _table(f"{title} (scale.expected_mfu)")
    table.add_column("workers", justify="right")
    table.add_column("micro batch", justify="right")
    table.add_column("micro steps", justify="right")
    table.add_column("memory per worker", justify="right")
    table.add_column("training", justify="right")
    table.add_column("GPU-hours" if plan.device != "CPU" else "worker-hours", justify="right")
    priced = any(run.price is not None for run in plan.runs)
    if priced:
        table.add_column("price", justify="right")
    for run in plan.runs:
        cells = [str(run.workers), str(run.micro_batch), str(run.micro_steps)]
        cells += [size(run.memory.total), duration(run.hours)]
        cells += ["–" if run.gpu_hours is None else f"{run.gpu_hours:,.2f}"]
        cells += [f"{run.price:,.2f}"] if run.price is not None else []
        table.add_row(*cells)
    return table


def _cluster(plan: Plan) -> Table:
    table = _table("asked of Kubernetes")
    for name in ("pods", "cpu", "memory", "nvidia.com/gpu", "/dev/shm"):
        table.add_column(name, justify="left" if name == "pods" else "right")
    for run, pods in _pods(plan):
        name = f"{pods.count} × {pods.name}"
        if len(plan.runs) > 1 and pods.name == "worker":
            name += f" ({_workers(run.workers)})"
        gpu = str(pods.gpu) if pods.gpu else "–"
        table.add_row(name, str(pods.cpu), size(pods.memory), gpu, size(pods.shared_memory))
    return table


def _pods(plan: Plan) -> Iterator[tuple[Run, Pods]]:
    """The head once, then each number of workers' pods."""
    for number, run in enumerate(plan.runs):
        for pods in run.pods:
            if pods.name != "head" or number == 0:
                yield run, pods


def _lines(plan: Plan) -> Iterator[str]:
    for reason in plan.layout.reasons:
        yield f"· {reason}"
    yield (
        f"disk: {size(plan.disk_bytes)} for {plan.checkpoints} checkpoints of "
        f"{size(plan.checkpoint_bytes)} and the exports of {size(plan.export_bytes)}"
    )
    for note in plan.notes:
        yield f"[yellow]note[/]: {note}"


def _speed(flops: float | None) -> str:
    if flops is None:
        return "an unknown peak"
    return f"{flops / 1e12:,.3g} TFLOP/s"


def _workers(number: int) -> str:
    return "1 worker" if number == 1 else f"{number} workers"


def _table(title: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    return Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)


def _plain(title: str) -> Table:
    from rich.table import Table

    return Table(title=title, title_justify="left", title_style="bold", show_header=False, box=None)
