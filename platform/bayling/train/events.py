"""What went wrong in a run and what was done about it: `events.jsonl` in the run's folder.

Workers and the driver append lines; the driver tells the person who watches, and keeps the file
with the run in MLflow.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

EVENTS = "events.jsonl"


_lock = threading.Lock()
_waiting: defaultdict[Path, list[bytes]] = defaultdict(list)
"""Lines for which there was no room: a full disk is often what an event is about."""


def record(folder: Path, text: str, **detail: Any) -> None:
    """Append an event: one sentence for a person, and details for whoever looks closer.

    Where that fails, it is appended by a later `record` or `retry` of this process.
    """
    line = json.dumps({"time": time.time(), "text": text, **detail}, ensure_ascii=False) + "\n"
    with _lock:
        _waiting[folder].append(line.encode())
        _append(folder)


def retry(folder: Path) -> None:
    """Append what could not be, if there is anything; to be called now and then."""
    with _lock:
        if _waiting[folder]:
            _append(folder)


def _append(folder: Path) -> None:
    waiting = _waiting[folder]
    try:
        file = os.open(folder / EVENTS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    except OSError:
        return
    try:
        while waiting:
            # One write in append mode: lines of several processes do not mix.
            written = os.write(file, waiting[0])
            if written < len(waiting[0]):  # half a line must not be followed by a whole one
                os.ftruncate(file, os.fstat(file).st_size - written)
                return
            waiting.pop(0)
    except OSError:
        return
    finally:
        os.close(file)


class Reader:
    """Reads what was appended since the last time."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / EVENTS
        self._place = self._path.stat().st_size if self._path.exists() else 0

    def new(self) -> list[dict[str, Any]]:
        """The events that were not read yet, in order."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._place)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._place += len(whole)
        return [json.loads(line) for line in whole.splitlines()]
