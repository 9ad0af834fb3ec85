"""What one sees of a training run: losses, speed, memory, lost time, and when it will end.

Rank 0 has a meter. It writes rows to the run's curve and `progress.json` for whoever watches;
`progress.json` is also where the time that restarts cost is added up, as it outlives them.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from bayling.registry.curve import Curve
from bayling.stage import write_json
from bayling.train.trainer import Losses, Outcome

LIVE = "progress.json"


@dataclass
class Totals:
    """What a run has cost so far, over all its attempts."""

    restarts: int = 0
    restart_s: float = 0.0
    """From the last sign of life of an attempt to the first new step of the next one."""
    checkpoint_s: float = 0.0
    """How long training stood still for checkpoints."""
    failed_checkpoints: int = 0
    bad_steps: int = 0
    worker_s: float = 0.0
    """Seconds of all workers together: GPU-hours where a worker has a GPU."""
    planned_worker_s: float = 0.0
    """What a plan with the device's peak and `scale.expected_mfu` says they should be."""


@dataclass
class Live:
    """`progress.json`."""

    launch: str
    """The command that runs training now; a person's pause between two is not lost time."""
    step: int = 0
    steps: int = 0
    workers: int = 0
    time: float = 0.0
    step_s: float = 0.0
    eta_s: float | None = None
    state: str = "starting"
    values: dict[str, float] = field(default_factory=dict)
    totals: Totals = field(default_factory=Totals)

    @staticmethod
    def read(folder: Path) -> Live | None:
        """What the last attempt wrote; None before the first."""
        try:
            raw = json.loads((folder / LIVE).read_text("utf-8"))
            return Live(**{**raw, "totals": Totals(**raw["totals"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None


class Meter:
    """Rank 0's view of a run.

    Args:
        began: when this attempt's workers did, in seconds since the epoch: loading costs too.
        start: the step that this attempt goes on from, and `state` what `Meter.state` was then.
        flops_per_token: what it takes to train one.
        peak: what all workers together could do, in FLOP/s; 0 where it is not known.
        planned_worker_s: seconds of all workers together that the run should take; 0: unknown.
    """

    def __init__(
        self,
        folder: Path,
        curve: Curve,
        *,
        launch: str,
        began: float,
        steps: int,
        workers: int,
        start: int,
        state: dict[str, Any],
        flops_per_token: float,
        peak: float,
        planned_worker_s: float,
        groups: list[str],
    ) -> None:
        self._folder, self._curve, self._groups = folder, curve, groups
        self._flops, self._peak = flops_per_token, peak
        self._start, self._began = start, began
        # What was summed up since the last row goes on, so that the curve has no seam.
        self._loss = [0.0, 0.0]
        self._by_group = torch.zeros(2, len(groups), dtype=torch.float64)
        self.resume(state)
        self._speed = [0.0, 0.0]  # tokens and seconds, of this attempt
        self._row: dict[str, float] = {}
        self._before = Live.read(folder)
        self.live = Live(launch=launch, steps=steps, step=start, workers=workers)
        if self._before is not None:
            self.live.totals = self._before.totals
            self.live.values = self._before.values
        self._worker_s = self.live.totals.worker_s
        self.live.totals.planned_worker_s = planned_worker_s
        self._write()

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from the sums of a checkpoint."""
        if state:
            self._loss = list(state["loss"])
            self._by_group = torch.tensor(state["by_group"], dtype=torch.float64)

    def close(self) -> None:
        """Send what is left of the curve, with little patience: the driver sends the rest."""
        self._curve.flush(5)
        self._curve.close()

    @property
    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of the sums that have not become a row yet."""
        return {"loss": list(self._loss), "by_group": self._by_group.tolist()}

    def stepped(self, step: int, outcome: Outcome, seconds: float) -> None:
        """Step number `step` (from 1) took `seconds`."""
        if self._before is not None:
            self._count_restart(self._before)
            self._before = None
        if outcome.applied:
            self._loss[0] += outcome.losses.total
            self._loss[1] += outcome.losses.supervised
            self._by_group += outcome.losses.by_group
        self._speed[0] += outcome.tokens
        self._speed[1] += seconds
        usual = self.live.step_s or seconds
        self.live.step_s = 0.9 * usual + 0.1 * seconds
        self.live.step, self.live.state = step, "training"

    def log(self, outcome: Outcome) -> None:
        """Put the figures of training since the last time into the row."""
        loss, supervised = self._loss
        tokens, seconds = self._speed
        speed = tokens / seconds
        totals = self.live.totals
        self._row |= {
            "train/loss": loss / max(1.0, supervised),
            "train/learning_rate": outcome.rate,
            "train/gradient_norm": outcome.norm,
            "train/tokens_per_second": speed,
            "train/workers": float(self.live.workers),
            "memory/worker_gib": memory_gib(),
            "time/lost_to_checkpoints_s": totals.checkpoint_s,
            "time/lost_to_restarts_s": totals.restart_s,
            "time/left_s": (self.live.steps - self.live.step) * self.live.step_s,
            "cost/worker_hours": self._worker_seconds() / 3600,
        }
        if self._peak:
            self._row["train/mfu"] = speed * self._flops / self._peak
        self._loss, self._speed = [0.0, 0.0], [0.0, 0.0]

    def heldout(self, losses: Losses) -> None:
        """Put the held-out loss into the row, and what training's was since, by group."""
        trained = Losses(0.0, 0, self._by_group)
        self._row["heldout/loss"] = losses.mean
        self._row |= {f"heldout_by_group/{n}": v for n, v in losses.means(self._groups).items()}
        self._row |= {f"train_by_group/{n}": v for n, v in trained.means(self._groups).items()}
        self._by_group.zero_()

    def commit(self, step: int) -> None:
        """Write the row of this step, where there is one."""
        if not self._row:
            return
        self.live.eta_s = (self.live.steps - step) * self.live.step_s
        self._curve.log(step, self._row)
        self.live.values = {**self.live.values, **self._row}
        self._row = {}
        self._write()

    def say(self, state: str) -> None:
        """What is done now, where it is not training."""
        self.live.state = state
        self._write()

    def _count_restart(self, before: Live) -> None:
        again = max(0, before.step - self._start) * before.step_s
        same = before.launch == self.live.launch
        if same or again:
            began = before.time if same else self._began
            self.live.totals.restarts += 1
            self.live.totals.restart_s += time.time() - began + again

    def _worker_seconds(self) -> float:
        return self._worker_s + self.live.workers * (time.time() - self._began)

    def _write(self) -> None:
        live = self.live
        live.time = time.time()
        live.totals.worker_s = self._worker_seconds()
        with suppress(OSError):  # a full disk must not end training
            write_json(self._folder / LIVE, asdict(live))


def memory_gib() -> float:
    """The most that this worker has held: of the GPU's memory, or resident on a CPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    for line in Path(f"/proc/{os.getpid()}/status").read_text("utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 2**20
    return 0.0
