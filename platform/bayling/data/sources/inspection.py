"""What a path is taken for: everything that `bayling data inspect` says, as one object."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bayling.data.sources.addresses import licences
from bayling.data.sources.config import SourceConfig
from bayling.data.sources.rows import Pair, Question, Rejected, Row, Talk
from bayling.data.sources.source import Source, open_source

SHOWN = 3
"""Rows, and places of rejected ones."""
_REPORTED = 50_000


@dataclass
class Inspection:
    """The figures of one source."""

    path: str
    format: str
    looks: str
    stored: str
    why: str
    kind: str
    compression: str | None
    encoding: str | None
    languages: list[str]
    files: list[str]
    columns: Mapping[str, str]
    licence: str | None
    licence_files: list[str]
    notes: list[str]
    use: str
    """A command that uses the source as it was read; empty for an evaluation suite."""
    rows: int = 0
    """All rows but rejected ones. Of N languages every sentence makes a row for each two."""
    rejected: int = 0
    rejected_at: list[str] = field(default_factory=list)
    """The first places with their reasons."""
    sample: list[list[str]] = field(default_factory=list)
    """The first rows: the two sides of a pair, the messages of a conversation."""


def inspect(
    config: SourceConfig, report: Callable[[str, float, float], None] | None = None
) -> Inspection:
    """Read a source from beginning to end, and say what it is.

    Args:
        report: told now and then how many rows there are, which part is read, and of how many.

    Raises:
        UserError: it is not there, cannot be read, or is not clear.
    """
    from bayling.data.sources.formats import FORMATS

    source = open_source(config, questions=True)
    layout = source.layout
    found = Inspection(
        path=config.shown,
        format=layout.format,
        looks=FORMATS[layout.format].looks,
        stored=layout.stored,
        why=layout.why,
        kind=source.kind,
        compression=layout.compression,
        encoding=layout.encoding,
        languages=[],
        files=[file for part in source.files for file in part.files],
        columns=layout.columns,
        licence=source.licence(),
        licence_files=licences(source.files[0].name),
        notes=list(source.notes),
        use=_use(source),
    )
    languages = dict.fromkeys(source.languages)
    for index, part in enumerate(source.files):
        for row in source.rows(part):
            _count(found, row)
            if isinstance(row, Pair):
                languages[row.source_lang] = languages[row.target_lang] = None
            elif isinstance(row, Talk) and row.language:
                languages[row.language] = None
            if report is not None and not found.rows % _REPORTED:
                report(f"{found.rows:,} rows", index, len(source.files))
    found.languages = list(languages)
    if not languages and found.sample:
        found.languages = _detected(found.sample)
    return found


def _count(found: Inspection, row: Row) -> None:
    if isinstance(row, Rejected):
        found.rejected += 1
        if len(found.rejected_at) < SHOWN:
            found.rejected_at.append(f"{row.place}: {row.reason}")
        return
    found.rows += 1
    if len(found.sample) < SHOWN:
        found.sample.append(_texts(row))


def _texts(row: Pair | Talk | Question) -> list[str]:
    if isinstance(row, Talk):
        return [f"{message.role}: {message.content}" for message in row.messages]
    if isinstance(row, Question):
        return [f"user: {turn}" for turn in row.turns]
    terms = [" = ".join(filter(None, term)) for term in row.terms]
    return [
        f"{row.source_lang}: {row.source}",
        f"{row.target_lang}: {row.target}",
        *([f"terms: {', '.join(terms)}"] if terms else []),
    ]


def _detected(sample: list[list[str]]) -> list[str]:
    from bayling.detection import detect

    found = detect("\n".join(text.partition(": ")[2] for texts in sample for text in texts))
    return [found.language] if found is not None else []


def _use(source: Source) -> str:
    """The command with what was given on the command line, and nothing that is told anyway."""
    if source.kind == "questions":
        return ""
    config = source.config
    said = {
        "format": None if config.format == "auto" else config.format,
        "source_lang": config.source_lang,
        "target_lang": config.target_lang,
        "languages": list(config.languages) or None,
        "columns": dict(config.columns) or None,
    }
    said = {key: value for key, value in said.items() if value is not None}
    path = hydra_value(config.path[0] if len(config.path) == 1 else list(config.path))
    if not said and len(config.path) == 1:
        item = path
    else:
        item = "{" + ",".join([f"path:{path}", *(f"{k}:{hydra_value(v)}" for k, v in said.items())])
        item += "}"
    override = f"data.sources=[{item}]"
    return "bayling data " + "'" + override.replace("'", "'\\''") + "'"


def hydra_value(value: object) -> str:
    """A value as Hydra's grammar takes it, in quotes where it has to be."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{hydra_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(hydra_value(item) for item in value) + "]"
    text = str(value)
    plain = re.fullmatch(r"[A-Za-z0-9_./*?@%+-]+", text) and not re.fullmatch(
        r"(?i)true|false|null|nan|[-+]?(inf|[0-9._]+(e[0-9+-]+)?)", text
    )
    if isinstance(value, int) or plain:
        return text
    quoted = re.sub(r'(\\+)(?="|$)', r"\1\1", text).replace('"', '\\"')
    return f'"{quoted}"'
