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
from disturbed import EVERY, LOG, STEPS, Training, apart, check_whole
from mlflow import MlflowClient
from mlflow.entities import Run
from running import free_port

from bayling.config import compose

pytestmark = [pytest.mark.drill, pytest.mark.timeout(1200)]


def _command(*argv: str) -> list[str]:
    return [sys.executable, "-m", "bayling.cli", *argv]


def _start(*argv: str, module: str = "bayling.cli") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", module, *argv],
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


def _interrupted(process: subprocess.Popen[str], folder: Path) -> None:
    """Ctrl-C: it ends with a sentence, and nothing of it is left running."""
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=180)
    assert process.returncode == 130, said
    assert "interrupted; the same command goes on from here" in said
    assert "Traceback" not in said
    _wait_until(lambda: not _left_over(folder), 180)


def test_an_interrupted_training_and_a_killed_driver_leave_no_trace(
    prepared: list[str],
    undisturbed: Training,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Interrupted once and killed once: weights, moments and curve are those of a run that
    was left alone, bit for bit, and in MLflow it is one run."""
    monkeypatch.setenv("BAYLING_DRILL", str(tmp_path))
    paths = [str(Path(__file__).parents[2] / name) for name in ("platform", "tests")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    disturbed = apart(prepared, tmp_path)
    training = Training(disturbed)

    process = _start("train", *disturbed, module="held")
    # Steps go on while they are interrupted; workers outlive a driver by a second or two.
    training.hold(2 * EVERY, pause_s=0.5).reaches(2 * EVERY)
    _interrupted(process, tmp_path)
    assert training.pipeline.output("train") is None
    client = MlflowClient(training.pipeline.config.tracking)
    experiment = client.get_experiment_by_name("bayling").experiment_id

    def run() -> Run:
        [found] = client.search_runs([experiment], "tags.`bayling.stage` = 'train'")
        return found

    assert run().info.status == "KILLED"
    there = training.checkpoints()
    process = _start("train", *disturbed, module="held")
    again = there[0].progress.step + 2 * EVERY
    training.hold(again, pause_s=0.5).reaches(again)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "training was over before it was killed"
    _wait_until(lambda: not _left_over(tmp_path), 180)
    done = subprocess.run(_command("train", *disturbed), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert run().info.status == "FINISHED"
    check_whole(training)
    assert training.weights() == undisturbed.weights()
    assert training.curve() == undisturbed.curve()
    history = client.get_metric_history(run().info.run_id, "train/loss")
    logged = [metric.step for metric in history]
    assert logged == list(range(LOG, STEPS + 1, LOG)), "a step is missing, or was logged twice"
    assert [text.split(" after ")[0] for text in training.events()] == 2 * [
        "an earlier command ended"
    ]


def test_a_pipeline_that_is_interrupted_twice_is_finished_by_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BAYLING_DRILL", str(tmp_path))
    overrides = ["recipe=smoke", f"output_dir={tmp_path}", f"serve.port={free_port()}"]
    for stage in ("data", "serve"):
        process = _start("run", *overrides)
        _wait_until(lambda: any((tmp_path / "smoke").glob(f"{stage}-*")), 300)  # noqa: B023
        time.sleep(0.5)
        _interrupted(process, tmp_path)
    done = subprocess.run(_command("run", *overrides), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "smoke" / "summary.json").exists()
    client = MlflowClient(compose(overrides).tracking)
    experiment = client.get_experiment_by_name("bayling").experiment_id
    runs = client.search_runs([experiment])
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len([run for run in runs if run.data.tags["bayling.stage"] == "pipeline"]) == 1
    _wait_until(lambda: not _left_over(tmp_path), 180)
