"""What a person sees while a job is followed: its log, and a line that says how it is."""

from __future__ import annotations

import sys
import threading
import time

_AGAIN_S = 60.0


class Screen:
    """The log goes to standard output, all else to standard error.

    On a terminal the state is one moving line below the log; elsewhere a line when it changes,
    and one a minute.
    """

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._lock = threading.Lock()
        self._shown, self._state, self._said = "", "", -_AGAIN_S

    def log(self, line: str) -> None:
        """A line of the job's."""
        with self._lock:
            self._clear()
            print(line, flush=True)
            self._draw()

    def note(self, text: str) -> None:
        """Something that is to stay on the screen."""
        with self._lock:
            self._clear()
            print(f"bayling: {text}", file=sys.stderr, flush=True)
            self._draw()

    def status(self, state: str, more: str) -> None:
        """How the job is: what changes seldom, and what changes always."""
        with self._lock:
            line = f"{state} · {more}"
            if self._terminal:
                self._clear()
                self._shown = line
                self._draw()
            elif state != self._state or time.monotonic() - self._said > _AGAIN_S:
                print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)
                self._said = time.monotonic()
            self._state = state

    def close(self) -> None:
        with self._lock:
            self._clear()
            self._shown = ""

    def _clear(self) -> None:
        if self._terminal and self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def _draw(self) -> None:
        if self._terminal and self._shown:
            import shutil

            width = shutil.get_terminal_size().columns - 1
            print(self._shown[:width], end="", file=sys.stderr, flush=True)
