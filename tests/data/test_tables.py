"""What was written is read as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from bayling.data import tables
from bayling.data.tables import Pair, Quarantined
from bayling.requirements import Requirement
from bayling.templates import Conversation, Message

pytestmark = pytest.mark.unit


def test_tables_come_back_as_they_were(tmp_path: Path) -> None:
    pairs = [
        Pair("en", "de", "a fee", "eine Gebühr", "opus", "x.en", 7, (("fee", "Gebühr"),)),
        Pair("zh", "en", "你好\n", "Hello \u2028", "opus", "y.zh", 2**40, (), "formal"),
    ]
    tables.write_pairs(tmp_path / "pairs" / "a.parquet", iter(pairs))
    assert list(tables.read_pairs(tmp_path / "pairs" / "a.parquet")) == pairs
    turns = (
        Message("system", "Be brief."),
        Message("user", "Say it", (Requirement("contains", ("it",)), Requirement("changed"))),
        Message("assistant", "it"),
    )
    talks = [Conversation("id", turns, "constrained", "en", "de", "opus")]
    tables.write_conversations(tmp_path / "talks" / "a.parquet", talks)
    assert list(tables.read_conversations(tmp_path / "talks" / "a.parquet")) == talks
    tables.write_pairs(tmp_path / "pairs" / "none.parquet", [])
    assert list(tables.read_pairs(tmp_path / "pairs" / "none.parquet")) == []


def test_the_quarantine_of_all_partitions_is_read_together(tmp_path: Path) -> None:
    rows = [Quarantined("script", "0 of 5", "x.en", n, "en", "de", "a", "b") for n in range(3)]
    tables.write_quarantine(tmp_path / "cleaning" / "1.parquet", rows[:2])
    tables.write_quarantine(tmp_path / "repeats" / "0.parquet", rows[2:])
    tables.write_quarantine(tmp_path / "repeats" / "1.parquet", [])
    assert not (tmp_path / "repeats" / "1.parquet").exists()
    assert list(tables.read_quarantine(tmp_path)) == rows


def test_a_pair_is_named_by_what_it_says(tmp_path: Path) -> None:
    one = Pair("en", "de", "a", "b", "opus", "x", 1)
    assert one.id == Pair("en", "de", "a", "b", "other", "y", 2).id
    assert one.id != Pair("en", "fr", "a", "b", "opus", "x", 1).id
