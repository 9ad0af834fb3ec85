"""JSON lines of which some may be broken, and the others count all the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bayling.errors import UserError


def lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """The number of each line that is not blank, with its object, or with what is wrong with it.

    Raises:
        UserError: the file cannot be read, or is no text in UTF-8.
    """
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start}): convert it") from None
    # At \n alone: str.splitlines knows characters that JSON allows inside a string.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, _parsed(line)


def _parsed(line: str) -> dict[str, Any] | str:
    try:
        row = json.loads(line)
    except ValueError as error:
        return f"no JSON ({error})"
    return row if isinstance(row, dict) else "no JSON object with keys"
