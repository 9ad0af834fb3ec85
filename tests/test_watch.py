from __future__ import annotations

import pytest

from bayling import watch
from bayling.watch import Plain, duration

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (59, "59 s"), (61, "1 min"), (3599, "1 h 00 min"), (11100, "3 h 05 min")],
)
def test_a_duration_is_said_as_a_person_would(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_a_log_says_how_long_it_will_take(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(watch.time, "monotonic", lambda: now[0])
    plain = Plain()
    plain.stage("train", "2/5")
    for seconds, step in ((1, 100), (11, 200), (31, 400)):  # going on from step 100: 10 a second
        now[0] = seconds
        plain.progress(f"step {step}", step, 1000)
    lines = capsys.readouterr().err.splitlines()
    assert lines[1].endswith("train 20 % · step 200 · 1 min left")
    assert lines[2].endswith("train 40 % · step 400 · 1 min left")
    now[0] = 61.0
    plain.progress("step 700", 700, 1000)
    assert capsys.readouterr().err.strip().endswith("train 70 % · step 700 · 30 s left")


def test_before_there_is_a_pace_nothing_is_promised(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(watch.time, "monotonic", lambda: now[0])
    plain = Plain()
    plain.stage("train", "2/5")
    now[0] = 20.0
    plain.progress("starting workers", 0, 1000)
    now[0] = 40.0
    plain.progress("scoring", 0, 0)
    assert "left" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("reports", "promised"),
    [
        # 700 steps at 10 a second: what goes back to a checkpoint begins again.
        (((20, 0), (40, 400), (140, 100), (160, 300)), [False, False, False, True]),
        # 800 steps at 10 a second, as soon as two reports tell how fast.
        (((10, 0), (90, 0), (110, 100), (120, 200)), [False, False, False, True]),
    ],
    ids=["after a restart", "after workers took long to start"],
)
def test_the_pace_is_that_of_steps_one_after_the_other(
    reports: tuple[tuple[float, int], ...],
    promised: list[bool],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = [0.0]
    monkeypatch.setattr(watch.time, "monotonic", lambda: now[0])
    plain = Plain()
    plain.stage("train", "2/5")
    for at, step in reports:
        now[0] = at
        plain.progress(f"step {step}", step, 1000)
    lines = capsys.readouterr().err.splitlines()[1:]
    assert [line.endswith("left") for line in lines] == promised
    assert lines[-1].endswith(f"step {reports[-1][1]} · 1 min left")


def test_before_a_stage_begins_a_line_has_no_name(capsys: pytest.CaptureFixture[str]) -> None:
    plain = Plain()
    plain.note("waiting for another pod")
    assert capsys.readouterr().err.split(" ", 1)[1] == "waiting for another pod\n"
