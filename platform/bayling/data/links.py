"""Which pairs of other partitions say in another way what a pair of this one says.

Files of two languages each, as OPUS has them, hold one English sentence in as many places. Every
partition writes hashes of its texts. A task looks at a slice of the hashes of all, as is done for
repeats (`cleaning.duplicates`), and writes which rows belong together; another one fetches what a
partition has elsewhere.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xxhash

from bayling.data.cleaning.duplicates import SLICE, firsts
from bayling.data.tables import Pair

_MOST = 8
"""Pairs that one is linked to: "Yes." has hundreds."""
_PARTITIONS = 16
"""Other partitions that one fetches from: those with most of its siblings. Files that are in the
same order have them in two or three; where all is mixed some are missed, so that no task reads
everything."""


def write_keys(path: Path, pairs: Iterable[Pair]) -> None:
    """Hashes of both sides of a partition's pairs, (pairs, 2)."""
    keys = [
        _hash(f"{language}\0{text}")
        for one in pairs
        for language, text in ((one.source_lang, one.source), (one.target_lang, one.target))
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.array(keys, np.uint64).reshape(-1, 2))


def _hash(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode())


def slices(paths: Sequence[Path]) -> int:
    """Into how many slices the hashes are cut."""
    hashes: int = sum(np.load(path, mmap_mode="r").size for path in paths)
    return max(1, -(-hashes // SLICE))


def look(paths: Sequence[Path], part: int, number: int, target: Path) -> None:
    """Write the links of one of `number` slices, of pairs in different partitions that share a side
    in it: (links, 4), each a partition and its row, twice, sorted by the first partition."""
    sizes = [len(np.load(path, mmap_mode="r")) for path in paths]
    first = np.concatenate([[0], np.cumsum(sizes)])
    keys, places = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    for path, begin in zip(paths, first, strict=False):
        found = np.load(path)
        rows, sides = np.nonzero(found % np.uint64(number) == part)
        keys.append(found[rows, sides])
        places.append(rows + begin)
    together, where = np.concatenate(keys), np.concatenate(places)
    order = np.lexsort((where, together))
    group, where = firsts(together[order]), where[order]
    owner = np.searchsorted(first, where, side="right") - 1
    links = [np.zeros((0, 4), np.int64)]
    for ahead in range(_MOST):
        here = np.flatnonzero(group + ahead < len(group))
        there = group[here] + ahead
        apart = (group[there] == group[here]) & (owner[there] != owner[here])
        here, there = here[apart], there[apart]
        row, of = where[here] - first[owner[here]], where[there] - first[owner[there]]
        links.append(np.stack([owner[here], row, owner[there], of], axis=1))
    found = np.concatenate(links)
    target.parent.mkdir(parents=True, exist_ok=True)
    np.save(target, found[np.argsort(found[:, 0], kind="stable")])


def elsewhere(paths: Iterable[Path], partition: int) -> dict[int, npt.NDArray[np.int64]]:
    """Other partitions → the rows of them that a partition is linked to."""
    counts: Counter[int] = Counter()
    found = defaultdict(list)
    for path in paths:
        links = np.load(path, mmap_mode="r")
        begin, end = np.searchsorted(links[:, 0], [partition, partition + 1])
        for of in np.unique(links[begin:end, 2]).tolist():
            rows = links[begin:end][links[begin:end, 2] == of][:, 3]
            counts[of] += len(rows)
            found[of].append(rows)
    most = sorted(counts, key=lambda of: (-counts[of], of))[:_PARTITIONS]
    return {of: np.unique(np.concatenate(found[of])) for of in sorted(most)}
