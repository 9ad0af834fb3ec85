"""A stage's command through KubeRay's script, `ray job submit` and Ray's own shell."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from bayling.cluster import rayjob
from bayling.cluster.entrypoint import COMMANDS
from bayling.cluster.installation import Installation
from bayling.config import compose

_SAY = "import json, sys; print(json.dumps(sys.argv[1:]))"


def _split(script: str) -> list[str]:
    """What a shell makes of words."""
    program = f'exec "{sys.executable}" -c "{_SAY}" {script}'
    done = subprocess.run(["bash", "-ce", program], capture_output=True, text=True, check=True)
    return list(json.loads(done.stdout))


def _submitted(words: list[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """The entrypoint that `ray job submit` sends for these words."""
    from click.testing import CliRunner
    from ray.dashboard.modules.job import cli

    sent: list[str] = []

    class Client:
        def submit_job(self, *, entrypoint: str, **_: Any) -> str:
            sent.append(entrypoint)
            return "x"

    monkeypatch.setattr(cli, "_get_sdk_client", lambda *_, **__: Client())
    CliRunner().invoke(cli.submit, ["--address", "http://h", "--no-wait", "--", *words])
    return sent[0]  # what it does after that needs a server


def test_overrides_arrive_as_they_were_written(monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = [
        "recipe=quickstart",
        "data.languages=[en,zh,de]",
        "train.learning_rate=1e-3",
        "model.source='/mnt/a b/c'",
        'name="x"',
        "k=$HOME; rm *",
        "k=`id` && ~/x #!",
        "k={a: 'b  c'}",
        'k=a\\"b',
        "k=日本 ü",
        "k=a\nb",
        "k=",
        "",
    ]
    config = compose([])
    job = rayjob.Job("a-job", "train", overrides)
    there = Installation.assume("bayling", "ml")
    made = rayjob.manifest(job, config.scale, there, "ml")
    # KubeRay pastes the entrypoint into a script of bash.
    words = _split(made["spec"]["entrypoint"])
    arrived = _split(_submitted(words, monkeypatch))
    assert arrived == ["python", "-m", "bayling.cli", "train", *overrides]


@pytest.mark.unit
def test_every_stage_but_serve_can_be_submitted() -> None:
    from bayling.cli import STAGE_HELP

    assert set(COMMANDS) == {*STAGE_HELP, "pipeline", "preflight"} - {"serve"}
