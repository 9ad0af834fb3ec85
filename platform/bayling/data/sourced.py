"""What the data stage does with sources: from their files to clean tables and a plan."""

from __future__ import annotations

import heapq
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from bayling.data import heldout
from bayling.data.cleaning.contamination import TestTexts
from bayling.data.config import DataConfig
from bayling.data.gathering import (
    PAIRS,
    PASSING,
    QUARANTINE,
    SIBLINGS,
    TALKS,
    WITHOUT_PIVOT,
    Gathering,
    Piece,
    Settled,
)
from bayling.data.heldout import HeldOut
from bayling.data.mixture import Stratum, plan
from bayling.data.passes import Passes
from bayling.data.sources import Pair, Source, is_large, open_source
from bayling.data.tables import Pair as Kept
from bayling.data.tables import read_pairs
from bayling.errors import UserError
from bayling.stage import Context, total

HELD_OUT = "heldout.npy"
"""Hashes of the held-out texts, in the stage's folder."""
FOLDERS = (*PASSING, PAIRS, TALKS, QUARANTINE, SIBLINGS)
_SHOWN = 3


@dataclass
class Sourced:
    """What came of the sources."""

    names: list[str] = field(default_factory=list)
    """Of the partitions of clean tables."""
    uses: dict[Stratum, float] = field(default_factory=dict)
    """How often a row of each stratum is used."""
    counts: dict[str, Any] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    licences: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)

    @property
    def lost(self) -> str:
        """What the steps dropped most, for a sentence about it."""
        most = sorted(self.dropped.items(), key=lambda step: -step[1])[:_SHOWN]
        if not most:
            return ""
        return ". Dropped were " + ", ".join(f"{number:,} by {step!r}" for step, number in most)


def gather(config: DataConfig, context: Context, tests: HeldOut, passes: Passes) -> Sourced:
    """Read, clean and count all sources, and choose the held-out pairs, which `tests` then has too.

    Raises:
        UserError: a source cannot be read, or a group of the mixture has no row.
    """
    sources = tuple(open_source(one) for one in config.sources)
    work = Gathering(config, context.seed, context.folder, sources)
    if config.decontaminate:
        context.report("test sets", 0, 1)
        work.tests(_texts_of_tests(config))

    read = passes.each("reading", _pieces(work, passes), work.read)
    names = [name for made, _ in read for name in made]
    if not names:
        raise UserError("data.sources: nothing was read from " + _all(sources))
    cleaned = passes.each("cleaning", names, work.clean)
    looks = work.looks(names)
    passes.each("repeats", looks, lambda look: work.look(look, names))
    settled = passes.each("settling", names, lambda name: work.settle(name, names, looks))

    rows: Counter[Stratum] = Counter()
    for one in settled:
        rows.update(one.rows)
    held_out = _held_out(work, names, settled, passes)
    tests.translate += [row for pair in held_out for row in heldout.both_ways(pair)]
    tests.interactive += heldout.refined(held_out, config, context.seed)
    held = [text for row in tests.translate for text in (row["source"], row["target"])]
    TestTexts.of(held, config.cleaning.shared_ngram).write(context.folder / HELD_OUT)
    if slices := work.slices(names):
        passes.each("siblings", slices, lambda part: work.link(part, names))
        passes.each("siblings", names, lambda name: work.fetch(name, names, slices))
    weights = {source.config.origin: source.config.weight for source in sources}
    uses = plan(rows, weights, config.conversations - config.from_cldr, config.mixture)
    for folder in PASSING:
        shutil.rmtree(context.folder / folder, ignore_errors=True)

    counted = total(counts for _, counts in read)
    dropped = total([*cleaned, *(one.dropped for one in settled)])
    for name, step in (("rejected", "unreadable"), (WITHOUT_PIVOT, WITHOUT_PIVOT)):
        if number := counted.pop(name, 0):
            dropped[step] = number
    return Sourced(
        names,
        uses,
        {"read": counted, "rows": _by_origin(rows)},
        dropped,
        {source.config.origin: source.licence() or "not stated" for source in sources},
        {name: name for name in (PAIRS, TALKS, QUARANTINE) if (context.folder / name).exists()},
    )


def _pieces(work: Gathering, passes: Passes) -> list[Piece]:
    """What is read by a task each: files, and parts of those that are large."""
    whole = work.parts()
    large = [piece for piece in whole if any(map(is_large, piece.part.files))]
    found = passes.each("splitting", large, work.split) if large else []
    split = {piece.number: parts for piece, parts in zip(large, found, strict=True)}
    every = [
        replace(piece, part=part)
        for piece in whole
        for part in split.get(piece.number, [piece.part])
    ]
    return [replace(piece, number=number) for number, piece in enumerate(every)]


def _held_out(
    work: Gathering, names: list[str], settled: list[Settled], passes: Passes
) -> list[Kept]:
    """The pairs of every two languages that are tested."""
    candidates: dict[tuple[str, str], list[tuple[float, str]]] = defaultdict(list)
    for one in settled:
        for languages, some in one.candidates.items():
            candidates[languages] += some
    chosen = {
        languages: [
            name
            for _, name in heapq.nsmallest(work.config.heldout_per_direction, sorted(set(some)))
        ]
        for languages, some in candidates.items()
    }
    wanted = frozenset(name for some in chosen.values() for name in some)

    def pick(name: str) -> list[Kept]:
        return [pair for pair in read_pairs(work.folder / PAIRS / name) if pair.id in wanted]

    found = passes.each("held-out pairs", names, pick)
    by_id = {pair.id: pair for some in found for pair in some}
    return [by_id[name] for languages in sorted(chosen) for name in chosen[languages]]


def _texts_of_tests(config: DataConfig) -> Iterator[str]:
    """Every text of the test sets, in all of their languages."""
    for one in config.decontaminate:
        source = open_source(one, questions=True)
        for file in source.files:
            for row in source.rows(file):
                if isinstance(row, Pair):
                    yield from (row.source, row.target)
                elif hasattr(row, "turns"):
                    yield from row.turns
                elif hasattr(row, "messages"):
                    yield from (message.content for message in row.messages)


def _by_origin(rows: Counter[Stratum]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for stratum, number in rows.items():
        found[stratum.origin] += number
    return dict(sorted(found.items()))


def _all(sources: tuple[Source, ...]) -> str:
    return ", ".join(source.config.shown for source in sources)
