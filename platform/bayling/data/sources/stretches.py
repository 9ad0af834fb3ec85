"""Large files in stretches of lines, so that many workers read one.

Only what can be entered in the middle is: plain UTF-8 on a disk of this machine or cluster. What is
packed has no middle, and of a bucket or web server all would be fetched twice. Where a stretch ends
depends on the file alone, never on how many workers there are.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from itertools import pairwise
from urllib.parse import urlsplit

from bayling.data.sources.opening import Stretch, head, missing, raw
from bayling.storage import explained, file_system

LARGE = 8 * 2**20
"""Bytes; a smaller file is read in a second by one worker."""


@dataclass(frozen=True)
class Lines:
    """The lines of a file, all in stretches of the same number but for the last."""

    total: int
    stretches: tuple[Stretch, ...]


def is_large(address: str, larger_than: int = LARGE) -> bool:
    """Whether it is a file of more than so many bytes, and none of a bucket or a web server.

    Raises:
        UserError: it is not there.
    """
    if urlsplit(address).scheme not in ("", "file"):
        return False
    with explained(address, missing(address)):
        files, path = file_system(address)
        return int(files.size(path)) > larger_than


def in_stretches(address: str, each: int) -> Lines | None:
    """The file's lines in stretches of `each`; None where it cannot be entered in the middle.

    Raises:
        UserError: the file is not there or cannot be read.
    """
    import numpy as np

    start = head(address)
    if start.compression is not None or start.encoding not in ("utf-8", "utf-8-sig"):
        return None
    ends, size, total, last = [0], 0, 0, b"\n"
    for chunk in raw(address):
        found = np.flatnonzero(np.frombuffer(chunk, np.uint8) == ord("\n"))
        ends += (size + 1 + found[each - 1 - total % each :: each]).tolist()
        total, size, last = total + len(found), size + len(chunk), chunk[-1:]
    mark = len(codecs.BOM_UTF8) if start.encoding == "utf-8-sig" else 0
    if size > max(ends[-1], mark):
        ends.append(size)
    whole = total + (last != b"\n" and size > mark)
    places = enumerate(pairwise(ends))
    return Lines(whole, tuple(Stretch(1 + number * each, *ends) for number, ends in places))
