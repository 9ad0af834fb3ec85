"""The formats: one table, and how a file is told to have one: by content first, then by name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from bayling.data.sources import arrow, objects, records, tables
from bayling.data.sources.addresses import name_of
from bayling.data.sources.columns import columns_of
from bayling.data.sources.config import SourceConfig
from bayling.data.sources.opening import Head, Stretch, head
from bayling.data.sources.rows import Rejected
from bayling.data.sources.tables import Dialect
from bayling.errors import UserError

SAMPLE = 50
"""Records that the form is told from."""


@dataclass(frozen=True)
class Format:
    """An entry of the table."""

    kind: str
    """pairs, conversations or questions."""
    looks: str
    """What the data looks like."""


FORMATS: dict[str, Format] = {
    "lines": Format("pairs", "one text a language, aligned by line: x.en x.zh, eng.devtest"),
    "tsv": Format("pairs", "columns between tabs, with or without a header"),
    "csv": Format("pairs", "columns between commas or semicolons, with or without a header"),
    "tmx": Format("pairs", "a translation memory: <tmx> with <tu> and <tuv>"),
    "terminology": Format("pairs", "number, sentence, then terms and their translations (IATE)"),
    "translation": Format("pairs", '{"translation": {"zh": …, "en": …}}, as ALMA and OPUS write'),
    "constraints": Format("pairs", '{"src": …, "tgt": …, "constraint": [words]}'),
    "columns": Format("pairs", "source and target, or columns named for languages"),
    "alpaca": Format("conversations", "instruction, input, output: Alpaca, BELLE"),
    "instances": Format("conversations", "instruction, instances[input, output]: seed tasks"),
    "sharegpt": Format("conversations", "conversations[from, value]: ShareGPT, BELLE"),
    "messages": Format("conversations", "messages[role, content]: OpenAI, and this platform's own"),
    "questions": Format("questions", "question_id with text or turns: BayLing-80, vicuna-80"),
    "knowledge": Format("questions", "question, options, label: AGIEval"),
}
"""By the name that `format` takes."""

_ARCHIVES = {
    b"PK\x03\x04": "a ZIP archive",
    b"BZh": "packed with bzip2",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive",
    b"Rar!": "a RAR archive",
}


@dataclass(frozen=True)
class Layout:
    """What a file was taken for."""

    format: str
    """A name of `FORMATS`."""
    stored: str
    """lines, tsv, csv, jsonl, json, parquet, arrow or tmx."""
    why: str
    """What it was told from, in words."""
    compression: str | None = None
    encoding: str | None = "utf-8"
    """None where it is no text."""
    dialect: Dialect | None = None
    columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return FORMATS[self.format].kind


class UnknownFormat(UserError):
    """A file that is none of the formats, or several; the message says what was seen."""


def look(address: str, config: SourceConfig) -> Layout:
    """What a file is: by its bytes, then by its keys or columns, then by its name.

    Raises:
        UserError: it is not there, empty, damaged, packed in an archive, or of no known format.
    """
    start = head(address)
    if not start.data:
        raise UnknownFormat(f"{address} is empty: there is nothing to read")
    wanted = config.format
    stored, why = _stored(address, start, wanted)
    packed = start.compression
    encoding = None if stored in ("parquet", "arrow") else start.encoding
    if packed and stored in ("parquet", "arrow"):
        raise UserError(f"{address} is a {stored} file packed with {packed}: unpack it")
    if stored in ("lines", "tmx"):
        if wanted not in ("auto", stored):
            raise _mismatch(address, wanted, why)
        return Layout(stored, stored, why, packed, encoding)
    how: Dialect | None = None
    if stored in ("tsv", "csv"):
        if stored == "tsv" and wanted in ("auto", "terminology") and tables.is_terminology(address):
            return Layout("terminology", stored, "numbers, then pairs of terms", packed, encoding)
        how = tables.dialect(address, _delimiter(start, stored), _named(config))
    sample = _sample(stored, address, how)
    if not sample:
        raise UnknownFormat(
            f"{address} looks like {stored} ({why}), but has no row that can be read"
        )
    form, said = _form(address, stored, sample, config, how)
    columns = _columns(address, sample, config, how) if form == "columns" else {}
    shown = stored if form == "columns" and how is not None else form
    return Layout(shown, stored, f"{why}; {said}", packed, encoding, how, columns)


def read_records(
    layout: Layout, address: str, stretch: Stretch | None = None
) -> Iterator[tuple[int, Any]]:
    """The records of a file with their lines or rows; some may be `Rejected` already."""
    if stretch is not None:
        return objects.json_lines(address, stretch)
    return _records(layout.stored, address, layout.dialect)


def form_of(layout: Layout) -> str:
    """The form of a layout's records."""
    return layout.format if layout.format in records.FORMS else "columns"


def _records(stored: str, address: str, how: Dialect | None) -> Iterator[tuple[int, Any]]:
    if how is not None:
        return tables.records(address, how)
    readers = {
        "jsonl": objects.json_lines,
        "json": objects.json_array,
        "parquet": arrow.parquet,
        "arrow": arrow.arrow,
    }
    return readers[stored](address)


def _stored(address: str, start: Head, wanted: str) -> tuple[str, str]:
    data = start.data
    if data.startswith(b"PAR1"):
        return "parquet", "Parquet's mark at its beginning"
    if data.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
        return "arrow", "Arrow's mark at its beginning"
    for magic, what in _ARCHIVES.items():
        if data.startswith(magic):
            raise UnknownFormat(f"{address} is {what}: unpack it and name what was in it")
    if data[257:262] == b"ustar":
        raise UnknownFormat(f"{address} is a tar archive: unpack it and name what was in it")
    text = _decoded(address, start)
    beginning = text.lstrip()
    if not beginning:
        raise UnknownFormat(f"{address} holds nothing but blank lines")
    if wanted in ("lines", "tsv", "csv", "tmx"):
        return wanted, f"format={wanted}"
    if beginning.startswith("<") and (found := re.search(r"<tmx\b", beginning)):
        return "tmx", f"{found[0]}> as its root"
    if re.match(r"<\?xml|<!doctype|<html", beginning, re.IGNORECASE):
        raise UnknownFormat(f"{address} is XML or HTML, but no TMX: convert it to TMX or TSV")
    if re.match(r"\[\s*(\{|\]|$)", beginning):
        return "json", "an array of JSON objects"
    first = [line for line in text.split("\n")[:SAMPLE] if line.strip()]
    if not start.whole and len(first) > 1:
        first = first[: max(1, len(first) - 1)]
    if 2 * sum(line.lstrip().startswith("{") for line in first) >= len(first) and (
        any(_is_object(line) for line in first) or (len(first) == 1 and not start.whole)
    ):
        return "jsonl", "a JSON object on each line"
    if re.match(r'\{\s*"', beginning):
        raise UnknownFormat(
            f"{address} is one JSON object over several lines: make an array of the rows, or write "
            "one object a line"
        )
    return _table(address, first)


def _table(address: str, first: list[str]) -> tuple[str, str]:
    """TSV, CSV or neither: by a header, else by the name, else by tabs."""
    for delimiter in ("\t", ",", ";"):
        header = [cell.strip(' "\r') for cell in first[0].split(delimiter)]
        record: dict[str, Any] = dict.fromkeys(header, "")
        if len(header) > 1 and (columns_of(header) or records.form_of([record]) is not None):
            stored = "tsv" if delimiter == "\t" else "csv"
            return stored, f"a header with {', '.join(header[:4])}"
    if name_of(address).lower().endswith(".csv") and any("," in row or ";" in row for row in first):
        return "csv", "commas in its lines and .csv in its name"
    if 2 * sum("\t" in line for line in first) > len(first):
        return "tsv", "tabs in its lines"
    return "lines", "plain text"


def _decoded(address: str, start: Head) -> str:
    data = start.data if start.whole else start.data[: start.data.rfind(b"\n") + 1] or start.data
    if 100 * data.count(0) > len(data):  # one that strayed into a text is a matter of cleaning
        raise UnknownFormat(f"{address} is no text, and none of the binary formats that are known")
    raw = data.split(b"\n")
    text = data.decode("utf-8", "replace")
    # A broken byte here and there is rejected with its row; this is about all of the text.
    if len(raw) > 1:
        broken = 3 * sum(1 for line in raw if not _is_utf8(line)) > len(raw)
    else:
        broken = 50 * (text.count("\ufffd") - data.count("\ufffd".encode())) > len(text)
    if broken:
        sample = data[:4096]
        controls = sum(byte < 32 and byte not in b"\t\n\r\x0b\x0c\x1b" for byte in sample)
        if 50 * controls > len(sample):
            raise UnknownFormat(
                f"{address} is no text, and none of the binary formats that are known"
            )
        raise UnknownFormat(
            f"{address} is not in UTF-8: convert it, such as with iconv -f GB18030 -t UTF-8"
        )
    return text


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_object(line: str) -> bool:
    import json

    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _delimiter(start: Head, stored: str) -> str:
    if stored == "tsv":
        return "\t"
    first = start.data.split(b"\n", 1)[0]
    return ";" if first.count(b";") > first.count(b",") else ","


def _named(config: SourceConfig) -> tuple[str, ...]:
    return tuple(column for column in config.columns.values() if isinstance(column, str))


def _sample(stored: str, address: str, how: Dialect | None) -> list[Mapping[str, Any]]:
    rows = islice(_records(stored, address, how), 2 * SAMPLE)
    return [
        record
        for _, record in rows
        if isinstance(record, Mapping) and not isinstance(record, Rejected)
    ][:SAMPLE]


def _form(
    address: str,
    stored: str,
    sample: list[Mapping[str, Any]],
    config: SourceConfig,
    how: Dialect | None,
) -> tuple[str, str]:
    """The form of the records, and what it was told from."""
    keys = ", ".join(list(sample[0])[:6])
    if config.format in records.FORMS:
        return config.format, f"format={config.format}"
    if config.columns:
        return "columns", "columns are named"
    if how is not None and how.header is None:
        return "columns", "no header"
    found = records.form_of(sample)
    if found is None:
        raise UnknownFormat(
            f"{address} is {stored} with {keys}, which is none of the known forms: say with "
            "columns={source:…,target:…} which are the texts, or with format=… what it is"
        )
    return found, f"{'columns' if how is not None else 'keys'} {keys}"


def _columns(
    address: str, sample: list[Mapping[str, Any]], config: SourceConfig, how: Dialect | None
) -> dict[str, str]:
    """Columns by role: as the source says, else by their names, else the two that hold text."""
    names = list(dict.fromkeys(name for record in sample for name in record))
    if config.columns:
        return {
            role: _column(address, role, column, names) for role, column in config.columns.items()
        }
    if how is None or how.header is not None:
        found = columns_of(names)
        if not found:
            raise UnknownFormat(
                f"{address} has {', '.join(names[:8])}: say with columns={{source:…,target:…}} "
                "which are the texts"
            )
        return found
    text = [
        name
        for name in names
        if sum(any(map(str.isalpha, record[name])) for record in sample) > len(sample) / 2
    ]
    if len(text) != 2:
        raise UnknownFormat(
            f"{address} has {len(names)} columns without a header, {len(text)} of them text: say "
            "which two are meant, such as with columns={source:1,target:2}"
        )
    return {"source": text[0], "target": text[1]}


def _column(address: str, role: str, column: str | int, names: list[str]) -> str:
    if isinstance(column, int) and 1 <= column <= len(names):
        return names[column - 1]
    if column in names:
        return str(column)
    raise UserError(
        f"{address} has no column {column!r} for {role}: it has {', '.join(names[:12])}"
    )


def _mismatch(address: str, wanted: str, why: str) -> UserError:
    return UnknownFormat(
        f"{address} is not {wanted} (what was seen: {why}): leave format out to have it told"
    )
