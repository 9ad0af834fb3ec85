"""Which files the data stage would read, and in what state: whether it has to run again."""

from __future__ import annotations

from typing import Any

from bayling.data.config import DataConfig
from bayling.data.sources.addresses import find
from bayling.storage import file_system

_MARKS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified")
"""Under what names file systems say that a file is another one; the first one counts."""


def states(config: DataConfig) -> list[tuple[str, int, str]]:
    """Address, bytes, and a mark that changes with the content, of every file of all sources.

    Raises:
        UserError: one is not there, or cannot be asked for.
    """
    found = []
    for item in (*config.sources, *config.decontaminate):
        for path in item.path:
            for address in find(path)[0]:
                files, inside = file_system(address)
                found.append((address, *_state(files.info(inside))))
    return found


def _state(info: dict[str, Any]) -> tuple[int, str]:
    mark = next((str(info[name]) for name in _MARKS if info.get(name)), "")
    return int(info.get("size") or 0), mark
