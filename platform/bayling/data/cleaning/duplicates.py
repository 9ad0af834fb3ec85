"""Pairs that are there more than once, exactly or nearly; found in bounded memory.

Every partition writes the *signatures* of its pairs: a hash of each side, and a MinHash of both (64
permutations, by rensa). Pairs that agree in one of 16 bands of four are compared by the share of
the permutations in which they agree, which estimates the Jaccard similarity of their character
5-grams (with a standard error of 0.05). Of two that are too similar the later one is dropped.

Bands are worked on one at a time, and in slices of what their hashes are, so that no more than
`SLICE` pairs of signatures are in memory. What is dropped depends on the pairs and their order
alone. (Broder 1997; the banding as in Leskovec, Rajaraman and Ullman, Mining of Massive Datasets,
chapter 3.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from bayling.data.cleaning.steps import Batch
from bayling.data.cleaning.words import Hashed, Hashes, mix, words

PERMUTATIONS, BANDS = 64, 16
_ROWS = PERMUTATIONS // BANDS
_SHINGLE = 5
SLICE = 1_000_000
"""Signatures that one task has in memory, at most about twice as many."""
_COMPARED = 8
"""Earlier pairs that a pair is compared with for each band in which they agree, at most."""
_BLOCK = 100_000
"""Pairs that are compared at once."""
_FEW = 4
"""Words on both sides together up to which only equal pairs count: "5 km" is not "6 km"."""
_SEED = 1

_NONE = np.zeros(0, np.int64)
EXACT, NEAR, BOILERPLATE = "duplicate", "near duplicate", "boilerplate"
Places = npt.NDArray[np.int64]
"""Of pairs, counted through all partitions."""


@dataclass(frozen=True)
class Signatures:
    """Of the pairs of one partition, in order."""

    pair: Hashes
    """Of both sides, without case and punctuation."""
    source: Hashes
    target: Hashes
    """Of a side, the language that it is in and the other's."""
    minhash: npt.NDArray[np.uint32]
    """(pairs, PERMUTATIONS); all zero for pairs too short to be compared so."""

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("pair", "source", "target", "minhash"):
            np.save(folder / f"{name}.npy", getattr(self, name))


def sign(batch: Batch, register: str = "", *, near: bool = True) -> Signatures:
    """The signatures of pairs of one direction.

    Args:
        near: whether near duplicates will be looked for.
        register: of all of them, where the data says it. Pairs of different ones are no near
            duplicates: how little they differ in is what can be learnt from them.
    """
    number = len(batch)
    sides = [mix(_same(tag, number), Hashed.of(texts).whole()) for tag, texts in batch.sides]
    minhash = np.zeros((number, PERMUTATIONS), np.uint32)
    if near:
        _sketch(batch, register, minhash)
    # Of each direction by itself: an English sentence may be there with all its translations.
    others = (batch.target_lang, batch.source_lang)
    source, target = (
        mix(_same(other, number), side) for other, side in zip(others, sides, strict=True)
    )
    return Signatures(mix(*sides), source, target, minhash)


def _same(language: str, number: int) -> Hashes:
    return np.full(number, xxhash.xxh3_64_intdigest(language.encode()), np.uint64)


def _sketch(batch: Batch, register: str, minhash: npt.NDArray[np.uint32]) -> None:
    """Fill in the MinHash of each pair that is long enough for one."""
    from rensa import RMinHash

    for index, texts in enumerate(zip(batch.source, batch.target, strict=True)):
        plain = [words(text) for text in texts]
        if sum(map(len, plain)) <= _FEW:
            continue
        joined = [
            f"{language}\0{' '.join(found)}"
            for (language, _), found in zip(batch.sides, plain, strict=True)
        ]
        made = RMinHash(num_perm=PERMUTATIONS, seed=_SEED)
        shingles = [shingle for text in joined for shingle in _shingles(text)]
        made.update([register + one for one in shingles] if register else shingles)
        minhash[index] = made.digest()


def join(parts: Sequence[Signatures], order: Sequence[int]) -> Signatures:
    """The signatures of several batches as those of one partition.

    Args:
        order: for each signature of the parts, one after the other, its place in the partition.
    """
    if not parts:
        parts, order = [sign(Batch("", "", [], []))], []
    places = np.argsort(np.asarray(order, np.int64))
    together = {
        name: np.concatenate([getattr(part, name) for part in parts])[places]
        for name in ("pair", "source", "target", "minhash")
    }
    return Signatures(**together)


def _shingles(text: str) -> list[str]:
    return [text[first : first + _SHINGLE] for first in range(max(1, len(text) - _SHINGLE + 1))]


@dataclass(frozen=True)
class Repeats:
    """The pairs that go, of all partitions."""

    partition: Places
    row: Places
    of_partition: Places
    of_row: Places
    """The pair that stays; for boilerplate, the first with that sentence."""

    def write(self, folder: Path) -> None:
        """As one array (repeats, 4), sorted by what goes: `within` finds a partition's in it."""
        columns = [self.partition, self.row, self.of_partition, self.of_row]
        table = np.stack(columns, axis=1).astype(np.int64)
        folder.parent.mkdir(parents=True, exist_ok=True)
        np.save(folder, table[np.lexsort(table.T[::-1])])


def within(path: Path, partition: int) -> list[tuple[int, int, int]]:
    """Of the repeats that were written: row, and the partition and row that it repeats."""
    table = np.load(path, mmap_mode="r")
    first, last = np.searchsorted(table[:, 0], [partition, partition + 1])
    return [(int(row), int(part), int(of)) for _, row, part, of in table[first:last]]


class Corpus:
    """The signatures of all partitions, mapped into memory."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._sizes = [len(np.load(folder / "pair.npy", mmap_mode="r")) for folder in folders]
        self._first = np.concatenate([[0], np.cumsum(self._sizes)])

    @property
    def slices(self) -> int:
        """Into how many slices a column is cut."""
        return max(1, -(-int(self._first[-1]) // SLICE))

    def exact(self, part: int) -> Repeats:
        """Pairs whose hash falls in a slice and that an earlier pair equals."""
        keys, places = self._slice("pair", part)
        first = firsts(keys)
        later = first != np.arange(len(keys))
        return self._repeats(places[later], places[first[later]])

    def near(self, band: int, part: int, similarity: float) -> Repeats:
        """Pairs of a slice of a band that an earlier one is nearly equal to."""
        keys, places = self._slice("minhash", part, band)
        gone, kept = [_NONE], [_NONE]
        for _ in range(_COMPARED):
            # Of those that agree in the band, the first is what the others are compared with. It
            # stays, and those that differ from it go into the next round.
            first = firsts(keys)
            later = np.flatnonzero(first != np.arange(len(keys)))
            if not len(later):
                break
            alike = self._alike(places[later], places[first[later]])
            same = alike >= similarity
            gone.append(places[later[same]])
            kept.append(places[first[later[same]]])
            keys, places = keys[later[~same]], places[later[~same]]
        return self._repeats(np.concatenate(gone), np.concatenate(kept))

    def _alike(self, some: Places, others: Places) -> npt.NDArray[np.float64]:
        """The part of the permutations in which pairs agree, a block at a time."""
        parts = [
            (
                self._at("minhash", some[start : start + _BLOCK])
                == self._at("minhash", others[start : start + _BLOCK])
            ).mean(axis=1)
            for start in range(0, len(some), _BLOCK)
        ]
        return np.concatenate(parts)

    def boilerplate(self, side: str, part: int, most: int) -> Repeats:
        """Pairs of a slice whose `side` stands beside more than `most` different sentences."""
        keys, places = self._slice(side, part)
        first = firsts(keys)
        other = self._at("target" if side == "source" else "source", places)
        # Different sentences beside one: a sentence said twice alike is a duplicate.
        pairs = np.unique(np.stack([first, other.view(np.int64)], axis=1), axis=0)
        number = np.bincount(pairs[:, 0], minlength=len(keys))[first]
        much = number > most
        return self._repeats(places[much], places[first][much])

    def _slice(self, column: str, part: int, band: int | None = None) -> tuple[Hashes, Places]:
        """The hashes of a column that fall in a slice, sorted, and which pairs they belong to."""
        keys, places = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
        for folder, first in zip(self._folders, self._first, strict=False):
            found = np.load(folder / f"{column}.npy", mmap_mode="r")
            if band is None:
                hashes = np.asarray(found)
                rows = np.arange(len(hashes))
            else:
                values = np.ascontiguousarray(found[:, band * _ROWS : (band + 1) * _ROWS])
                rows = np.flatnonzero(values.any(axis=1))
                hashes = _mix(values[rows])
            mine = hashes % np.uint64(self.slices) == part
            keys.append(hashes[mine])
            places.append(rows[mine] + first)
        together, where = np.concatenate(keys), np.concatenate(places)
        order = np.lexsort((where, together))
        return together[order], where[order]

    def _at(self, column: str, places: Places) -> npt.NDArray[Any]:
        """What pairs have in a column."""
        owner = np.searchsorted(self._first, places, side="right") - 1
        example = np.load(self._folders[0] / f"{column}.npy", mmap_mode="r")
        found = np.zeros((len(places), *example.shape[1:]), example.dtype)
        for index in np.unique(owner):
            mine = owner == index
            mapped = np.load(self._folders[index] / f"{column}.npy", mmap_mode="r")
            found[mine] = mapped[places[mine] - self._first[index]]
        return found

    def _repeats(self, gone: Places, kept: Places) -> Repeats:
        owner = np.searchsorted(self._first, gone, side="right") - 1
        other = np.searchsorted(self._first, kept, side="right") - 1
        return Repeats(owner, gone - self._first[owner], other, kept - self._first[other])


def firsts(keys: Hashes) -> Places:
    """For sorted keys, the place of the first that equals each."""
    new = np.concatenate([[True], keys[1:] != keys[:-1]])[: len(keys)]
    places: Places = np.flatnonzero(new)[np.cumsum(new) - 1]
    return places


def _mix(values: npt.NDArray[np.uint32]) -> Hashes:
    """One hash of each row of values (FNV-1a over words)."""
    mixed = np.full(len(values), 0xCBF29CE484222325, np.uint64)
    for column in values.T:
        mixed = (mixed ^ column.astype(np.uint64)) * np.uint64(0x100000001B3)
    return mixed ^ (mixed >> np.uint64(29))
