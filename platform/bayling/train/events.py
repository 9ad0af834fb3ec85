"""What went wrong in a run and what was done about it: `events.jsonl` in the run's folder.

Workers and the driver append lines; the driver tells the person who watches, and keeps the file
with the run in MLflow.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

EVENTS = "events.jsonl"


def record(folder: Path, text: str, **detail: Any) -> None:
    """Append an event: one sentence for a person, and details for whoever looks closer."""
    line = json.dumps({"time": time.time(), "text": text, **detail}, ensure_ascii=False) + "\n"
    # One write in append mode: lines of several processes do not mix.
    try:
        file = os.open(folder / EVENTS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)
    except OSError:  # a full disk is often what the event is about
        pass


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
