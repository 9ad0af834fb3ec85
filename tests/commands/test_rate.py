"""`bayling rate` from its first line to Ctrl-C, and `bayling rate results`."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from mlflow import MlflowClient
from rated import answered, vote, write_answers
from running import free_port

from bayling.cli import main
from bayling.rating.votes import Journal


def systems(folder: Path) -> list[str]:
    rows = answered("red")
    red = write_answers(folder / "red.jsonl", rows)
    blue = write_answers(folder / "blue.jsonl", [*rows[:1], *answered("blue")[1:-1]])
    return [str(red), f"azure={blue}"]


@contextmanager
def rating(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str, list[str]]]:
    """The command while its page is up: the process, its link, and what it has said."""
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root / "platform"), "COLUMNS": "120"}
    command = [sys.executable, "-m", "bayling.cli", "rate", *arguments]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    said: list[str] = []
    try:
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line)
            if found := re.search(r"rate at (http\S+)", line):
                break
        else:
            raise AssertionError("".join(said))
        yield process, found[1], said
    finally:
        process.kill()
        process.wait()


def interrupted(process: subprocess.Popen[str]) -> tuple[str, str]:
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out, err


def test_from_the_link_to_the_run_in_mlflow(tmp_path: Path) -> None:
    arguments = [*systems(tmp_path), f"output_dir={tmp_path}/outputs", "--port", str(free_port())]
    body = {"rater": "Ana", "ranks": [1, 2], "bad": False, "seconds": 2}
    with rating(*arguments) as (process, link, said):
        told = "".join(said)
        assert "2 systems: red, azure" in told
        assert "2 of 3 questions that all have answered" in told
        assert "1 more have no answer of azure" in told
        assert "1 have the same answer from all" in told
        for number in range(2):
            sent = httpx.put(f"{link}api/items/{number}/vote", json=body, trust_env=False)
            assert sent.status_code == 200
        out, err = interrupted(process)
    assert "2 votes of 1 rater on 2 items" in out
    [run_id] = re.findall(r"in MLflow: run (\w+) of bayling", err)
    run = MlflowClient(f"sqlite:///{tmp_path}/outputs/mlflow.db").get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["all/votes"] == 2

    away = f"tracking_uri=http://127.0.0.1:{free_port()}"
    with rating(*arguments, away) as (process, link, said):
        [path] = re.findall(r"votes: (\S+), 2 until now", "".join(said))
        seen = httpx.get(f"{link}api/progress?rater=Ana", trust_env=False).json()
        assert [item["done"] for item in seen["items"]] == [True, True]
        out, err = interrupted(process)
    assert "the votes are not in MLflow yet" in err
    assert path in err
    assert len(Path(path).read_text().splitlines()) == 2


def test_beyond_this_machine_the_link_has_a_token(tmp_path: Path) -> None:
    arguments = [*systems(tmp_path), f"output_dir={tmp_path}/outputs", "--host", "0.0.0.0"]
    with rating(*arguments, "--port", "0") as (process, link, _):
        page, _, token = link.partition("#")
        assert len(token) >= 32
        port = page.rstrip("/").rsplit(":", 1)[1]
        url = f"http://127.0.0.1:{port}/api/overview"
        assert httpx.get(url, trust_env=False).status_code == 401
        headers = {"authorization": f"Bearer {token}"}
        assert httpx.get(url, headers=headers, trust_env=False).status_code == 200
        _, err = interrupted(process)
    assert err.strip().endswith("no votes")


def _fails(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(["rate", *argv]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("bayling: ")
    return said


@pytest.mark.unit
def test_wrong_usage_is_one_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    red, blue = systems(tmp_path)
    out = f"output_dir={tmp_path}"
    assert "1 systems to compare (red)" in _fails(capsys, red, out)
    assert "0 systems to compare (none)" in _fails(capsys, out)
    assert "cannot read the answers nowhere.jsonl" in _fails(capsys, red, "x=nowhere.jsonl", out)
    assert "is not a key of the configuration" in _fails(capsys, red, blue, "recpie=x")
    assert "--sample must be at least 1" in _fails(capsys, red, blue, out, "--sample", "0")
    assert "a rater's name has 1 to" in _fails(capsys, red, blue, out, "--rater", " ")
    assert "have the same answers to all" in _fails(capsys, red, f"again={red}", out)
    assert "has no run 'gone'" in _fails(capsys, "--run", "gone", out)
    taken = f"tracking_uri=http://127.0.0.1:{free_port()}"
    assert "does not answer" in _fails(capsys, "--run", "gone", out, taken)


@pytest.mark.unit
def test_a_port_in_use_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = _fails(capsys, *systems(tmp_path), f"output_dir={tmp_path}", "--port", port)
    assert f"port {port} on 127.0.0.1 cannot be listened on" in said
    assert "--port" in said


@pytest.mark.unit
def test_results_of_several_files(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    paths = []
    for rater, ranks in (("Ana", {"red": 1, "blue": 2}), ("Bo", {"red": 2, "blue": 1})):
        journal = Journal(tmp_path / f"{rater}.jsonl")
        for number in range(30 if rater == "Ana" else 10):
            journal.append(vote(ranks, item=str(number), rater=rater).line())
        paths.append(str(journal.path))
    figures = tmp_path / "figures.json"
    assert main(["rate", "results", *paths, "--json", str(figures)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "all: 40 votes of 2 raters on 30 items" in shown
    assert "1 red 75.0%" in shown
    assert "30, 0, 10" in shown
    assert "Cohen's kappa 0.00" in shown
    assert "0% of verdicts the same, 2 raters on 10 shared items" in shown
    made = json.loads(figures.read_text())["all"]
    assert made["systems"]["red"]["win_share"] == 0.75
    assert made["systems"]["red"]["wins"] == 30
    assert made["agreement"]["items"] == 10


@pytest.mark.unit
def test_results_of_nothing_are_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "votes.jsonl").touch()
    assert "no votes in" in _fails(capsys, "results", str(tmp_path / "votes.jsonl"))
    assert "cannot read the votes" in _fails(capsys, "results", str(tmp_path / "gone.jsonl"))
