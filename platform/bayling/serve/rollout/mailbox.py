"""Letters between the controller and MLflow, carried by a thread of their own.

A tracking server that is slow or away must not keep a bad version in traffic: the controller never
waits for it. What it writes is carried in order once the server is back; of the status only the
newest.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from bayling.serve.rollout.record import Record, Registered

log = logging.getLogger(__name__)

_MOST = 1000
"""Letters that wait. Of a server that is away for days the oldest are let go."""


def hurry() -> None:
    """Have MLflow's client give up soon, in this process. Left alone it retries for minutes; a
    controller's next round is the retry."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")


class Mailbox:
    """Reads the registry now and then, and writes to it what it was given."""

    def __init__(self, record: Record, every_s: float, latest: Registered | None = None) -> None:
        """
        Args:
            every_s: how often to look for something new.
            latest: what was read before.
        """
        self._record = record
        self._every_s = every_s
        self._lock = threading.Condition()
        self._letters: deque[Callable[[], None]] = deque(maxlen=_MOST)
        self._status: Mapping[str, Any] | None = None
        self._latest = latest
        self._carrying = self._closing = False
        self.trouble: str | None = None
        """Why MLflow could not be asked the last time; None when it could."""
        hurry()
        self._thread = threading.Thread(target=self._run, daemon=True, name="rollout record")
        self._thread.start()

    def latest(self) -> Registered | None:
        """What the registry said the last time that it answered."""
        return self._latest

    def status(self, status: Mapping[str, Any]) -> None:
        """Have a status written, in place of one that waits still."""
        with self._lock:
            self._status = status
            self._lock.notify_all()

    def send(self, letter: Callable[[], None]) -> None:
        """Have something written, after what was given before."""
        with self._lock:
            self._letters.append(letter)
            self._lock.notify_all()

    def delivered(self, within_s: float) -> bool:
        """Wait until everything is written; whether it was within the time."""
        with self._lock:
            return self._lock.wait_for(
                lambda: self._status is None and not self._letters and not self._carrying, within_s
            )

    def close(self, within_s: float) -> None:
        """Write what is left, and end."""
        if not self._thread.is_alive():
            return
        self.delivered(within_s)
        with self._lock:
            self._closing = True
            self._lock.notify_all()
        self._thread.join(1)

    def _run(self) -> None:
        while not self._closing:
            try:
                self._carry()
                self._latest = self._record.read()
                if self.trouble is not None:
                    log.warning("MLflow answers again")
                self.trouble = None
            except Exception as error:
                if self.trouble is None:
                    log.warning("MLflow does not answer, rollouts go on without it: %s", error)
                self.trouble = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            with self._lock:
                if self.trouble is not None:
                    self._lock.wait_for(lambda: self._closing, self._every_s)
                else:
                    self._lock.wait_for(
                        lambda: self._closing or self._status is not None or bool(self._letters),
                        self._every_s,
                    )

    def _carry(self) -> None:
        while True:
            with self._lock:
                status, letter = self._status, self._letters[0] if self._letters else None
                if status is None and letter is None:
                    return
                self._carrying = True
            try:
                if status is not None:
                    self._record.write_status(status)
                elif letter is not None:
                    self._write(letter)
                with self._lock:
                    if status is None:
                        self._letters.remove(letter)  # type: ignore[arg-type]
                    elif self._status is status:
                        self._status = None
            finally:
                with self._lock:
                    self._carrying = False
                    self._lock.notify_all()

    def _write(self, letter: Callable[[], None]) -> None:
        try:
            letter()
        except Exception as error:
            self._record.read()  # raises where it is MLflow that is away: the letter is kept
            log.warning("something about a rollout could not be written to MLflow: %s", error)
