"""Ctrl-C and kills at any moment: every process ends, and the same command goes on from there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from disturbed import Training, check_whole
from mlflow import MlflowClient
from running import free_port

from bayling.config import compose
from bayling.pipeline import Pipeline
from bayling.watch import Plain

pytestmark = [pytest.mark.drill, pytest.mark.timeout(1200)]

# Long enough to be interrupted in the middle, short enough for two cores.
_LONGER = ["train.steps=400", "train.checkpoint_every=20", "train.log_every=5"]


def _command(*argv: str) -> list[str]:
    return [sys.executable, "-m", "bayling.cli", *argv]


def _start(*argv: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        _command(*argv),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # so that the interrupt reaches its group, as from a terminal
        # A shell starts what runs in its background deaf to Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def _wait_until(condition: object, seconds: float) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to the point of the interruption"
        time.sleep(0.1)


def _left_over(folder: Path) -> list[str]:
    """Processes that still name the run's folder or belong to a Ray that it started."""
    left = []
    for process in psutil.process_iter(["pid", "cmdline", "environ"]):
        try:
            text = " ".join(process.info["cmdline"] or [])
            environment = process.info["environ"] or {}
        except psutil.Error:
            continue
        if str(folder) in text or environment.get("BAYLING_DRILL") == str(folder):
            left.append(f"{process.info['pid']} {text[:80]}")
    return left


def _checkpoints(folder: Path) -> list[Path]:
    return list(folder.glob("train-*/checkpoints/step-*"))


def test_an_interrupted_training_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BAYLING_DRILL", str(tmp_path))
    overrides = ["recipe=smoke", f"output_dir={tmp_path}", *_LONGER]
    subprocess.run(_command("data", *overrides), check=True, capture_output=True)
    folder = tmp_path / "smoke"

    process = _start("train", *overrides)
    _wait_until(lambda: len(_checkpoints(folder)) >= 2, 180)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=180)
    assert process.returncode == 130, said
    assert "interrupted; the same command goes on from here" in said
    assert "Traceback" not in said
    _wait_until(lambda: not _left_over(tmp_path), 180)

    pipeline = Pipeline(compose(overrides), Plain())
    assert pipeline.output("train") is None
    client = MlflowClient(pipeline.config.tracking)
    experiment = client.get_experiment_by_name("bayling").experiment_id
    by_stage = "tags.`bayling.stage` = 'train'"
    [run] = client.search_runs([experiment], by_stage)
    assert run.info.status == "KILLED"

    def logged() -> list[int]:
        history = client.get_metric_history(run.info.run_id, "train/loss")
        return [metric.step for metric in history]

    before = logged()
    assert max(before, default=0) < 400, "training was over before the interruption"

    done = subprocess.run(_command("train", *overrides), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [run] = client.search_runs([experiment], by_stage)
    assert run.info.status == "FINISHED"
    assert logged() == list(range(5, 401, 5)), "a step is missing, or was logged twice"


def test_a_driver_killed_three_times_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights, moments and curve are those of a run that was left alone, bit for bit."""
    monkeypatch.setenv("BAYLING_DRILL", str(tmp_path))
    # Workers outlive the driver by a second or two: by many steps, on a fast machine.
    steps, every, log = 400, 10, 5
    overrides = ["recipe=smoke", "train.precision=fp32", f"train.steps={steps}"]
    overrides += [f"train.checkpoint_every={every}", f"train.log_every={log}"]
    alone = [*overrides, f"output_dir={tmp_path / 'alone'}"]
    killed = [*overrides, f"output_dir={tmp_path / 'killed'}"]
    for one in (alone, killed):
        subprocess.run(_command("data", *one), check=True, capture_output=True)
    subprocess.run(_command("train", *alone), check=True, capture_output=True)
    training = Training(killed)
    for _ in range(3):
        there = training.checkpoints()
        process = _start("train", *killed)
        training.reaches((there[0].progress.step if there else 0) + 2 * every)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "training was over before it was killed"
        _wait_until(lambda: not _left_over(tmp_path), 180)
    done = subprocess.run(_command("train", *killed), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    check_whole(training, steps, log)
    assert training.weights() == Training(alone).weights()
    assert training.curve() == Training(alone).curve()
    assert [text.split(" after ")[0] for text in training.events()] == 3 * [
        "an earlier command ended"
    ]


@pytest.mark.parametrize("stage", ["data", "serve"])
def test_an_interrupted_pipeline_is_finished_by_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    monkeypatch.setenv("BAYLING_DRILL", str(tmp_path))
    overrides = ["recipe=smoke", f"output_dir={tmp_path}", f"serve.port={free_port()}"]
    process = _start("run", *overrides)
    _wait_until(lambda: any((tmp_path / "smoke").glob(f"{stage}-*")), 300)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=180)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    _wait_until(lambda: not _left_over(tmp_path), 180)
    done = subprocess.run(_command("run", *overrides), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "smoke" / "summary.json").exists()
    client = MlflowClient(compose(overrides).tracking)
    experiment = client.get_experiment_by_name("bayling").experiment_id
    runs = client.search_runs([experiment])
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len([run for run in runs if run.data.tags["bayling.stage"] == "pipeline"]) == 1
    _wait_until(lambda: not _left_over(tmp_path), 180)
