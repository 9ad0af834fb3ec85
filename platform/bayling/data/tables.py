"""The data stage's tables, in Parquet files, one for each partition: sentence pairs,
conversations, and what was dropped."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice, repeat
from pathlib import Path
from typing import Any

from bayling.requirements import Requirement
from bayling.templates import Conversation, Message

_SIDES = ("source_lang", "target_lang", "source", "target", "origin", "file")
_ABOUT = ("id", "task", "source_lang", "target_lang", "origin")


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
    import pyarrow as pa

    rows = list(pairs)
    terms = [term for pair in rows for term in pair.terms]
    columns: dict[str, Any] = {
        name: [getattr(pair, name) for pair in rows] for name in (*_SIDES, "line", "register")
    }
    sides = [[source for source, _ in terms], [target for _, target in terms]]
    named = pa.StructArray.from_arrays([_texts(side) for side in sides], ["source", "target"])
    columns["terms"] = _lists([pair.terms for pair in rows], named)
    _write(path, columns, _pairs())


def read_pairs(path: Path) -> Iterator[Pair]:
    """The pairs of one partition, in order."""
    for batch in _read(path):
        yield from _pairs_of(batch)


def _pairs_of(batch: Any) -> Iterator[Pair]:
    sources, targets = batch["terms"].flatten().flatten()
    terms = zip(sources.to_pylist(), targets.to_pylist(), strict=True)
    columns = [batch[name].to_pylist() for name in (*_SIDES, "line", "register")]
    for *values, register, number in zip(*columns, _lengths(batch["terms"]), strict=True):
        fields = *values, tuple(islice(terms, number)), register
        yield Pair(*fields)


def pairs_at(path: Path, rows: Any) -> Iterator[Pair]:
    """Those in some rows of a partition, an array of their numbers."""
    import pyarrow.parquet as pq

    for batch in pq.read_table(path).take(rows).to_batches():
        yield from _pairs_of(batch)


def write_quarantine(path: Path, rows: Sequence[Quarantined]) -> None:
    """Nothing is written where there is nothing."""
    if rows:
        schema = _quarantine()
        columns = {name: [getattr(row, name) for row in rows] for name in schema.names}
        _write(path, columns, schema)


def read_quarantine(folder: Path) -> Iterator[Quarantined]:
    """All that was dropped, partition by partition."""
    for path in sorted(folder.rglob("*.parquet")):
        for batch in _read(path):
            for row in batch.to_pylist():
                yield Quarantined(**row)


def write_conversations(path: Path, rows: Iterable[Conversation]) -> None:
    import pyarrow as pa

    made = list(rows)
    messages = [message for row in made for message in row.messages]
    wanted = [item for message in messages for item in message.requirements]
    values = _texts([value for item in wanted for value in item.values])
    requirements = pa.StructArray.from_arrays(
        [_texts([item.kind for item in wanted]), _lists([item.values for item in wanted], values)],
        ["kind", "values"],
    )
    turns = pa.StructArray.from_arrays(
        [
            _texts([message.role for message in messages]),
            _texts([message.content for message in messages]),
            _lists([message.requirements for message in messages], requirements),
        ],
        ["role", "content", "requirements"],
    )
    columns: dict[str, Any] = {name: [getattr(row, name) for row in made] for name in _ABOUT}
    columns["messages"] = _lists([row.messages for row in made], turns)
    _write(path, columns, _conversations())


def read_conversations(path: Path, *, requirements: bool = True) -> Iterator[Conversation]:
    """The conversations of one partition, in order.

    Args:
        requirements: whether those of their turns are read too.
    """
    for batch in _read(path):
        roles, contents, wanted = batch["messages"].flatten().flatten()
        known: Iterator[tuple[Requirement, ...]] = repeat(())
        if requirements:
            known = _requirements(wanted)
        messages = map(Message, roles.to_pylist(), contents.to_pylist(), known)
        about = [batch[name].to_pylist() for name in _ABOUT]
        for name, *others, number in zip(*about, _lengths(batch["messages"]), strict=True):
            yield Conversation(name, tuple(islice(messages, number)), *others)


def _requirements(lists: Any) -> Iterator[tuple[Requirement, ...]]:
    """A row's, for each row of a column of lists."""
    kinds, values = lists.flatten().flatten()
    texts = iter(values.flatten().to_pylist())
    every = (
        Requirement(kind, tuple(islice(texts, number)))
        for kind, number in zip(kinds.to_pylist(), _lengths(values), strict=True)
    )
    return (tuple(islice(every, number)) for number in _lengths(lists))


def _read(path: Path) -> Iterator[Any]:
    """A thousand rows at a time, as batches of columns."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        yield from file.iter_batches(batch_size=1000)


def _texts(values: Sequence[str]) -> Any:
    import pyarrow as pa

    return pa.array(values, pa.string())


def _lists(rows: Sequence[Sequence[Any]], items: Any) -> Any:
    """A column of lists, whose items come one after the other.

    Column by column: by way of a dictionary a row, as Arrow offers, it takes several times as long.
    """
    import pyarrow as pa

    ends = pa.array([0, *accumulate(map(len, rows))], pa.int32())
    return pa.ListArray.from_arrays(ends, items)


def _lengths(lists: Any) -> list[int]:
    import pyarrow.compute as pc

    lengths: list[int] = pc.list_value_length(lists).to_pylist()
    return lengths


def _write(path: Path, columns: dict[str, Any], schema: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    # A task that is ended in the middle, and begun again elsewhere, leaves no half of a file.
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    pq.write_table(pa.Table.from_pydict(columns, schema), aside)
    aside.replace(path)


def _pairs() -> Any:
    import pyarrow as pa

    term = pa.struct([("source", pa.string()), ("target", pa.string())])
    return pa.schema(
        [
            *((name, pa.string()) for name in _SIDES),
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
