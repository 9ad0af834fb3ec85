from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from bayling.stage import write_json
from bayling.train.watchdog import Beat, Heart, Stuck, Watch, dump_and_kill, forget_earlier

_WORKER = """
import sys, time
from pathlib import Path
from bayling.train.watchdog import Beat, Heart

def training():
    heart = Heart(Path(sys.argv[1]), Beat.of_this_process(int(sys.argv[2]), "node", "attempt"))
    heart.progress()
    while True:
        if sys.argv[3] == "moves":
            heart.progress()
        time.sleep(0.05)

training()
"""
AFTER = 8.0


@contextmanager
def worker(folder: Path, rank: int = 0, does: str = "moves") -> Iterator[subprocess.Popen[bytes]]:
    """A process that gives signs of life, and goes on with its work or does not."""
    process = subprocess.Popen([sys.executable, "-c", _WORKER, str(folder), str(rank), does])
    try:
        deadline = time.monotonic() + 60
        while not any(folder.glob(f"beat-{rank:05d}-*.json")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.wait()


def found(watch: Watch, seconds: float = 60) -> Stuck:
    deadline = time.monotonic() + seconds
    while (stuck := watch.check()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return stuck


def test_a_stopped_process_is_found_shown_and_ended(tmp_path: Path) -> None:
    with worker(tmp_path, 0) as healthy, worker(tmp_path, 1) as stopped:
        watch = Watch(tmp_path, AFTER)
        assert watch.check() is None
        os.kill(stopped.pid, signal.SIGSTOP)
        stuck = found(watch)
        assert [beat.rank for beat in stuck.beats] == [1]
        assert stuck.reason == "worker 1 gave no sign of life for 8 s"
        stacks = dump_and_kill(stuck.beats[0])
        assert "training (<string>" in stacks, stacks
        assert stopped.wait(60) == -signal.SIGKILL
        assert healthy.poll() is None
        assert dump_and_kill(stuck.beats[0]) == "", "it is gone by now"


def test_a_collective_that_nobody_leaves_is_found(tmp_path: Path) -> None:
    """All processes live and none goes on; the one furthest behind is ended."""
    with worker(tmp_path, 0, "hangs") as first, worker(tmp_path, 1, "hangs"):
        watch = Watch(tmp_path, AFTER)
        stuck = found(watch)
        assert stuck.reason == "worker 0, 1 made no progress for 8 s"
        assert "Thread" in dump_and_kill(stuck.beats[0])
        assert first.wait(60) == -signal.SIGKILL


class Clock:
    """Time that a test moves on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("bayling.train.watchdog.time.monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def beat(rank: int, progress: int, alive: int, attempt: str = "a") -> Beat:
    return Beat(rank, 1, "node", attempt, 1, progress, alive)


def write(folder: Path, *beats: Beat) -> None:
    for one in beats:
        write_json(one.file(folder), asdict(one))


@pytest.mark.unit
def test_of_several_that_wait_the_one_furthest_behind_is_taken(
    tmp_path: Path, clock: Clock
) -> None:
    watch = Watch(tmp_path, 10)
    for alive in range(12):
        write(tmp_path, beat(0, 7, alive), beat(1, 6, alive), beat(2, 7, alive))
        stuck = watch.check()
        assert (stuck is not None) == (alive == 11)
        clock.now += 1
    assert stuck is not None
    assert [one.rank for one in stuck.beats] == [1]
    assert stuck.reason == "worker 1 made no progress for 10 s"
    assert watch.check() is None, "they get the same time again"


@pytest.mark.unit
def test_while_one_goes_on_the_others_may_wait_for_it(tmp_path: Path, clock: Clock) -> None:
    """Rank 0 alone writes an export, say."""
    watch = Watch(tmp_path, 10)
    for second in range(40):
        write(tmp_path, beat(0, second, second), beat(1, 6, second))
        assert watch.check() is None
        clock.now += 1


@pytest.mark.unit
def test_loading_a_model_takes_as_long_as_it_takes(tmp_path: Path, clock: Clock) -> None:
    watch = Watch(tmp_path, 10)
    for second in range(40):
        write(tmp_path, beat(0, 0, second), beat(1, 0, second))
        assert watch.check() is None
        clock.now += 1


@pytest.mark.unit
def test_a_worker_that_is_done_is_not_waited_for(tmp_path: Path, clock: Clock) -> None:
    watch = Watch(tmp_path, 10)
    write(tmp_path, beat(0, 1, 1), beat(1, 1, 1))
    assert watch.check() is None
    for path in tmp_path.glob("beat-*.json"):
        path.unlink()
    clock.now += 60
    assert watch.check() is None


@pytest.mark.unit
def test_a_new_attempt_starts_with_all_its_time(tmp_path: Path, clock: Clock) -> None:
    watch = Watch(tmp_path, 10)
    write(tmp_path, beat(0, 1, 1), beat(1, 1, 1))
    assert watch.check() is None
    clock.now += 9
    write(tmp_path, beat(1, 1, 1, "b"))
    forget_earlier(tmp_path, "b")
    write(tmp_path, beat(0, 1, 1, "b"))
    assert watch.check() is None
    clock.now += 9
    assert watch.check() is None
    clock.now += 2
    stuck = watch.check()
    assert stuck is not None
    assert {(one.attempt, one.rank) for one in stuck.beats} == {("b", 0), ("b", 1)}


@pytest.mark.unit
def test_what_is_no_beat_is_not_looked_at(tmp_path: Path, clock: Clock) -> None:
    for number, content in enumerate(("", "{", "[]", "{}")):
        (tmp_path / f"beat-{number:05d}-a.json").write_text(content)
    watch = Watch(tmp_path, 10)
    for _ in range(30):
        assert watch.check() is None
        clock.now += 1


def test_a_process_that_has_the_number_of_an_old_worker_is_not_touched(tmp_path: Path) -> None:
    with worker(tmp_path) as process:
        own = Beat.of_this_process(0, "node", "a")
        assert own.pid == os.getpid()
        other = replace(own, pid=process.pid, started=own.started - 1)
        assert dump_and_kill(other) == ""
        time.sleep(0.2)
        assert process.poll() is None


def test_a_heart_beats_until_it_is_stopped(tmp_path: Path) -> None:
    heart = Heart(tmp_path, Beat.of_this_process(3, "node", "a"))
    path = tmp_path / "beat-00003-a.json"
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    heart.stop()
    assert not path.exists()
    time.sleep(1.2)
    assert list(tmp_path.iterdir()) == []
