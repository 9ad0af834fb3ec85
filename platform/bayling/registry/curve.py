"""A training curve that survives restarts and an absent tracking server.

Every row is first a line in a local file, which outlives the process; a thread sends the lines
and notes how far it came. A step that was logged before a restart is left out the second time,
and a line that was sent but not noted is sent again, which the store takes for the same row: key,
step, timestamp and value are equal.
"""

from __future__ import annotations

import json
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from bayling.registry.runs import client
from bayling.stage import TrackedRun

_EVERY_S = 5.0
_AT_ONCE = 900
"""MLflow takes 1,000 metrics in one request."""


class Curve:
    """Writes the metrics of one run, from one process at a time."""

    def __init__(self, tracked: TrackedRun, path: Path) -> None:
        self._tracked, self._path = tracked, path
        self._sent_path = path.with_suffix(".sent")
        self._client: Any = None
        self._file = _open_whole_lines(path)
        self.last_step = _last_step(path)
        self._wake, self._closing = threading.Event(), threading.Event()
        self._idle = threading.Condition()
        self._written = path.stat().st_size
        self._unwritten: list[bytes] = []
        self._sent = self._sent_before()
        self.trouble: str | None = None
        """Why the last attempt to send failed; None when it did not."""
        # MLflow itself retries for minutes: here the next round is the retry.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        self._thread = threading.Thread(target=self._run, daemon=True, name="metrics")
        self._thread.start()

    def log(self, step: int, values: dict[str, float]) -> None:
        """Add a row; one of a step that is there already is left out.

        On a full disk the row waits for the next one, or for `close`: training must not end for it.
        """
        if step <= self.last_step:
            return
        self.last_step = step
        row = {"step": step, "time": int(time.time() * 1000), "values": values}
        self._unwritten.append(json.dumps(row).encode() + b"\n")
        self._write()

    def flush(self, patience_s: float) -> bool:
        """Send what is left; whether all of it arrived within `patience_s`."""
        deadline = time.monotonic() + patience_s
        self._wake.set()
        with self._idle:
            while self._sent < self._written:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._idle.wait(min(left, 1.0))
                self._wake.set()
        return True

    def close(self) -> None:
        """End the thread; what was not sent stays in the file for the next `Curve` on it."""
        self._closing.set()
        self._wake.set()
        self._thread.join(30)
        self._write()
        self._file.close()

    def _write(self) -> None:
        """Append what waits, all of it or, on a full disk, nothing."""
        content = memoryview(b"".join(self._unwritten))
        done = 0
        try:
            while done < len(content):
                done += self._file.write(content[done:])
            os.fsync(self._file.fileno())
        except OSError:
            with suppress(OSError):  # half a line must not be followed by a whole one
                self._file.truncate(self._written)
            return
        self._written += len(content)
        self._unwritten.clear()

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wake.wait(_EVERY_S)
            self._wake.clear()
            try:
                self._send()
                self.trouble = None
            except Exception as error:  # whatever it is, training must not end for it
                self.trouble = str(error).strip().splitlines()[0][:200] if str(error) else "?"
                self._closing.wait(0.5)

    def _send(self) -> None:
        from mlflow.entities import Metric

        while self._sent < self._written:
            with self._path.open("rb") as file:
                file.seek(self._sent)
                metrics: list[Any] = []
                end = self._sent
                while len(metrics) < _AT_ONCE and (line := file.readline()).endswith(b"\n"):
                    row = json.loads(line)
                    new = [
                        Metric(key, value, row["time"], row["step"])
                        for key, value in row["values"].items()
                    ]
                    if metrics and len(metrics) + len(new) > _AT_ONCE:
                        break
                    metrics += new
                    end = file.tell()
            if end == self._sent:
                return
            for start in range(0, len(metrics), _AT_ONCE):
                self._store().log_batch(
                    self._tracked.run_id, metrics=metrics[start : start + _AT_ONCE]
                )
            aside = self._sent_path.with_suffix(".new")
            aside.write_text(f"{self._tracked.run_id} {end}", "utf-8")
            aside.replace(self._sent_path)
            with self._idle:
                self._sent = end
                self._idle.notify_all()

    def _store(self) -> Any:
        if self._client is None:
            self._client = client(self._tracked.tracking_uri)
        return self._client

    def _sent_before(self) -> int:
        try:
            run_id, sent = self._sent_path.read_text("utf-8").split()
        except (OSError, ValueError):
            return 0
        # Another run, because the store was replaced, gets the whole curve.
        return min(int(sent), self._written) if run_id == self._tracked.run_id else 0


def _open_whole_lines(path: Path) -> Any:
    """Open for appending; half a line that a killed process left is cut off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        file.seek(0)
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
    return path.open("ab", buffering=0)


def _last_step(path: Path) -> int:
    lines = path.read_bytes().splitlines()
    return int(json.loads(lines[-1])["step"]) if lines else 0
