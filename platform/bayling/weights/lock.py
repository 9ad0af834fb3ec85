"""A lock on shared storage: of many processes on many nodes, one works and the others wait.

It is a file that only one can create. `flock` is not used: on some network file systems it
succeeds for everybody. The holder touches its file now and then; a waiter that sees no touch for
long enough, by its own clock, takes the holder for dead. A holder on the same machine whose
process is gone is known to be dead at once.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bayling.errors import StageFailed

BEAT_SECONDS = 10.0
STALE_SECONDS = 120.0
POLL_SECONDS = 1.0
_mine: set[str] = set()
"""Tokens that this process holds: its own id in a lock file may be that of an earlier one."""


@dataclass(frozen=True)
class _Owner:
    host: str
    pid: int
    namespace: str
    token: str

    def __str__(self) -> str:
        return f"{self.host} (process {self.pid})"

    def dead(self) -> bool:
        """Whether it is certain, from here, that the process is gone."""
        if (self.host, self.namespace) != (socket.gethostname(), _namespace()):
            return False
        if self.pid == os.getpid():
            return self.token not in _mine
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return False


class Held:
    """A lock that this process has, until it is given back or lost."""

    def __init__(self, path: Path, owner: _Owner) -> None:
        self._path = path
        self._owner = owner
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def check(self) -> None:
        """See that nobody took over, because this process had seemed dead.

        Raises:
            StageFailed: somebody did.
        """
        owner = _read(self._path)[0]
        if owner != self._owner:
            raise StageFailed(
                f"{owner or 'somebody'} took {self._path} over, because this process had not "
                f"been heard of for {STALE_SECONDS:.0f} s: give the same command again"
            )

    def release(self) -> None:
        self._end.set()
        self._thread.join()
        if _read(self._path)[0] == self._owner:
            self._path.unlink(missing_ok=True)
        _mine.discard(self._owner.token)

    def _beat(self) -> None:
        while not self._end.wait(BEAT_SECONDS):
            with suppress(OSError):
                if _read(self._path)[0] == self._owner:
                    os.utime(self._path)


@contextmanager
def held(path: Path, waiting: Callable[[str], None]) -> Iterator[Held]:
    """Hold the lock for the length of a block; waits until it is free.

    Args:
        waiting: told now and then, in words, whom this process waits for.
    """
    lock = _create(path)
    seen: tuple[_Owner | None, int] | None = None
    since = time.monotonic()
    while lock is None:
        now = _read(path)
        if now != seen:
            seen, since = now, time.monotonic()
        owner, touched = now
        if touched:
            waiting(str(owner or "an unknown process"))
            if (owner and owner.dead()) or time.monotonic() - since > STALE_SECONDS:
                _bury(path, owner)
            else:
                time.sleep(POLL_SECONDS)
        lock = _create(path)
    try:
        yield lock
    finally:
        lock.release()


def _create(path: Path) -> Held | None:
    owner = _Owner(socket.gethostname(), os.getpid(), _namespace(), uuid.uuid4().hex)
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return None
    _mine.add(owner.token)
    with os.fdopen(handle, "w") as file:
        file.write(json.dumps(vars(owner)))
    return Held(path, owner)


def _read(path: Path) -> tuple[_Owner | None, int]:
    """Who holds the lock and when it was last touched; (None, 0) when nobody does.

    The time is asked of the open file: network file systems cache that of a closed one.
    """
    try:
        with path.open() as file:
            touched = os.fstat(file.fileno()).st_mtime_ns
            return _Owner(**json.loads(file.read())), touched
    except FileNotFoundError:
        return None, 0
    except (OSError, ValueError, TypeError):
        return None, -1  # being created, or its creator died at that


def _bury(path: Path, dead: _Owner | None) -> None:
    """Take a dead owner's lock away, one process at a time.

    So nobody takes the lock of somebody who was faster: between the second look and the removal
    only the dead could change it.
    """
    guard = path.with_name(f"{path.name}.takeover")
    try:
        os.close(os.open(guard, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
    except FileExistsError:
        with suppress(OSError):
            if time.time() - guard.stat().st_mtime > 10 * STALE_SECONDS:
                guard.unlink()  # its creator died at this very place
        time.sleep(POLL_SECONDS)
        return
    try:
        if _read(path)[0] == dead:
            path.unlink(missing_ok=True)
    finally:
        guard.unlink(missing_ok=True)


def _namespace() -> str:
    """Process ids are compared only where they mean the same process."""
    try:
        return str(Path("/proc/self/ns/pid").stat().st_ino)
    except OSError:
        return ""
