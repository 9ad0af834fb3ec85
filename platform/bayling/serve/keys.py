"""API keys: what they look like, and what is kept of them in files.

A key is `bl-<id>-<secret>` with 256 random bits in its secret, and only its SHA-256 is kept. Slow
and salted hashes guard passwords, which people choose and dictionaries list. Nobody tries 2^256
secrets however fast each of them is, while a hash that takes a tenth of a second would let anybody
keep the server busy without a key.

A file holds JSON records, one a line:

    {"id": "4f1c09aa73d2", "name": "app", "sha256": "…", "created": "2026-07-01T09:30:00+00:00"}

and besides, where wanted, `expires` (a time like `created`) and `limits`, an object of
`bayling.serve.limits.Limits`, in which null lifts a limit that the server has for all keys. A
folder is read file by file, but for names that begin with a dot: so Kubernetes mounts a Secret.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bayling.errors import UserError
from bayling.serve.limits import LIMITS, Limits
from bayling.weights import lock

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_KEY = re.compile(r"bl-([0-9a-f]{12})-[A-Za-z0-9_-]{43}")
_FIELDS = ("id", "name", "sha256", "created", "expires", "limits")


@dataclass(frozen=True)
class Key:
    """What is kept of a key. Nothing in it lets anybody in."""

    id: str
    name: str
    """Whose key it is, in logs and figures."""
    sha256: str = field(repr=False)
    created: datetime
    expires: datetime | None = None
    limits: Mapping[str, int | None] = field(default_factory=dict)
    """Its own, in place of those for all keys."""

    def expired(self, now: datetime) -> bool:
        return self.expires is not None and self.expires <= now

    def line(self) -> str:
        """Its record."""
        record: dict[str, Any] = {
            "id": self.id,
            "name": self.name,
            "sha256": self.sha256,
            "created": self.created.isoformat(timespec="seconds"),
        }
        if self.expires is not None:
            record["expires"] = self.expires.isoformat(timespec="seconds")
        if self.limits:
            record["limits"] = dict(self.limits)
        return json.dumps(record) + "\n"


def make(
    name: str,
    expires: datetime | None = None,
    limits: Mapping[str, int | None] | None = None,
) -> tuple[str, Key]:
    """A new key: what its owner is given, once, and what is kept.

    Raises:
        UserError: the name or a limit cannot be.
    """
    if not _NAME.fullmatch(name):
        raise UserError(
            f"{name!r} cannot name a key: use up to 63 letters, digits, '.', '_' and '-', and "
            "begin with a letter or digit"
        )
    identity = secrets.token_hex(6)
    full = f"bl-{identity}-{secrets.token_urlsafe(32)}"
    own = dict(limits or {})
    Limits(**own).check("the limit ")
    created = datetime.now(UTC).replace(microsecond=0)
    return full, Key(identity, name, digest(full).hex(), created, expires, own)


def digest(presented: str) -> bytes:
    """The hash of a whole key, or of whatever somebody sent for one."""
    return hashlib.sha256(presented.encode("utf-8", "surrogateescape")).digest()


def id_of(presented: str) -> str | None:
    """The id in a key; None for what is no key."""
    found = _KEY.fullmatch(presented)
    return found[1] if found else None


def files(path: Path) -> list[Path]:
    """The files that hold the keys: `path` itself, or those in the folder `path`.

    Raises:
        OSError: there is nothing at `path`, or it cannot be looked at.
    """
    if not path.is_dir():
        path.stat()
        return [path]
    # An entry that was taken out of a Secret is a link to nowhere for a moment.
    return sorted(item for item in path.iterdir() if item.name[0] != "." and item.is_file())


def read(path: Path) -> list[Key]:
    """All keys in a file or folder.

    Raises:
        UserError: it cannot be read, or a record is wrong; the message names file and line.
    """
    found: dict[str, Key] = {}
    names: set[str] = set()
    try:
        for file in files(path):
            for place, key in _records(file):
                if key.id in found or key.name in names:
                    which = f"id {key.id}" if key.id in found else f"name {key.name!r}"
                    raise UserError(f"{place}: another key has the {which}")
                found[key.id] = key
                names.add(key.name)
    except OSError as error:
        raise UserError(
            f"no keys can be read from {error.filename or path} ({error.strerror})"
        ) from None
    return list(found.values())


def add(path: Path, key: Key) -> Path:
    """Keep one more key; in a folder, in a file of its own. Returns the file.

    Raises:
        UserError: the name is taken, or the file cannot be read or written.
    """
    with _changing(path):
        if any(one.name == key.name for one in (read(path) if path.exists() else [])):
            raise UserError(
                f"{path} has a key named {key.name!r} already: choose another name, or take that "
                f"one back with `bayling key revoke {key.name}`"
            )
        file = path / f"{key.name}.json" if path.is_dir() else path
        kept = [one for _, one in _records(file)] if file.exists() else []
        _write(file, [*kept, key])
        return file


def remove(path: Path, name: str) -> Key:
    """Take a key out. Returns what was kept of it.

    Raises:
        UserError: there is none of that name, or the file cannot be read or written.
    """
    with _changing(path):
        there = read(path)
        gone = next((key for key in there if key.name == name), None)
        if gone is None:
            near = difflib.get_close_matches(name, [key.name for key in there], n=1)
            hint = f": did you mean {near[0]!r}?" if near else ""
            raise UserError(f"{path} has no key named {name!r}{hint}")
        for file in files(path):
            before = [key for _, key in _records(file)]
            after = [key for key in before if key.name != name]
            if len(after) < len(before):
                if path.is_dir() and not after:
                    file.unlink()
                else:
                    _write(file, after)
        return gone


def _records(file: Path) -> Iterator[tuple[str, Key]]:
    try:
        lines = file.read_text("utf-8").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{file} is no text: it should hold one JSON record a line") from None
    for number, line in enumerate(lines, 1):
        if line.strip():
            place = f"{file}, line {number}"
            yield place, _parse(line, place)


def _parse(line: str, place: str) -> Key:
    """The record in a line. No message quotes it: a key pasted by mistake stays out of logs."""
    try:
        record = json.loads(line)
    except ValueError as error:
        where = f" at column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        raise UserError(f"{place}: no JSON{where}; there is one record a line") from None
    if not isinstance(record, dict):
        raise UserError(f"{place}: a record is an object, {{…}}")
    for name in record:
        if name not in _FIELDS:
            raise UserError(f"{place}: a record has {', '.join(_FIELDS)}, and nothing else")
    for name, pattern in (("id", r"[0-9a-f]{12}"), ("name", _NAME), ("sha256", r"[0-9a-f]{64}")):
        if not isinstance(record.get(name), str) or not re.fullmatch(pattern, record[name]):
            raise UserError(f"{place}: {name} is missing or not as `bayling key new` writes it")
    return Key(
        record["id"],
        record["name"],
        record["sha256"],
        _time(record.get("created"), f"{place}: created"),
        _time(record["expires"], f"{place}: expires") if record.get("expires") else None,
        _limits(record.get("limits", {}), place),
    )


def _time(value: Any, place: str) -> datetime:
    try:
        time = datetime.fromisoformat(value)
        if time.tzinfo is not None:
            return time
    except (TypeError, ValueError):
        pass
    raise UserError(f"{place} must be a time with its zone, such as 2027-01-31T00:00:00+00:00")


def _limits(value: Any, place: str) -> dict[str, int | None]:
    if not isinstance(value, dict) or not set(value) <= set(LIMITS):
        raise UserError(f"{place}: limits is an object that has only {', '.join(LIMITS)}")
    for name, limit in value.items():
        if limit is not None and type(limit) is not int:
            raise UserError(f"{place}: limits.{name} is a whole number, or null for no limit")
    Limits(**value).check(f"{place}: limits.")
    return value


def _write(file: Path, keys: Iterable[Key]) -> None:
    """Replace a file by one that only its owner can read; a reader finds the old or the new one."""
    file = file.resolve()  # a link stays one
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    aside.unlink(missing_ok=True)
    try:
        handle = os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as opened:
            opened.writelines(key.line() for key in keys)
            opened.flush()
            os.fsync(opened.fileno())
        aside.replace(file)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def _changing(path: Path) -> Iterator[None]:
    """One process at a time: of two that add a key, the later would drop the other's."""
    guard = path / ".lock" if path.is_dir() else path.with_name(f".{path.name}.lock")
    try:
        with lock.held(guard, lambda owner: None):
            yield
    except OSError as error:
        raise UserError(f"no keys can be kept in {path} ({error.strerror})") from None
