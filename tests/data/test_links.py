"""Pairs of different partitions that say the same find each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from bayling.data import links, tables
from bayling.data.tables import Pair

pytestmark = pytest.mark.unit


def pair(source: str, target: str, languages: str = "en de") -> Pair:
    source_lang, target_lang = languages.split()
    return Pair(source_lang, target_lang, source, target, "origin", "file", 1)


def linked(folder: Path, partitions: list[list[Pair]], slices: int = 3) -> list[dict[int, object]]:
    paths = [folder / f"keys-{number}.npy" for number in range(len(partitions))]
    for path, pairs in zip(paths, partitions, strict=True):
        links.write_keys(path, pairs)
    found = [folder / f"links-{part}.npy" for part in range(slices)]
    for part, path in enumerate(found):
        links.look(paths, part, slices, path)
    return [
        {of: rows.tolist() for of, rows in links.elsewhere(found, number).items()}
        for number in range(len(partitions))
    ]


def test_a_side_in_common_links_two_partitions(tmp_path: Path) -> None:
    german = [pair("One.", "Eins."), pair("Two.", "Zwei."), pair("Three.", "Drei.")]
    french = [pair("Two.", "Deux.", "en fr"), pair("Four.", "Quatre.", "en fr")]
    chinese = [pair("四。", "Quatre.", "zh fr"), pair("Zwei.", "二。", "de zh")]
    assert linked(tmp_path, [german, french, chinese]) == [
        {1: [0], 2: [1]},
        {0: [1], 2: [0]},
        {0: [1], 1: [1]},
    ]


def test_a_text_is_another_one_in_another_language(tmp_path: Path) -> None:
    partitions = [[pair("Hotel", "Hotel.")], [pair("Hôtel", "Hotel", "fr de")], []]
    assert linked(tmp_path, partitions) == [{}, {}, {}]


def test_what_is_said_everywhere_links_a_few_only(tmp_path: Path) -> None:
    partitions = [[pair("Yes.", f"Ja {a} {b}.") for b in range(5)] for a in range(30)]
    for number, found in enumerate(linked(tmp_path, partitions, 1)):
        assert number not in found
        assert sum(len(rows) for rows in found.values()) <= 8  # type: ignore[arg-type]


def test_rows_of_a_partition_are_fetched_by_their_number(tmp_path: Path) -> None:
    pairs = [pair(f"Number {number}.", f"Nummer {number}.") for number in range(2500)]
    tables.write_pairs(tmp_path / "pairs.parquet", pairs)
    assert list(tables.pairs_at(tmp_path / "pairs.parquet", [3, 2400])) == [pairs[3], pairs[2400]]
