"""JSON, one object a line or an array of them, as records with their line or row."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from bayling.data.sources.opening import BROKEN, Broken, Stretch, lines, stream
from bayling.data.sources.rows import rejected
from bayling.errors import UserError
from bayling.storage import one_line


def json_lines(address: str, stretch: Stretch | None = None) -> Iterator[tuple[int, Any]]:
    """One record a line, of the whole file or of a stretch; empty lines are passed over.

    Raises:
        UserError: the file cannot be opened or unpacked.
    """
    decode = json.JSONDecoder().decode
    for number, line in enumerate(lines(address, stretch), stretch.first if stretch else 1):
        if isinstance(line, Broken):
            yield number, rejected(address, number, line.reason, line.text)
            continue
        if not line or line.isspace():
            continue
        try:
            record = decode(line)
        except (ValueError, RecursionError) as error:
            yield number, rejected(address, number, f"no JSON: {_said(error)}", line)
            continue
        # Only an escape can make half of a character; it is no text, and no file can hold it.
        if "\\ud" in line or "\\uD" in line:
            yield number, _whole(record, address, number, line)
        else:
            yield number, record


def json_array(address: str) -> Iterator[tuple[int, Any]]:
    """The items of an array, one at a time.

    Raises:
        UserError: the file cannot be opened or unpacked, or it is no JSON from some row on.
    """
    import ijson

    number = 0
    try:
        with stream(address) as text:
            for number, record in enumerate(ijson.items(text, "item", use_float=True), 1):
                yield number, _whole(record, address, number)
    except ijson.JSONError as error:
        raise UserError(
            f"{address} is no JSON after row {number} ({_said(error)}), and what follows cannot be "
            "read: fetch or make it again, or write one object a line"
        ) from None


def _said(error: BaseException) -> str:
    # ijson shows the place in several lines.
    first = str(error).strip().splitlines() or [type(error).__name__]
    return one_line(ValueError(first[0]))


def _whole(record: Any, address: str, number: int, line: str | None = None) -> Any:
    """The record, or its rejection where a text in it is none."""
    broken = _broken(record)
    if broken is None:
        return record
    shown = line or json.dumps(record, ensure_ascii=True, default=str)
    return rejected(address, number, broken, shown)


def _broken(value: Any) -> str | None:
    if isinstance(value, str):
        if BROKEN in value:
            return "a byte in it is no UTF-8"
        try:
            value.encode()
        except UnicodeEncodeError:
            return "it holds half of a character (a surrogate without the other)"
        return None
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        return next((found for item in value if (found := _broken(item)) is not None), None)
    return None
