"""The command: its exit codes, and what it says when something is wrong."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from running import Finished, free_port

from bayling.cli import main


def _fails(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run a command that must be refused; returns its one sentence."""
    assert main(argv) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("bayling: ")
    assert "Traceback" not in said
    assert len(said.splitlines()) == 1, said
    return said


@pytest.mark.unit
@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("recipe=quickstrat", "did you mean quickstart?"),
        ("train.lerning_rate=1", "did you mean train.learning_rate?"),
        ("train.steps=many", "train.steps"),
        ("data.languages=[en,tlh]", "knows no language 'tlh'"),
        ("data.languages=[de,fr]", "needs en or zh"),
        ("model.heads=7", "cannot be split over model.heads=7"),
        ("serve.host=0.0.0.0", "serve.host"),
        ("train.steps", "write KEY=VALUE"),
        ("train.steps=1,2", "add -m"),
    ],
)
def test_a_wrong_override_is_one_sentence(
    capsys: pytest.CaptureFixture[str], override: str, sentence: str
) -> None:
    assert sentence in _fails(capsys, "run", override)


@pytest.mark.unit
@pytest.mark.parametrize(
    "argv",
    [
        ("rollout", "start", "2", "--force", "train.lerning_rate=1"),
        ("rollout", "status", "train.lerning_rate=1", "--watch"),
        ("data", "recipe=smoke", "-m", "train.lerning_rate=1,2"),
    ],
)
def test_options_and_overrides_come_in_any_order(
    capsys: pytest.CaptureFixture[str], argv: tuple[str, ...]
) -> None:
    assert "did you mean train.learning_rate?" in _fails(capsys, *argv)


@pytest.mark.unit
def test_a_folder_that_cannot_be_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    said = _fails(capsys, "data", "recipe=smoke", f"output_dir={tmp_path}/file/outputs")
    assert "cannot write to" in said
    assert "output_dir" in said


@pytest.mark.unit
def test_a_tracking_server_that_does_not_answer(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    said = _fails(capsys, "data", "recipe=smoke", f"output_dir={tmp_path}", f"tracking_uri={uri}")
    assert f"the tracking server at {uri} does not answer" in said
    assert not list(tmp_path.glob("smoke/data-*")), "something was half-written"


@pytest.mark.unit
def test_a_port_in_use_is_told_before_any_stage_runs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = _fails(capsys, "run", "recipe=smoke", f"output_dir={tmp_path}", f"serve.port={port}")
    assert f"port {port}" in said
    assert "serve.port" in said
    assert not list(tmp_path.glob("smoke/data-*"))


@pytest.mark.unit
def test_serving_what_was_never_trained(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    said = _fails(
        capsys, "serve", "recipe=smoke", f"output_dir={tmp_path}", f"serve.port={free_port()}"
    )
    assert "no registered model 'bayling'" in said


def test_an_unknown_alias_names_those_there_are(
    capsys: pytest.CaptureFixture[str], smoke: Finished
) -> None:
    said = _fails(capsys, "serve", *smoke.overrides, "serve.alias=challenger")
    assert "has no alias 'challenger'; it has champion" in said


@pytest.mark.unit
def test_translating_without_a_server(capsys: pytest.CaptureFixture[str]) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    said = _fails(capsys, "translate", "in 5 days", "--to", "sw", "--url", url)
    assert "bayling serve" in said


def test_a_second_run_says_what_it_skipped(
    capsys: pytest.CaptureFixture[str], smoke: Finished
) -> None:
    assert main(["run", *smoke.overrides]) == 0
    captured = capsys.readouterr()
    assert captured.err.count("unchanged, skipped") == 5
    assert "Where to look next" in captured.out


def test_a_sweep_runs_every_combination_below_one_parent(
    capsys: pytest.CaptureFixture[str], smoke: Finished
) -> None:
    from mlflow import MlflowClient

    assert main(["data", "-m", *smoke.overrides, "data.conversations=40,50"]) == 0
    shown = capsys.readouterr().out
    assert "data.conversations=40" in shown
    assert "data.conversations=50" in shown
    client = MlflowClient(smoke.config.tracking)
    experiment = client.get_experiment_by_name("bayling").experiment_id
    [parent] = client.search_runs([experiment], "tags.`bayling.stage` = 'sweep'")
    children = client.search_runs(
        [experiment], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    )
    assert {run.data.params["data.conversations"] for run in children} == {"40", "50"}
    assert {run.info.status for run in [parent, *children]} == {"FINISHED"}


@pytest.mark.unit
def test_doctor_finds_what_this_machine_has(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor"])
    shown = capsys.readouterr().out
    for what in ("Python headers", "g++", "deepspeed", "memory", "port 8000"):
        assert what in shown


@pytest.mark.unit
def test_doctor_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from bayling import doctor

    monkeypatch.setattr("shutil.which", lambda tool: None)
    missing = {finding.what: finding.remedy for finding in doctor.findings() if finding.remedy}
    assert "install" in missing["g++"]


def test_the_ui_shows_the_runs(smoke: Finished) -> None:
    """`bayling ui` is MLflow's own server on this run's store."""
    import time

    import httpx

    port = free_port()
    command = [sys.executable, "-m", "bayling.cli", "ui", *smoke.overrides, "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health", timeout=2).is_success:
                    break
            except httpx.HTTPError:
                time.sleep(0.5)
        answer = httpx.post(
            f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/search",
            json={"max_results": 10},
            timeout=30,
        )
        assert "bayling" in [item["name"] for item in answer.json()["experiments"]]
    finally:
        process.terminate()
        assert process.wait(120) in (0, 130)
    assert process.stdout is not None
    assert f"127.0.0.1:{port}" in process.stdout.read()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0, "the server outlived the command"


@pytest.mark.unit
def test_the_environment_names_the_tracking_server(monkeypatch: pytest.MonkeyPatch) -> None:
    from bayling.config import compose

    monkeypatch.setitem(os.environ, "MLFLOW_TRACKING_URI", "http://mlflow.example")
    assert compose(["recipe=smoke"]).tracking == "http://mlflow.example"
