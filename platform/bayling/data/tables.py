"""The data stage's tables, in Parquet files, one for each partition: sentence pairs,
conversations, and what was dropped."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bayling.requirements import Requirement
from bayling.templates import Conversation, Message


@dataclass(frozen=True)
class Pair:
    """A sentence and its translation, in the tables of the data stage."""

    source_lang: str
    target_lang: str
    source: str
    target: str
    origin: str
    file: str
    line: int
    terms: tuple[tuple[str, str], ...] = ()
    """Words of the source, and what they are called in the target."""
    register: str = ""
    """As the data calls it: formal, informal, …"""

    @property
    def languages(self) -> tuple[str, str]:
        """Source and target."""
        return self.source_lang, self.target_lang

    @property
    def id(self) -> str:
        """A hash of what it says; where it was found makes no difference."""
        content = "\0".join((self.source_lang, self.target_lang, self.source, self.target))
        return hashlib.sha256(content.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Quarantined:
    """Something that was not taken, and why."""

    step: str
    found: str
    file: str
    line: int
    source_lang: str = ""
    target_lang: str = ""
    source: str = ""
    target: str = ""


def write_pairs(path: Path, pairs: Iterable[Pair]) -> None:
    rows = []
    for pair in pairs:
        row = asdict(pair)
        row["terms"] = [{"source": source, "target": target} for source, target in pair.terms]
        rows.append(row)
    _write(path, rows, _pairs())


def read_pairs(path: Path) -> Iterator[Pair]:
    """The pairs of one partition, in order."""
    for row in _read(path):
        row["terms"] = tuple((term["source"], term["target"]) for term in row["terms"])
        yield Pair(**row)


def write_quarantine(path: Path, rows: Sequence[Quarantined]) -> None:
    """Nothing is written where there is nothing."""
    if rows:
        _write(path, [asdict(row) for row in rows], _quarantine())


def read_quarantine(folder: Path) -> Iterator[Quarantined]:
    """All that was dropped, partition by partition."""
    for path in sorted(folder.rglob("*.parquet")):
        for row in _read(path):
            yield Quarantined(**row)


def write_conversations(path: Path, rows: Iterable[Conversation]) -> None:
    _write(path, [_row(made) for made in rows], _conversations())


def read_conversations(path: Path) -> Iterator[Conversation]:
    """The conversations of one partition, in order."""
    for row in _read(path):
        messages = tuple(
            Message(
                item["role"],
                item["content"],
                tuple(
                    Requirement(one["kind"], tuple(one["values"])) for one in item["requirements"]
                ),
            )
            for item in row.pop("messages")
        )
        yield Conversation(messages=messages, **row)


def _row(made: Conversation) -> dict[str, Any]:
    """A conversation in Parquet's terms; spelt out, as a generic walk costs half of the stage."""
    messages = [
        {**vars(message), "requirements": [vars(item) for item in message.requirements]}
        for message in made.messages
    ]
    return {**vars(made), "messages": messages}


def _read(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=1000):
            yield from batch.to_pylist()


def _write(path: Path, rows: list[dict[str, Any]], schema: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    # A task that is ended in the middle, and begun again elsewhere, leaves no half of a file.
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    pq.write_table(pa.Table.from_pylist(rows, schema), aside)
    aside.replace(path)


def _pairs() -> Any:
    import pyarrow as pa

    term = pa.struct([("source", pa.string()), ("target", pa.string())])
    texts = ("source_lang", "target_lang", "source", "target", "origin", "file")
    return pa.schema(
        [
            *((name, pa.string()) for name in texts),
            ("line", pa.int64()),
            ("terms", pa.list_(term)),
            ("register", pa.string()),
        ]
    )


def _quarantine() -> Any:
    import pyarrow as pa

    texts = ("source_lang", "target_lang", "source", "target")
    return pa.schema(
        [
            ("step", pa.string()),
            ("found", pa.string()),
            ("file", pa.string()),
            ("line", pa.int64()),
            *((name, pa.string()) for name in texts),
        ]
    )


def _conversations() -> Any:
    import pyarrow as pa

    requirement = pa.struct([("kind", pa.string()), ("values", pa.list_(pa.string()))])
    message = pa.struct(
        [("role", pa.string()), ("content", pa.string()), ("requirements", pa.list_(requirement))]
    )
    return pa.schema(
        [
            ("id", pa.string()),
            ("messages", pa.list_(message)),
            ("task", pa.string()),
            ("source_lang", pa.string()),
            ("target_lang", pa.string()),
            ("origin", pa.string()),
        ]
    )
