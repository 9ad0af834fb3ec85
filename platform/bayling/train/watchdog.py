"""Finds a worker that is stuck, shows where it hangs, and ends it so that Ray replaces it.

A collective that one worker never joins blocks all the others for good: no process dies and no
error appears. Each worker therefore keeps a file with two counters: one that its training thread
moves on, one that a thread of its own does. The driver, which sees the files on the run's shared
storage, takes a worker for stuck when neither or, on all of them, not the first moved for a
configured time.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sysconfig
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

_BEAT_S = 1.0
_DUMP_S = 20
_BYTES = 512
"""Of a beat's file; the rest is blanks."""


@dataclass
class Beat:
    """A worker's sign of life."""

    rank: int
    pid: int
    node: str
    """Ray's id of the node."""
    attempt: str
    started: int
    """When the process did, in the kernel's ticks: tells it from a later one of the same id."""
    progress: int = 0
    """Moved on by the training thread."""
    alive: int = 0
    """Moved on by a thread of its own: stands still only when the whole process does."""

    @staticmethod
    def of_this_process(rank: int, node: str, attempt: str) -> Beat:
        pid = os.getpid()
        return Beat(rank, pid, node, attempt, _started(pid) or 0)

    def file(self, folder: Path) -> Path:
        """Where it is kept. Sorts by rank."""
        return folder / f"beat-{self.rank:05d}-{self.attempt}.json"


def forget_earlier(folder: Path, attempt: str) -> None:
    """Remove what earlier attempts left; the workers of this one may have begun to beat."""
    for old in folder.glob("beat-*.json"):
        if not old.stem.endswith(f"-{attempt}"):
            old.unlink(missing_ok=True)


class Heart:
    """The worker's side: write the beat once a second, until `stop`.

    Always to the same bytes of one file, which needs no room: on a disk that became full, workers
    that train on must not be taken for stuck.
    """

    def __init__(self, folder: Path, beat: Beat) -> None:
        self._path = beat.file(folder)
        self._beat = beat
        self._done = threading.Event()
        folder.mkdir(parents=True, exist_ok=True)
        self._file: int | None = None
        self._thread = threading.Thread(target=self._run, daemon=True, name="heart")
        self._thread.start()

    def progress(self) -> None:
        """The training thread went a step further."""
        self._beat.progress += 1

    def stop(self) -> None:
        """The worker is done: nobody needs to wait for it any more."""
        self._done.set()
        self._thread.join()
        self._path.unlink(missing_ok=True)
        if self._file is not None:
            os.close(self._file)

    def _run(self) -> None:
        while not self._done.is_set():
            self._beat.alive += 1
            with suppress(OSError):  # a full disk is not what this thread is for
                self._write(json.dumps(asdict(self._beat)).encode())
            self._done.wait(_BEAT_S)

    def _write(self, beat: bytes) -> None:
        if self._file is None:
            # Whoever looks finds all of it or nothing.
            aside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
            aside.write_bytes(beat.ljust(_BYTES))
            aside.rename(self._path)
            self._file = os.open(self._path, os.O_WRONLY)
        else:
            os.pwrite(self._file, beat.ljust(_BYTES), 0)


@dataclass(frozen=True)
class Stuck:
    """Workers that have to be replaced, and why."""

    beats: list[Beat]
    reason: str


class Watch:
    """The driver's side. Compares by its own clock: those of the nodes may differ."""

    def __init__(self, folder: Path, after_s: float) -> None:
        self._folder, self._after_s = folder, after_s
        self._moved: dict[int, tuple[Beat, float, float]] = {}

    def check(self) -> Stuck | None:
        """Who is stuck by now; None where nobody is."""
        now = time.monotonic()
        beats = self._read()
        before = {beat.attempt for beat, _, _ in self._moved.values()}
        if before != {beat.attempt for beat in beats}:
            self._moved = {}
        for beat in beats:
            known, alive, progress = self._moved.get(beat.rank, (beat, now, now))
            alive = now if beat.alive != known.alive else alive
            progress = now if beat.progress != known.progress else progress
            self._moved[beat.rank] = (beat, alive, progress)
        for rank in set(self._moved) - {beat.rank for beat in beats}:
            del self._moved[rank]  # it is done
        stopped = [beat for beat, alive, _ in self._moved.values() if now - alive > self._after_s]
        if stopped:
            return self._report(stopped, "gave no sign of life")
        # Before the first progress a worker loads its model, for as long as the storage takes;
        # collectives that fail then have torch's own limit.
        late = [
            beat
            for beat, _, last in self._moved.values()
            if beat.progress and now - last > self._after_s
        ]
        if late and len(late) == len(self._moved):
            # All of them wait; whoever is furthest behind is being waited for.
            least = min(beat.progress for beat in late)
            return self._report([b for b in late if b.progress == least], "made no progress")
        return None

    def _report(self, beats: list[Beat], what: str) -> Stuck:
        self._moved = {}
        ranks = ", ".join(str(beat.rank) for beat in beats)
        return Stuck(beats, f"worker {ranks} {what} for {self._after_s:g} s")

    def _read(self) -> list[Beat]:
        beats = []
        for path in sorted(self._folder.glob("beat-*.json")):
            try:
                beats.append(Beat(**json.loads(path.read_text("utf-8"))))
            except (OSError, ValueError, TypeError):
                continue  # it is being replaced
        return beats


def dump_and_kill(beat: Beat) -> str:
    """The stacks of a worker on this machine, which is ended afterwards; empty if it was gone.

    py-spy reads the memory of a stopped process. Where it may not (a container without
    `SYS_PTRACE`), what the kernel says of the process has to do.
    """
    pid = beat.pid
    if _started(pid) != beat.started:
        return ""
    # Beside the interpreter, whose environment need not be the one of the shell.
    py_spy = Path(sysconfig.get_path("scripts")) / "py-spy"
    command = [str(py_spy), "dump", "--nonblocking", "--pid", str(pid)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_DUMP_S)
        text = done.stdout or done.stderr
    except (OSError, subprocess.TimeoutExpired) as error:
        text = str(error)
    if "Thread" not in text:
        text += "\n" + _kernel_view(pid)
    os.kill(pid, signal.SIGKILL)
    return text.strip()


def _started(pid: int) -> int | None:
    try:
        # The name, in brackets, may hold spaces: field 22 is the 20th after it.
        return int(Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def _kernel_view(pid: int) -> str:
    parts = []
    for name in ("status", "wchan", "stack"):
        try:
            content = Path(f"/proc/{pid}/{name}").read_text("utf-8")
        except OSError:
            continue
        lines = content.splitlines()
        kept = [line for line in lines if line.startswith(("State", "Threads"))]
        parts.append(f"{name}: " + "; ".join(kept if name == "status" else lines))
    return "\n".join(parts)
