"""The keys that are valid now: read from a file or folder, and read again when that changes."""

from __future__ import annotations

import hmac
import logging
import os
import secrets
import stat
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from bayling.errors import UserError
from bayling.serve import keys
from bayling.serve.keys import Key

log = logging.getLogger(__name__)

POLL_S = 1.0
"""How long a key that was taken back may still be let in."""
_NOBODY = secrets.token_bytes(32)
"""The hash of no key that anybody has: what an unknown id is compared with."""


class KeyRing:
    """Tells whose key it is that somebody sent.

    A change on disk is seen by the first request after it, at most once a second. Where the file
    is broken or gone the keys read before stay valid, and the log says why, once.

    Args:
        clock: seconds that never go back.

    Raises:
        UserError: there is no file yet, or it is broken.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._complaint = ""
        self._keys: dict[str, Key] = {}
        self._seen = _state(path)
        self._take(keys.read(path))
        self._next = clock() + POLL_S
        if exposed := _exposed(path):
            log.warning(
                "%s can be read or changed by others than its owner: chmod 600 it (or, in a "
                "Secret, set defaultMode: 0400)",
                exposed,
            )

    def owner(self, presented: str) -> Key | None:
        """The key that was sent, when it is valid.

        An unknown id, a wrong secret and a text that is no key take the same work.
        """
        self._poll()
        key = self._keys.get(keys.id_of(presented) or "")
        kept = bytes.fromhex(key.sha256) if key else _NOBODY
        same = hmac.compare_digest(keys.digest(presented), kept)
        if key is None or not same or key.expired(datetime.now(UTC)):
            return None
        return key

    def __repr__(self) -> str:
        return f"KeyRing({str(self._path)!r}, {len(self._keys)} keys)"

    def _poll(self) -> None:
        now = self._clock()
        if now < self._next:
            return
        self._next = now + POLL_S
        try:
            # Looked at before it is read: what changes meanwhile is read again a second later.
            state = _state(self._path)
            if state == self._seen:
                return
            self._take(keys.read(self._path))
        except UserError as error:
            if str(error) != self._complaint:
                log.error("%s: the keys read before stay valid", error)
                self._complaint = str(error)
            return
        self._seen = state
        self._complaint = ""
        log.info("%s was read again: %d keys", self._path, len(self._keys))

    def _take(self, found: list[Key]) -> None:
        self._keys = {key.id: key for key in found}
        if not found:
            log.warning("%s holds no keys: nobody is let in", self._path)


def _state(path: Path) -> tuple[object, ...]:
    """What differs when the keys may have changed.

    Raises:
        UserError: there is nothing there.
    """
    try:
        found = [(str(file), file.stat()) for file in keys.files(path)]
    except OSError as error:
        raise UserError(f"no keys can be read from {path} ({error.strerror})") from None
    return tuple((name, at.st_ino, at.st_size, at.st_mtime_ns) for name, at in found)


def _exposed(path: Path) -> Path | None:
    """A file that more people can read or change than need to."""
    for file in keys.files(path):
        at = file.stat()
        # Whoever reads it by its group, as from a Secret with an fsGroup, needs that bit.
        needless = stat.S_IRWXG if at.st_uid == os.geteuid() else stat.S_IWGRP
        if at.st_mode & (needless | stat.S_IRWXO):
            return file
    return None
