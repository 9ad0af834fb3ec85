"""`bayling data inspect`: what a path is taken for, and three rows.

`bayling data` itself is a stage and takes overrides, so that `inspect` is no verb below it for
argparse, but a command whose name has two words.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayling.errors import UserError

if TYPE_CHECKING:
    from bayling.data.sources.inspection import Inspection

_NAME = "data inspect"
_HELP = "what a file, folder or glob is taken for, and three rows"
_EPILOG = """examples:
  bayling data inspect opus/x.en                 and x.zh beside it
  bayling data inspect flores/devtest --languages en,zh,de
  bayling data inspect 's3://corpora/news/*.jsonl.zst'
  bayling data inspect pairs.tsv --source-lang en --target-lang sw --columns source=2,target=3
"""
_WIDEST = 160
"""Characters of a text that are shown."""


def one_word(arguments: Sequence[str]) -> list[str]:
    """A command's arguments with `data inspect` as one of them, as its parser is named."""
    words = list(arguments)
    return [_NAME, *words[2:]] if words[:2] == _NAME.split() else words


def register(commands: Any) -> None:
    """Add the command to the parsers of `bayling`."""
    added = commands.add_parser(
        _NAME,
        help=_HELP,
        description=_HELP[0].upper() + _HELP[1:] + ".",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    added.set_defaults(work=_inspect)
    added.add_argument(
        "path", nargs="+", metavar="PATH", help="or an address: s3://, gs://, hf://, https://"
    )
    added.add_argument("--format", default="auto", metavar="NAME", help="instead of telling it")
    added.add_argument("--source-lang", metavar="LANG", help="BCP-47, FLORES or ISO 639-3")
    added.add_argument("--target-lang", metavar="LANG")
    added.add_argument("--languages", metavar="LANG,…", help="those to read of more")
    added.add_argument(
        "--columns", metavar="ROLE=COLUMN,…", help="source=…,target=…: names, or numbers from 1"
    )
    added.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")


def _inspect(arguments: argparse.Namespace) -> None:
    from bayling.data.sources import source_config
    from bayling.data.sources.inspection import inspect
    from bayling.stage import write_json
    from bayling.watch import watcher

    config = source_config(
        {
            "path": arguments.path,
            "format": arguments.format,
            "source_lang": arguments.source_lang,
            "target_lang": arguments.target_lang,
            "languages": _list(arguments.languages),
            "columns": _columns(arguments.columns),
        },
        "data inspect",
    )
    watched = watcher()
    begun = False

    def report(what: str, done: float, of: float) -> None:
        nonlocal begun
        if not begun:  # most files are read in less time than it takes to see that they are
            begun = True
            watched.stage("inspect", "")
        watched.progress(what, done, of)

    try:
        found = inspect(config, report)
    finally:
        watched.close()
    _show(found)
    if arguments.json is not None:
        try:
            write_json(arguments.json, found)
        except OSError as error:
            raise UserError(f"cannot write {arguments.json}: {error.strerror}") from None


def _list(text: str | None) -> list[str] | None:
    return None if text is None else [part for part in text.split(",") if part]


def _columns(text: str | None) -> dict[str, str | int] | None:
    if text is None:
        return None
    found: dict[str, str | int] = {}
    for part in text.split(","):
        role, equals, column = part.partition("=")
        if not equals:
            raise UserError(f"--columns takes ROLE=COLUMN, such as source=1,target=2, not {part!r}")
        found[role.strip()] = int(column) if column.isdigit() else column
    return found


def _show(found: Inspection) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _facts(found):
        table.add_row(name, value)
    console.print(table)
    for number, texts in enumerate(found.sample, 1):
        console.print(f"\nrow {number}")
        for text in texts:
            console.print(f"  {_short(text)}", soft_wrap=True)
    if found.use:
        console.print(f"\n{found.use}", soft_wrap=True)
    else:
        console.print(
            "\nquestions without answers: an evaluation suite, which belongs into evaluate.suites",
            soft_wrap=True,
        )


def _facts(found: Inspection) -> list[tuple[str, str]]:
    files = found.files[0]
    if len(found.files) > 1:
        files = f"{len(found.files):,}: {files} to {found.files[-1]}"
    rows = f"{found.rows:,}"
    if found.rejected:
        rows += f", and {found.rejected:,} rejected"
    licence = ", ".join(filter(None, [found.licence, *found.licence_files]))
    facts = [
        ("format", f"{found.format} ({found.kind}): {found.looks}"),
        ("taken for it by", found.why),
        ("files", files),
        ("compression", found.compression or "none"),
        ("encoding", found.encoding or f"{found.stored}, a binary format"),
        ("columns", ", ".join(f"{role}: {name}" for role, name in found.columns.items())),
        ("languages", ", ".join(found.languages) or "not told"),
        ("rows", rows),
        *(("  rejected", place) for place in found.rejected_at),
        *(("note", note) for note in found.notes),
        ("licence", licence or "no file beside it: set licence where you use it"),
    ]
    return [(name, value) for name, value in facts if value]


def _short(text: str) -> str:
    line = text.replace("\n", " ⏎ ")
    return line if len(line) <= _WIDEST else f"{line[: _WIDEST - 1]}…"
