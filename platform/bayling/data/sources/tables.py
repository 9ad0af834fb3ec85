"""Tables of text: TSV and CSV, with or without a header, quoted or not.

Corpora in TSV are seldom quoted: a `"` is the beginning of direct speech. So quotes mean something
in a table only where they are used as RFC 4180 says.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from bayling.data.sources.columns import columns_of
from bayling.data.sources.opening import Broken, lines
from bayling.data.sources.records import FORMS
from bayling.data.sources.rows import Pair, Place, Rejected, rejected

_SAMPLE = 200
_LINES = 100
"""Lines of the longest quoted record; a quote that is open for longer was never meant as one."""


@dataclass(frozen=True)
class Dialect:
    """How a table is written."""

    delimiter: str
    quoted: bool
    header: tuple[str, ...] | None
    width: int
    """Columns of most of the rows."""


def dialect(address: str, delimiter: str, names: tuple[str, ...] = ()) -> Dialect:
    """How the table at an address is written.

    Args:
        names: columns that the header must have, where they are known.

    Raises:
        UserError: the file cannot be opened or unpacked.
    """
    sample = [line for line in islice(lines(address), _SAMPLE) if isinstance(line, str) and line]
    quoted = _quoted(sample, delimiter)
    rows = [
        cells
        for _, cells in islice(_cells(iter(sample), address, delimiter, quoted), _SAMPLE)
        if isinstance(cells, list)
    ]
    if not rows:
        return Dialect(delimiter, quoted, None, 0)
    first = [cell.strip() for cell in rows[0]]
    header = None
    if len(set(first)) == len(first) and (_is_header(first) or set(names) & set(first)):
        header = tuple(first)
    widths = Counter(len(row) for row in rows)
    return Dialect(delimiter, quoted, header, len(header or ()) or widths.most_common(1)[0][0])


def records(address: str, how: Dialect) -> Iterator[tuple[int, Any]]:
    """The rows as records with their lines, by the names in the header or by numbers from 1.

    Raises:
        UserError: the file cannot be opened or unpacked.
    """
    names = how.header or tuple(str(number) for number in range(1, how.width + 1))
    rows = _cells(lines(address), address, how.delimiter, how.quoted)
    for number, cells in islice(rows, 1 if how.header else 0, None):
        if isinstance(cells, Rejected):
            yield number, cells
        elif len(cells) == len(names):
            yield number, dict(zip(names, cells, strict=True))
        elif cells != [""]:
            columns = f"{len(cells)} column{'s' if len(cells) != 1 else ''}"
            reason = f"{columns} instead of {len(names)}"
            yield number, rejected(address, number, reason, how.delimiter.join(cells))


def is_terminology(address: str) -> bool:
    """Whether a table has the form of the IATE and Wiktionary test sets: numbers, then terms."""
    sample = [line for line in islice(lines(address), 20) if isinstance(line, str) and line]
    rows = [line.split("\t") for line in sample]
    return bool(rows) and all(
        len(row) >= 4
        and row[0].isdigit()
        and row[1].isdigit()
        and not len(_filled(row)) % 2
        and len(_filled(row)) > 0
        for row in rows
    )


def terminology(address: str, languages: tuple[str, ...]) -> Iterator[Pair | Rejected]:
    """Glossary entries, each as a pair of its two terms.

    A row is the row's number, that of a sentence, and any number of terms with their translations.

    Raises:
        UserError: the file cannot be opened or unpacked.
    """
    source_lang, target_lang = languages
    for number, line in enumerate(lines(address), 1):
        if isinstance(line, Broken):
            yield rejected(address, number, line.reason, line.text)
            continue
        cells = line.split("\t")
        terms = _filled(cells)
        if len(cells) < 4 or not terms or len(terms) % 2:
            yield rejected(address, number, "a term without a translation", line)
            continue
        for source, target in zip(terms[::2], terms[1::2], strict=True):
            place = Place(address, number)
            term = ((source, target),)
            yield Pair(source_lang, target_lang, source, target, place, term, id=cells[1])


def _filled(cells: list[str]) -> list[str]:
    return [cell for cell in cells[2:] if cell.strip()]


def _is_header(cells: list[str]) -> bool:
    # Names of columns, not a sentence that happens to be one: all short, and a form knows them.
    if not all(cell and len(cell) <= 60 for cell in cells):
        return False
    record: Mapping[str, Any] = dict.fromkeys(cells, "")
    return bool(columns_of(cells)) or any(form.recognises(record) for form in FORMS.values())


def _quoted(sample: list[str], delimiter: str) -> bool:
    if not any('"' in line for line in sample):
        return delimiter != "\t"
    if delimiter != "\t":
        return True
    cells = [cell for line in sample for cell in line.split(delimiter)]
    opened = [cell for cell in cells if cell.startswith('"')]
    closed = [cell for cell in opened if _is_quoted(cell)]
    if not closed or len(closed) < len(opened):
        return False
    # Direct speech as a whole cell looks the same: but there not every quote is doubled or needed.
    return len(closed) == len(cells) or any('""' in cell[1:-1] for cell in closed)


def _is_quoted(cell: str) -> bool:
    inner = cell[1:-1]
    return len(cell) >= 2 and cell.endswith('"') and '"' not in inner.replace('""', "")


def _cells(
    text: Iterator[str | Broken], address: str, delimiter: str, quoted: bool
) -> Iterator[tuple[int, list[str] | Rejected]]:
    """The rows of a table with the line that each begins at."""
    numbered: Iterator[tuple[int, str | Broken]] = iter(enumerate(text, 1))
    while (item := next(numbered, None)) is not None:
        number, line = item
        if isinstance(line, Broken):
            yield number, rejected(address, number, line.reason, line.text)
        elif not quoted or '"' not in line:
            yield number, line.split(delimiter)
        elif _closed(line):
            yield number, _split(line, delimiter)
        else:
            more: list[tuple[int, str | Broken]] = []
            record = line
            for following in islice(numbered, _LINES):
                more.append(following)
                if isinstance(following[1], Broken):
                    break
                record += "\n" + following[1]
                if '"' in following[1] and _closed(record):
                    break
            if more and _closed(record):
                yield number, _split(record, delimiter)
            else:
                # Only this line is lost: the next ones are read again, each for itself.
                yield number, rejected(address, number, "a quote that is never closed", line)
                numbered = chain(more, numbered)


def _closed(record: str) -> bool:
    return record.count('"') % 2 == 0


def _split(record: str, delimiter: str) -> list[str]:
    # One text is one record, whatever line ends its quotes hold.
    return next(csv.reader([record], delimiter=delimiter), [""])
