"""Trainings that are disturbed while they run."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import held
from mlflow import MlflowClient
from mlflow.entities import Run
from running import Recorder

from bayling.config import compose
from bayling.pipeline import Pipeline
from bayling.stage import Manifest
from bayling.train.checkpoint import Checkpoint, complete
from bayling.train.meter import Live
from bayling.train.settings import BEATS, CHECKPOINTS

STEPS, EVERY, LOG = 90, 10, 5
"""Of the training that most drills disturb: its length, and the steps between checkpoints and
between rows of its curve."""


def wait_until(condition: Callable[[], Any], seconds: float, what: str = "it") -> Any:
    """What `condition` returns as soon as that is true."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds:g} s"
        time.sleep(0.2)
    return value


def in_fp32(steps: int = STEPS, checkpoint_every: int = EVERY, log_every: int = LOG) -> list[str]:
    """Overrides of a small training in fp32, where equal means bit for bit."""
    return [
        "recipe=smoke",
        "train.precision=fp32",
        f"train.steps={steps}",
        f"train.checkpoint_every={checkpoint_every}",
        "train.heldout_every=40",
        f"train.log_every={log_every}",
    ]


def apart(overrides: list[str], folder: Path) -> list[str]:
    """The same with another `output_dir`, where the data stage is done too.

    What a training survives with (`train.on_bad_step`, `train.max_failures`, …) does not decide
    what comes out, so trainings that differ in nothing else share a folder and a run.
    """
    [here] = [one for one in overrides if one.startswith("output_dir=")]
    shutil.copytree(here.removeprefix("output_dir="), folder, dirs_exist_ok=True)
    return [f"output_dir={folder}" if one == here else one for one in overrides]


@dataclass
class Training:
    """The train stage, running in a thread of its own."""

    overrides: list[str]
    recorder: Recorder = field(default_factory=Recorder)
    error: BaseException | None = None
    manifest: Manifest | None = None

    def __post_init__(self) -> None:
        self.pipeline = Pipeline(compose(self.overrides), self.recorder)
        self.folder: Path = self.pipeline.folder("train")
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> Training:
        self._thread.start()
        return self

    def hold(self, step: int, pause_s: float | None = None) -> Training:
        """Wait after `step`, and before each later one: until told otherwise, or for `pause_s`.

        Only where `nodes` or `python -m held` runs the workers.
        """
        held.hold(self.folder, step, pause_s)
        return self

    def release(self) -> Training:
        held.release(self.folder)
        return self

    def _run(self) -> None:
        try:
            self.manifest = self.pipeline.run_stage("train")
        except BaseException as error:
            self.error = error

    def finish(self, seconds: float = 900) -> Training:
        """Wait for its end; raises what it raised."""
        self._thread.join(seconds)
        assert not self._thread.is_alive(), f"still running after {seconds:g} s"
        if self.error is not None:
            raise self.error
        return self

    def failed(self, seconds: float = 900) -> BaseException:
        self._thread.join(seconds)
        assert self.error is not None
        return self.error

    def reaches(self, step: int, seconds: float = 400) -> None:
        """Wait for a checkpoint of `step` or a later one."""

        def there() -> bool:
            assert self.error is None, self.error
            found = self.checkpoints()
            return bool(found) and found[0].progress.step >= step

        wait_until(there, seconds, f"step {step}")

    def checkpoints(self) -> list[Checkpoint]:
        return complete(self.folder / CHECKPOINTS)

    def pids(self) -> list[int]:
        """Of the workers at work, by rank."""
        beats = sorted((self.folder / BEATS).glob("beat-*.json"))
        return [json.loads(path.read_text("utf-8"))["pid"] for path in beats]

    def steps_of(self, rank: int) -> int:
        """How far a worker's training thread is, in signs of life: at least one a step."""
        [path] = (self.folder / BEATS).glob(f"beat-{rank:05d}-*.json")
        beat = json.loads(path.read_text("utf-8"))
        return int(beat["progress"])

    def events(self) -> list[str]:
        path = self.folder / "events.jsonl"
        content = path.read_text("utf-8") if path.exists() else ""
        # The last line may be being written.
        return [json.loads(line)["text"] for line in content.split("\n")[:-1]]

    def live(self) -> Live:
        live = Live.read(self.folder)
        assert live is not None
        return live

    def weights(self) -> list[str]:
        """Checksums of the last checkpoint's files: the weights and moments, bit by bit."""
        sums = self.checkpoints()[0].sums
        return [sums[name] for name in sorted(sums) if name.startswith("worker-")]

    def run(self) -> Run:
        """Its MLflow run, of which there is one."""
        client = MlflowClient(self.pipeline.config.tracking)
        experiment = client.get_experiment_by_name("bayling").experiment_id
        key = self.pipeline.fingerprints["train"]
        [run] = client.search_runs([experiment], f"tags.`bayling.key` = '{key}'")
        return run

    def curve(self, metric: str = "train/loss") -> dict[int, float]:
        """Step → value as MLflow has it; no step is there twice."""
        client = MlflowClient(self.pipeline.config.tracking)
        history = client.get_metric_history(self.run().info.run_id, metric)
        assert len({point.step for point in history}) == len(history), "a step was logged twice"
        return {point.step: point.value for point in sorted(history, key=lambda p: p.step)}


def check_whole(training: Training, steps: int = STEPS, log_every: int = LOG) -> None:
    """What holds after every disturbance: one run, finished, each step logged once."""
    assert training.run().info.status == "FINISHED"
    assert list(training.curve()) == list(range(log_every, steps + 1, log_every))
