"""Which lines of the pod that submits are the stage's: the log is one of KubeRay 1.7."""

from __future__ import annotations

import pytest

from bayling.cluster.submitter_log import OwnLines

pytestmark = pytest.mark.unit

BEGIN = """\
2026-11-26 05:41:05,244\tINFO cli.py:42 -- \x1b[37mJob submission server address\x1b[39m: http
2026-11-26 05:41:05,390\tSUCC cli.py:66 -- \x1b[32m-----\x1b[39m
2026-11-26 05:41:05,390\tSUCC cli.py:67 -- \x1b[32mJob 'a-b67j7' submitted successfully\x1b[39m
2026-11-26 05:41:05,396\tINFO cli.py:330 -- \x1b[36mNext steps\x1b[39m
2026-11-26 05:41:05,397\tINFO cli.py:333 -- \x1b[1mray job logs a-b67j7\x1b[22m
2026-11-26 05:41:07,052\tINFO cli.py:42 -- \x1b[37mJob submission server address\x1b[39m: http
2026-11-26 05:40:31,174\tINFO job_manager.py:581 -- Runtime env is setting up.""".splitlines()
OWN = [
    "Running entrypoint for job a-b67j7: python -m bayling.cli data",
    "05:42:47 data 1/5 begins",
    "",
    "2026/11/26 05:50:23 INFO mlflow.store: Waiting for the model version",
    "bayling: MLflow does not answer",
]
END = """\
2026-11-26 05:41:12,074\tINFO sdk.py:520 -- WebSocket closed for job a-b67j7 with close code 1000
2026-11-26 05:41:12,080\tERR cli.py:74 -- \x1b[31m-----\x1b[39m
2026-11-26 05:41:12,080\tERR cli.py:75 -- \x1b[31mJob 'a-b67j7' failed\x1b[39m
2026-11-26 05:41:12,081\tINFO cli.py:89 -- Status message: Entrypoint failed with exit code 1
2026-11-26 05:40:31,174\tINFO job_manager.py:581 -- Runtime env is setting up.
bayling: MLflow does not answer
""".splitlines()


def _shown(lines: list[str]) -> list[str]:
    own = OwnLines()
    return [line for line in lines if line in own]


def test_the_stages_lines_are_shown_once() -> None:
    assert _shown([*BEGIN, *OWN, *END]) == OWN


def test_a_stage_that_fails_before_it_says_anything_shows_nothing() -> None:
    assert _shown([*BEGIN, *END]) == []


def test_what_a_second_submission_says_is_shown_again() -> None:
    assert _shown([*BEGIN, *OWN, *END, *BEGIN, *OWN]) == [*OWN, *OWN]
