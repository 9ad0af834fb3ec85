"""From the files of all sources to clean tables, partition by partition.

Passes, each of independent tasks that read and write files and give back counts:

1. *read*: the rows of a file, or of a stretch of a large one, cut into partitions; what cannot be
   read goes to the quarantine.
2. *clean*: pairs and conversations each by themselves; signatures for the next pass.
3. *look*: what is there more than once, by slices of the signatures.
4. *settle*: the repeats leave the partitions; rows are counted, and candidates for tests chosen.
5. *link* and *fetch*: what one partition has of another's sentences, for who asks for them again.

What a partition holds depends on the sources, the configuration and the seed alone.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from bayling.data import general, links, tables
from bayling.data.cleaning import duplicates
from bayling.data.cleaning.contamination import TestTexts
from bayling.data.cleaning.duplicates import BANDS, BOILERPLATE, EXACT, NEAR, Corpus, Signatures
from bayling.data.cleaning.steps import CLEANERS, Batch, clean
from bayling.data.cleaning.text import normalise
from bayling.data.config import PIVOTS, DataConfig
from bayling.data.mixture import Stratum, draw
from bayling.data.sources import Pair as PairRead
from bayling.data.sources import Part, Rejected, Row, Source, Talk
from bayling.data.tables import Pair, Quarantined
from bayling.templates import Conversation

PAIRS, TALKS, QUARANTINE = "pairs", "talks", "quarantine"
SIBLINGS = "siblings"
"""Of partitions, the pairs of others that say the same in another way."""
_RAW, _CLEAN, _SIGNATURES, _REPEATS = "raw", "clean", "signatures", "repeats"
_KEYS, _LINKS = "keys", "links"
PASSING = (_RAW, _CLEAN, _SIGNATURES, _REPEATS, _KEYS, _LINKS)
"""Folders that are needed no more when all is settled."""
_TESTS = "tests.npy"
_AT_A_TIME = 50_000
"""Lines of a large file that are read in one task: seconds of work."""
OTHER_LANGUAGE, CONTAMINATED = "other language", "contaminated"
WITHOUT_PIVOT = "without en or zh"


@dataclass(frozen=True)
class Look:
    """One slice of the search for repeats."""

    what: str
    """exact, near, source or target."""
    part: int
    band: int = 0

    @property
    def step(self) -> str:
        return {"exact": EXACT, "near": NEAR}.get(self.what, BOILERPLATE)

    @property
    def file(self) -> str:
        return f"{self.what}-{self.band:02d}-{self.part:03d}.npy"


@dataclass(frozen=True)
class Piece:
    """What is read in one task."""

    number: int
    """From 0, over all sources."""
    source: int
    """Its place among the sources."""
    part: Part


@dataclass(frozen=True)
class Settled:
    """What is left of a partition."""

    rows: dict[Stratum, int]
    candidates: dict[tuple[str, str], list[tuple[float, str]]]
    """Two languages, sorted → the draws and ids of the pairs that would be tested first."""
    dropped: dict[str, int]


@dataclass(frozen=True)
class Gathering:
    """The work on files and partitions; it runs inside Ray's tasks."""

    config: DataConfig
    seed: int
    folder: Path
    sources: tuple[Source, ...]

    def parts(self) -> list[Piece]:
        """The files of all sources, in order, each as a whole."""
        every = [(at, part) for at, one in enumerate(self.sources) for part in one.files]
        return [Piece(number, at, part) for number, (at, part) in enumerate(every)]

    def split(self, whole: Piece) -> list[Part]:
        """A large file, or several that are aligned, in parts that whole partitions come of."""
        lines = self.config.partition_size * max(1, _AT_A_TIME // self.config.partition_size)
        return self.sources[whole.source].split(whole.part, lines)

    def tests(self, texts: Iterable[str]) -> None:
        """Keep what the test sets hold, for `clean`."""
        TestTexts.of(texts, self.config.cleaning.shared_ngram).write(self.folder / _TESTS)

    def read(self, piece: Piece) -> tuple[list[str], dict[str, int]]:
        """Cut a piece into partitions; returns their names, and counts of rows."""
        source, number = self.sources[piece.source], piece.number
        counts: Counter[str] = Counter()
        cut = _Cut()
        names: list[str] = []
        for row in source.rows(piece.part):
            if isinstance(row, PairRead) and self._without_pivot(row):
                counts[WITHOUT_PIVOT] += 1
                continue
            counts[type(row).__name__.lower()] += 1
            cut.take(row, source.config.origin)
            if cut.size == self.config.partition_size:
                names.append(cut.write(self.folder, f"{number:05d}-{len(names):05d}"))
                cut = _Cut()
        if cut.size:
            names.append(cut.write(self.folder, f"{number:05d}-{len(names):05d}"))
        return names, dict(counts)

    def _without_pivot(self, row: PairRead) -> bool:
        sides = row.source_lang, row.target_lang
        return self.config.pivots_only and not any(tag in PIVOTS for tag in sides)

    def clean(self, name: str) -> dict[str, int]:
        """Drop what does not pass the steps; returns how many each step dropped."""
        pairs, victims = self._clean_pairs(name)
        talks, more = self._clean_talks(name)
        self._quarantine(name, "cleaning", [*victims, *more])
        tables.write_pairs(self.folder / _CLEAN / name, pairs)
        tables.write_conversations(self.folder / _CLEAN / f"talks-{name}", talks)
        near = NEAR not in self.config.cleaning.skip
        _signatures(pairs, talks, near).write(self.folder / _SIGNATURES / name)
        return dict(Counter(one.step for one in (*victims, *more)))

    def looks(self, names: list[str]) -> list[Look]:
        """The tasks of the search for repeats."""
        skip = self.config.cleaning.skip
        slices = range(self._corpus(names).slices)
        found = []
        if EXACT not in skip:
            found += [Look("exact", part) for part in slices]
        if NEAR not in skip:
            found += [Look("near", part, band) for band in range(BANDS) for part in slices]
        if BOILERPLATE not in skip:
            found += [Look(side, part) for side in ("source", "target") for part in slices]
        return found

    def look(self, look: Look, names: list[str]) -> None:
        """Search one slice, and write what was found."""
        corpus, config = self._corpus(names), self.config.cleaning
        if look.what == "exact":
            found = corpus.exact(look.part)
        elif look.what == "near":
            found = corpus.near(look.band, look.part, config.near_duplicate)
        else:
            found = corpus.boilerplate(look.what, look.part, config.boilerplate_after)
        found.write(self.folder / _REPEATS / look.file)

    def settle(self, name: str, names: list[str], looks: list[Look]) -> Settled:
        """Take the repeats out of a partition."""
        gone = self._repeats(names.index(name), looks, names)
        pairs = list(tables.read_pairs(self.folder / _CLEAN / name))
        talks = list(tables.read_conversations(self.folder / _CLEAN / f"talks-{name}"))
        victims = [_victim(pair, *gone[row]) for row, pair in enumerate(pairs) if row in gone] + [
            _victim_of(talk, *gone[row])
            for row, talk in enumerate(talks, len(pairs))
            if row in gone
        ]
        left = [pair for row, pair in enumerate(pairs) if row not in gone]
        talks = [talk for row, talk in enumerate(talks, len(pairs)) if row not in gone]
        self._quarantine(name, "repeats", victims)
        tables.write_pairs(self.folder / PAIRS / name, left)
        links.write_keys(self._keys(name), left)
        tables.write_conversations(self.folder / TALKS / name, talks)
        rows = Counter(
            [
                *(Stratum.of(one.origin, one.source_lang, one.target_lang) for one in left),
                *(Stratum.of(one.origin, one.source_lang, one.target_lang) for one in talks),
            ]
        )
        return Settled(
            dict(rows), self._candidates(left), dict(Counter(one.step for one in victims))
        )

    def slices(self, names: list[str]) -> range:
        """Of the search for what is said in another way; none where nobody asks for it."""
        wanted = self.config.mixture.tasks.interactive and len(names) > 1
        return range(links.slices([self._keys(name) for name in names]) if wanted else 0)

    def link(self, part: int, names: list[str]) -> None:
        """Search one slice, and write what was found."""
        paths = [self._keys(name) for name in names]
        links.look(paths, part, links.slices(paths), self._links(part))

    def fetch(self, name: str, names: list[str], slices: range) -> None:
        """Write what other partitions have of the sentences of one."""
        found = links.elsewhere(map(self._links, slices), names.index(name))
        pairs = [
            pair
            for of, rows in found.items()
            for pair in tables.pairs_at(self.folder / PAIRS / names[of], rows)
        ]
        if pairs:
            tables.write_pairs(self.folder / SIBLINGS / name, pairs)

    def _keys(self, name: str) -> Path:
        return self.folder / _KEYS / f"{name}.npy"

    def _links(self, part: int) -> Path:
        return self.folder / _LINKS / f"{part:03d}.npy"

    def _clean_pairs(self, name: str) -> tuple[list[Pair], list[Quarantined]]:
        config = self.config.cleaning
        steps = dict(CLEANERS)
        if self._tests is not None:
            steps[CONTAMINATED] = self._tests.step()
        pairs = [_normalised(pair) for pair in tables.read_pairs(self.folder / _RAW / name)]
        directions: dict[tuple[str, str], list[int]] = defaultdict(list)
        for row, pair in enumerate(pairs):
            directions[pair.source_lang, pair.target_lang].append(row)
        kept: list[int] = []
        victims: list[tuple[int, Quarantined]] = []
        for languages, rows in directions.items():
            if foreign := [tag for tag in languages if tag not in self.config.languages]:
                why = f"{' and '.join(foreign)}: not among data.languages"
                victims += [(row, _victim(pairs[row], OTHER_LANGUAGE, why)) for row in rows]
                continue
            texts = [pairs[row].source for row in rows], [pairs[row].target for row in rows]
            passed, dropped = clean(Batch(*languages, *texts), config, steps)
            kept += [rows[place] for place in passed]
            for one in dropped:
                row = rows[one.index]
                victims.append((row, _victim(pairs[row], one.step, one.found)))
        victims.sort(key=lambda victim: victim[0])
        return [pairs[row] for row in sorted(kept)], [victim for _, victim in victims]

    def _clean_talks(self, name: str) -> tuple[list[Conversation], list[Quarantined]]:
        talks = list(tables.read_conversations(self.folder / _RAW / f"talks-{name}"))
        texts = ["\n".join(message.content for message in talk.messages) for talk in talks]
        tests = self._tests if CONTAMINATED not in self.config.cleaning.skip else None
        tested = frozenset(tests.shared(texts)) if tests else frozenset()
        kept, victims = [], []
        for number, talk in enumerate(talks):
            if number in tested:
                victims.append(_victim_of(talk, CONTAMINATED, "it shares words with a test set"))
                continue
            made = general.clean(
                talk.messages,
                talk.source_lang or None,
                self.config.languages,
                self.config.cleaning.max_turn_characters,
            )
            if isinstance(made[0], str):
                victims.append(_victim_of(talk, *made))
            else:
                messages, language = made
                kept.append(
                    replace(talk, messages=messages, source_lang=language, target_lang=language)
                )
        return kept, victims

    @property
    def _tests(self) -> TestTexts | None:
        path = self.folder / _TESTS
        return TestTexts.read(path, self.config.cleaning.shared_ngram) if path.exists() else None

    def _corpus(self, names: list[str]) -> Corpus:
        return Corpus([self.folder / _SIGNATURES / name for name in names])

    def _repeats(
        self, partition: int, looks: list[Look], names: list[str]
    ) -> dict[int, tuple[str, str]]:
        """Row of a partition → the step that drops it, and what it found."""
        gone: dict[int, tuple[str, str]] = {}
        for look in looks:
            path = self.folder / _REPEATS / look.file
            for row, part, of in duplicates.within(path, partition):
                same = f"as row {of + 1} of partition {names[part].removesuffix('.parquet')}"
                gone.setdefault(row, (look.step, same))
        return gone

    def _candidates(self, pairs: list[Pair]) -> dict[tuple[str, str], list[tuple[float, str]]]:
        """The first in an order by chance, as many as the tests of two languages need."""
        found = defaultdict(list)
        for pair in pairs:
            one, other = sorted((pair.source_lang, pair.target_lang))
            found[one, other].append((draw(self.seed, "heldout", pair.id), pair.id))
        most = self.config.heldout_per_direction
        return {languages: heapq.nsmallest(most, ids) for languages, ids in found.items()}

    def _quarantine(self, name: str, why: str, victims: list[Quarantined]) -> None:
        tables.write_quarantine(self.folder / QUARANTINE / why / name, victims)


@dataclass
class _Cut:
    """Rows on their way into one partition."""

    pairs: list[Pair] = field(default_factory=list)
    talks: list[Conversation] = field(default_factory=list)
    rejected: list[Quarantined] = field(default_factory=list)

    @property
    def size(self) -> int:
        return len(self.pairs) + len(self.talks) + len(self.rejected)

    def take(self, row: Row, origin: str) -> None:
        file, line = row.place.file, row.place.line
        if isinstance(row, PairRead):
            sides = row.source_lang, row.target_lang, row.source, row.target
            register = row.register or ""
            self.pairs.append(Pair(*sides, origin, file, line, row.terms, register))
        elif isinstance(row, Talk):
            language = row.language or ""
            self.talks.append(
                Conversation(f"{file}:{line}", row.messages, "general", language, language, origin)
            )
        elif isinstance(row, Rejected):
            self.rejected.append(Quarantined("unreadable", row.reason, file, line, source=row.text))
        else:
            said = "a question without an answer to learn"
            self.rejected.append(Quarantined("question", said, file, line, source=row.turns[0]))

    def write(self, folder: Path, name: str) -> str:
        file = f"{name}.parquet"
        tables.write_pairs(folder / _RAW / file, self.pairs)
        tables.write_conversations(folder / _RAW / f"talks-{file}", self.talks)
        tables.write_quarantine(folder / QUARANTINE / "reading" / file, self.rejected)
        return file


def _signatures(pairs: list[Pair], talks: list[Conversation], near: bool) -> Signatures:
    """Of a partition: its pairs, then its conversations."""
    directions: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    sides: list[tuple[str, str]] = []
    for pair in pairs:
        directions[*pair.languages, pair.register].append(len(sides))
        sides.append((pair.source, pair.target))
    for talk in talks:
        directions[talk.source_lang, talk.source_lang, ""].append(len(sides))
        first, *others = (message.content for message in talk.messages if message.role != "system")
        sides.append((first, "\n".join(others)))
    parts, order = [], []
    for (source_lang, target_lang, register), rows in directions.items():
        texts = [sides[row][0] for row in rows], [sides[row][1] for row in rows]
        parts.append(duplicates.sign(Batch(source_lang, target_lang, *texts), register, near=near))
        order += rows
    return duplicates.join(parts, order)


def _normalised(pair: Pair) -> Pair:
    source, target = normalise(pair.source), normalise(pair.target)
    if source == pair.source and target == pair.target:
        return pair
    return replace(pair, source=source, target=target)


def _victim(pair: Pair, step: str, found: str) -> Quarantined:
    sides = pair.source_lang, pair.target_lang, pair.source, pair.target
    return Quarantined(step, found, pair.file, pair.line, *sides)


def _victim_of(talk: Conversation, step: str, found: str) -> Quarantined:
    file, _, line = talk.id.rpartition(":")
    language, said = talk.source_lang, "\n\n".join(one.content for one in talk.messages)
    return Quarantined(step, found, file, int(line), language, language, source=said)
