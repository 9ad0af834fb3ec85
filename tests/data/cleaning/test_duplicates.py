"""What is there twice goes once, whatever the partitions; and nothing else does."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from bayling.data.cleaning import duplicates
from bayling.data.cleaning.duplicates import BANDS, Corpus, Repeats, sign, within
from bayling.data.cleaning.steps import Batch

pytestmark = pytest.mark.unit


def sentence(rng: random.Random, words: int = 14) -> str:
    letters = "abcdefghijklmnopqrstuvwxyz"
    return " ".join("".join(rng.choices(letters, k=rng.randint(3, 8))) for _ in range(words))


def corpus(folder: Path, pairs: list[tuple[str, str]], partitions: int) -> Corpus:
    folders = []
    for number, part in enumerate(np.array_split(np.arange(len(pairs)), partitions)):
        rows = [pairs[index] for index in part]
        batch = Batch("en", "de", [row[0] for row in rows], [row[1] for row in rows])
        folders.append(folder / f"{number:05d}")
        sign(batch).write(folders[-1])
    return Corpus(folders)


def places(repeats: Repeats, sizes: list[int]) -> set[int]:
    first = np.concatenate([[0], np.cumsum(sizes)])
    return {
        int(first[part] + row) for part, row in zip(repeats.partition, repeats.row, strict=True)
    }


def near(made: Corpus, similarity: float) -> set[tuple[int, int]]:
    """Partition and row of all that goes."""
    looks = [
        made.near(band, part, similarity) for band in range(BANDS) for part in range(made.slices)
    ]
    return {pair for one in looks for pair in rows(one)}


def rows(repeats: Repeats) -> set[tuple[int, int]]:
    return set(zip(repeats.partition.tolist(), repeats.row.tolist(), strict=True))


def test_the_later_one_of_two_equal_pairs_goes(tmp_path: Path) -> None:
    """Case and punctuation make no difference, the other language does."""
    pairs = [
        ("A cat sat there.", "Dort saß eine Katze."),
        ("Something else", "Etwas anderes"),
        ("a cat sat there", "dort saß eine Katze!"),
        ("A cat sat there.", "Eine Katze hat dort gesessen."),
        ("A cat sat there.", "Dort saß eine Katze."),
    ]
    repeats = corpus(tmp_path, pairs, 2).exact(0)
    assert places(repeats, [3, 2]) == {2, 4}
    assert set(zip(repeats.of_partition, repeats.of_row, strict=True)) == {(0, 0)}


@pytest.mark.parametrize(("registers", "left"), [(("", ""), 1), (("formal", "informal"), 2)])
def test_pairs_that_differ_in_register_are_no_near_duplicates(
    tmp_path: Path, registers: tuple[str, str], left: int
) -> None:
    source = "Could you please tell the two of us in which street the old station was?"
    target = "{} uns beiden bitte sagen, in welcher Straße der alte Bahnhof gewesen ist?"
    folders = [tmp_path / "0", tmp_path / "1"]
    for folder, register, words in zip(
        folders, registers, ("Können Sie", "Kannst du"), strict=True
    ):
        sign(Batch("en", "de", [source], [target.format(words)]), register).write(folder)
    assert 2 - len(near(Corpus(folders), 0.8)) == left


@pytest.mark.parametrize("partitions", [1, 3, 7])
def test_what_is_found_does_not_depend_on_the_partitions(tmp_path: Path, partitions: int) -> None:
    rng = random.Random(1)
    pairs = [(sentence(rng), sentence(rng)) for _ in range(40)]
    for index in (3, 11, 20):
        source, target = pairs[index]
        pairs.append((source.replace(source.split()[2], "another", 1), target))
    pairs += [(sentence(rng), pairs[5][1])]
    made = corpus(tmp_path, pairs, partitions)
    sizes = [len(part) for part in np.array_split(np.arange(len(pairs)), partitions)]
    first = np.concatenate([[0], np.cumsum(sizes)])
    assert {int(first[part] + row) for part, row in near(made, 0.7)} == {40, 41, 42}


def test_slices_find_together_what_one_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(2)
    pairs = [(sentence(rng), sentence(rng)) for _ in range(60)] * 2
    made = corpus(tmp_path, pairs, 4)
    whole, both = made.exact(0), near(made, 0.9)
    monkeypatch.setattr(duplicates, "SLICE", 25)
    assert made.slices == 5
    found = {pair for number in range(made.slices) for pair in rows(made.exact(number))}
    assert found == rows(whole)
    assert len(found) == 60
    assert near(made, 0.9) == both == found


def test_short_pairs_that_differ_in_a_number_stay(tmp_path: Path) -> None:
    pairs = [(f"{number} kilometers", f"{number} Kilometer") for number in range(100, 160)]
    assert near(corpus(tmp_path, pairs, 2), 0.5) == set()


def test_a_sentence_beside_many_others_is_boilerplate(tmp_path: Path) -> None:
    rng = random.Random(3)
    pairs = [(sentence(rng), "Alle Rechte vorbehalten.") for _ in range(6)]
    pairs += [("We keep all rights.", "Alle Rechte vorbehalten.")] * 3
    pairs += [(sentence(rng), sentence(rng)) for _ in range(10)]
    made = corpus(tmp_path, pairs, 3)
    sizes = [len(part) for part in np.array_split(np.arange(len(pairs)), 3)]
    assert places(made.boilerplate("target", 0, 6), sizes) == set(range(9))
    assert places(made.boilerplate("target", 0, 7), sizes) == set(), "seven different ones"
    assert places(made.boilerplate("source", 0, 6), sizes) == set()


def test_a_partition_finds_its_own_among_what_was_written(tmp_path: Path) -> None:
    array = np.array
    repeats = Repeats(array([2, 0, 2]), array([5, 1, 3]), array([0, 0, 1]), array([7, 0, 2]))
    repeats.write(tmp_path / "exact.npy")
    assert within(tmp_path / "exact.npy", 2) == [(3, 1, 2), (5, 0, 7)]
    assert within(tmp_path / "exact.npy", 0) == [(1, 0, 0)]
    assert within(tmp_path / "exact.npy", 1) == []
