"""Sources of data for tests: small files in every format and packing, and what reads them back."""

from __future__ import annotations

import gzip
import json
import lzma
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bayling.data.sources import Pair, Rejected, Row, open_source, source_config

PAIRS = [
    ("The house is big.", "Das Haus ist groß."),
    ("We arrive on Thursday.", "Wir kommen am Donnerstag an."),
    ("Where is the station?", "Wo ist der Bahnhof?"),
]
ENDINGS = {"gzip": ".gz", "zstd": ".zst", "xz": ".xz"}


def packed(data: bytes, how: str | None) -> bytes:
    """Data in gzip, zstd or xz, or as it is."""
    if how == "gzip":
        return gzip.compress(data)
    if how == "xz":
        return lzma.compress(data)
    if how == "zstd":
        import zstandard

        return bytes(zstandard.compress(data))
    return data


def write(path: Path, text: str | bytes, how: str | None = None) -> Path:
    """Write text as UTF-8, or bytes, packed if asked."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(packed(text.encode() if isinstance(text, str) else text, how))
    return path


def write_lines(path: Path, lines: Sequence[str], how: str | None = None) -> Path:
    return write(path, "".join(f"{line}\n" for line in lines), how)


def write_json_lines(path: Path, records: Sequence[Any], how: str | None = None) -> Path:
    return write_lines(path, [json.dumps(item, ensure_ascii=False) for item in records], how)


def write_parquet(path: Path, records: Sequence[Mapping[str, Any]]) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist([dict(item) for item in records]), path)
    return path


def rows(path: object, **keys: Any) -> list[Row]:
    """All rows of a source."""
    config = source_config({"path": path if isinstance(path, list) else str(path), **keys})
    source = open_source(config)
    return [row for part in source.files for row in source.rows(part)]


def pairs(path: object, **keys: Any) -> list[tuple[str, str, str, str]]:
    """The pairs of a source that must have nothing else: both languages and both texts."""
    found = rows(path, **keys)
    assert all(isinstance(row, Pair) for row in found), found
    return [
        (row.source_lang, row.target_lang, row.source, row.target)
        for row in found
        if isinstance(row, Pair)
    ]


def rejected(path: object, **keys: Any) -> list[tuple[int, str]]:
    """Line and reason of what a source rejects."""
    return [(row.place.line, row.reason) for row in rows(path, **keys) if isinstance(row, Rejected)]
