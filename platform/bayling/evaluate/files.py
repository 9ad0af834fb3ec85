"""Test sets and outputs in files: lines that belong together, and JSON rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from glob import glob
from pathlib import Path
from typing import Any

from bayling import detection, languages
from bayling.errors import UserError
from bayling.evaluate.suite import Row

_ENOUGH_TO_TELL = 50


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, without their ends.

    Raises:
        UserError: it is not there, is not UTF-8, or has no lines.
    """
    text = _text(path)
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    if lines[-1] == "":
        lines.pop()
    if not lines:
        raise UserError(f"{path} is empty")
    return lines


def read_aligned(
    paths: Mapping[str, Path], never_empty: Sequence[str] = ()
) -> dict[str, list[str]]:
    """Files whose lines belong together, each under what it is called.

    Args:
        never_empty: what of them must have text in every line.

    Raises:
        UserError: a file cannot be read, their lengths differ, or a line is empty.
    """
    read = {name: read_lines(path) for name, path in paths.items()}
    first, *others = read
    for other in others:
        if len(read[other]) != len(read[first]):
            raise UserError(
                f"{paths[first]} ({first}) has {len(read[first]):,} lines and {paths[other]} "
                f"({other}) has {len(read[other]):,}: line by line they must belong together"
            )
    for name in never_empty:
        for number, line in enumerate(read.get(name, ()), 1):
            if not line.strip():
                raise UserError(
                    f"{paths[name]}, line {number} is empty, and nothing can be compared with it: "
                    "take the line out of all files"
                )
    return read


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file of JSON lines, or of a JSON list, each with its line (or place).

    Raises:
        UserError: it cannot be read, or something in it is no JSON object.
    """
    text = _text(path)
    if text.lstrip().startswith("["):
        try:
            listed = json.loads(text)
        except ValueError as error:
            raise UserError(f"{path} is not JSON: {error}") from None
        for number, row in enumerate(listed, 1):
            if not isinstance(row, dict):
                raise UserError(f"{path}, row {number} is no JSON object")
            yield number, row
        return
    found = False
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{path}, line {number} is not JSON: {error}") from None
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number} is no JSON object")
        found = True
        yield number, row
    if not found:
        raise UserError(f"{path} is empty")


def read_constrained(path: Path, answered: bool) -> list[Row]:
    """Rows of `src`, `tgt`, `constraint` and, where they are `answered`, `hypo`.

    Raises:
        UserError: a row lacks one of them, or it is of another type.
    """
    rows: list[Row] = []
    seen: dict[str, int] = {}
    for number, row in read_rows(path):
        texts = ["src", "tgt", *(["hypo"] if answered else [])]
        for key in texts:
            if not isinstance(row.get(key), str):
                has = ", ".join(map(str, row)) or "nothing"
                raise UserError(f"{path}, line {number}: no text under {key!r}; it has {has}")
        wanted = row.get("constraint")
        wanted = [wanted] if isinstance(wanted, str) else wanted
        if not isinstance(wanted, list) or not all(isinstance(one, str) for one in wanted):
            raise UserError(f"{path}, line {number}: 'constraint' must be a list of words")
        if not row["tgt"].strip():
            raise UserError(f"{path}, line {number}: the reference 'tgt' is empty")
        name = str(row.get("id", f"{path.name}:{number}"))
        if name in seen:
            raise UserError(f"{path}, line {number}: the id {name!r} is that of line {seen[name]}")
        seen[name] = number
        made: Row = {
            "id": name,
            "source": row["src"],
            "target": row["tgt"],
            "constraints": [word for word in wanted if word],
        }
        if answered:
            made["outputs"] = [row["hypo"]]
        rows.append(made)
    return rows


def language_of(texts: Sequence[str], named: str | None, what: str) -> str:
    """The BCP-47 tag that a person named, or what the texts are in.

    Raises:
        UserError: the code is unknown, or the texts do not say.
    """
    if named is not None:
        return languages.parse(named)
    found = detection.detect("\n".join(texts[:_ENOUGH_TO_TELL]))
    if found is None:
        raise UserError(f"cannot tell the language of {what}: name it (--target-lang)")
    return found.language


def expanded(pattern: str, **slots: str) -> Path:
    """A path from a pattern with `{source}` and `{target}`.

    Raises:
        UserError: the pattern has another slot.
    """
    try:
        return Path(pattern.format(**slots))
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(
            f"{pattern}: only {{source}} and {{target}} can stand in it ({error})"
        ) from None


def _text(path: Path) -> str:
    try:
        # As bytes: line ends are to stay what they are.
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start})") from None


def found(patterns: Sequence[str], key: str) -> list[Path]:
    """The files that paths and glob patterns name, each once.

    Raises:
        UserError: one of them names none; `key` says where it stands.
    """
    paths: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern).expanduser()
        # Patterns may be absolute, which those of pathlib may not.
        matching = glob(str(path), recursive=True)  # noqa: PTH207
        matches = [path] if path.exists() else sorted(map(Path, matching))
        matches = [one for one in matches if one.is_file()]
        if not matches:
            raise UserError(f"{key}: {pattern} is no file, and no pattern that fits one")
        paths.update(dict.fromkeys(matches))
    return list(paths)


def language_in_name(path: Path) -> str:
    """The language that a file's name ends or begins with: `newstest.zh`, `eng.devtest`.

    Raises:
        UserError: neither is one.
    """
    parts = path.name.split(".")
    for part in (*reversed(parts[1:]), parts[0]):
        try:
            return languages.parse(part)
        except UserError:
            continue
    raise UserError(f"{path}: no part of the name is a language; call it en.txt or test.en")


def states(patterns: Sequence[str]) -> list[tuple[str, int, int]]:
    """Path, bytes and time of change of all files: whether what was made of them is still good."""
    stats = [(str(path), path.stat()) for path in found(patterns, "evaluate")]
    return [(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats]
