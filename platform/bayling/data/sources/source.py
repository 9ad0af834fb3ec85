"""A source of `data.sources`, opened: its files, and their rows as a stream."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from bayling.data.sources import lines, records, tables, tmx
from bayling.data.sources.addresses import folder_of, read_text
from bayling.data.sources.config import SourceConfig
from bayling.data.sources.direction import direction, named
from bayling.data.sources.formats import Layout, form_of, look, read_records
from bayling.data.sources.gathering import Gathered, Part, gather, matching
from bayling.data.sources.opening import Stretch
from bayling.data.sources.records import AnyRow, Reading
from bayling.data.sources.rows import Pair, Parallel, Rejected, Row, rejected
from bayling.data.sources.stretches import in_stretches
from bayling.errors import UserError

_SAMPLE = 200
"""Rows that languages are told from."""


@dataclass(frozen=True)
class Source:
    """What a source turned out to be. It can be sent to another process and read there."""

    config: SourceConfig
    layout: Layout
    files: tuple[Part, ...]
    """In an order that depends on their names only."""
    languages: tuple[str, ...]
    """BCP-47 tags: of pairs the source language first; of conversations none unless they say it."""
    notes: tuple[str, ...] = ()
    """What lies there and is not read."""

    @property
    def kind(self) -> str:
        """pairs, conversations or questions."""
        return self.layout.kind

    def split(self, part: Part, each: int) -> list[Part]:
        """A part in several of `each` lines that can be read side by side, or as it is.

        Raises:
            UserError: the file is gone, or aligned files differ in lines.
        """
        layout = self._layout_of(part)
        found: list[tuple[Stretch, ...]] = []
        if layout.stored == "lines":
            found = lines.split(part.files, each)
        elif layout.stored == "jsonl" and (whole := in_stretches(part.name, each)):
            found = [(stretch,) for stretch in whole.stretches]
        if len(found) < 2:
            return [part]
        return [replace(part, layout=layout, stretches=some) for some in found]

    def rows(self, part: Part) -> Iterator[Row]:
        """The rows of one of the files, in its order, in memory that does not grow with it.

        Sentences in several languages become a pair for every two of them: those that the source
        chooses, in its direction or in the order of the languages.

        Raises:
            UserError: the file is gone or damaged, or aligned files differ in lines.
        """
        chosen = _Chosen(self.config)
        for row in self._read(part):
            if type(row) is Parallel:
                texts, place = row.texts, row.place
                directions = chosen.directions(texts)
                for source, target, source_lang, target_lang in directions:
                    yield Pair(
                        source_lang,
                        target_lang,
                        texts[source],
                        texts[target],
                        place,
                        (),
                        row.register,
                        row.id,
                    )
                if not directions:
                    yield chosen.lacking(row)
            elif isinstance(row, Pair) and not chosen.has(row):
                yield chosen.refused(row)
            else:
                assert not isinstance(row, Parallel)
                yield row

    def parallel(self, part: Part) -> Iterator[Parallel | Rejected]:
        """The sentences of one of the files in all of their languages, or those that were chosen.

        Raises:
            UserError: as `rows` does, or these are no pairs.
        """
        if self.kind != "pairs":
            raise UserError(f"{self.config.shown} has {self.kind}, no sentences in two languages")
        chosen = _Chosen(self.config)
        for row in self._read(part):
            if isinstance(row, Parallel):
                yield chosen.among(row)
            elif isinstance(row, Pair):
                texts = {row.source_lang: row.source, row.target_lang: row.target}
                yield Parallel(texts, row.place, row.register, row.id)
            elif isinstance(row, Rejected):
                yield row

    def licence(self) -> str | None:
        """The licence as configured, or as the data set's own description has it."""
        if self.config.licence:
            return self.config.licence
        folder = folder_of(self.files[0].name)
        for place in dict.fromkeys((folder, folder_of(folder))):
            card = re.match(
                r"---\n.*?^license:\s*(\S+)\s*$",
                read_text(f"{place}/README.md") or "",
                re.DOTALL | re.MULTILINE,
            )
            if card:
                return card[1]
            try:
                said = json.loads(read_text(f"{place}/dataset_info.json") or "{}").get("license")
            except (ValueError, AttributeError):
                continue
            if isinstance(said, str) and said:
                return said
        return None

    def _read(self, part: Part) -> Iterator[AnyRow]:
        return _rows(self._layout_of(part), part, self.languages, self.config)

    def _layout_of(self, part: Part) -> Layout:
        """One table of a folder may have a header and the next none."""
        if self.layout.stored == "lines":
            return self.layout
        layout = part.layout or look(part.name, self.config)
        if layout.format != self.layout.format:
            raise UserError(
                f"{part.name} is {layout.format} ({layout.why}), while {self.files[0].name} is "
                f"{self.layout.format}: name them as two sources"
            )
        return layout


def open_source(config: SourceConfig, *, questions: bool = False) -> Source:
    """Find a source's files and tell their format and languages.

    Args:
        questions: take evaluation suites, too, which have nothing to learn from.

    Raises:
        UserError: it is not there, cannot be read, or is not clear; or it is a suite.
    """
    found = gather(config)
    if found.layout.kind == "questions" and not questions:
        raise UserError(
            f"{config.shown} holds questions without answers ({found.layout.format}): an "
            "evaluation suite, which belongs into evaluate.suites, not into data.sources"
        )
    return Source(config, found.layout, found.parts, _languages(found, config), found.notes)


def _rows(
    layout: Layout, part: Part, languages: tuple[str, ...], config: SourceConfig
) -> Iterator[AnyRow]:
    file = part.name
    if layout.stored == "lines":
        return lines.aligned(part.files, part.languages, config.register, part.stretches)
    if layout.stored == "tmx":
        return tmx.units(file, config.register)
    if config.direction is None and len(languages) == 2 and (said := named(file)):
        # Of several files each has its own; which side is which is the same for all.
        languages = said if set(said) != set(languages) else languages
    if layout.format == "terminology":
        return tables.terminology(file, languages)
    reading = Reading(languages, layout.columns, config.register)
    found = read_records(layout, file, *part.stretches)
    return records.read(form_of(layout), found, file, reading)


def _languages(found: Gathered, config: SourceConfig) -> tuple[str, ...]:
    """Those of the first file; of conversations the one that the source says."""
    layout, part = found.layout, found.parts[0]
    if layout.stored == "lines":
        return tuple(dict.fromkeys(tag for part in found.parts for tag in part.languages))
    if layout.kind != "pairs":
        return tuple(filter(None, [config.source_lang or next(iter(config.languages), None)]))
    # A direction to read with; the rows that say their languages do not use it.
    reading = replace(config, source_lang="en", target_lang="zh", languages=())
    rows = list(islice(_rows(layout, part, ("en", "zh"), reading), _SAMPLE))
    seen: dict[str, None] = {}
    for row in rows:
        if isinstance(row, Parallel):
            seen |= dict.fromkeys(row.texts)
    if seen:
        first = tmx.source_language(part.name) if layout.stored == "tmx" else None
        tags = sorted(seen, key=lambda tag: matching(first, [tag]) is None) if first else list(seen)
        chosen = config.languages or config.direction
        return tuple(tag for tag in (chosen or tags) if matching(tag, tags))
    pairs = [row for row in rows if isinstance(row, Pair)]
    if {"source_lang", "target_lang"} <= layout.columns.keys():
        every = [tag for pair in pairs for tag in (pair.source_lang, pair.target_lang)]
        return tuple(dict.fromkeys(every))
    if not pairs:
        raise UserError(f"{part.name} has no row that can be read: {_first_reason(rows)}")
    return direction(part.name, pairs, config)


def _first_reason(rows: Sequence[AnyRow]) -> str:
    reasons = (f"{row.place}, {row.reason}" for row in rows if isinstance(row, Rejected))
    return next(reasons, "it has none")


class _Chosen:
    """Which languages, and in which directions, a source takes of a sentence that has several."""

    def __init__(self, config: SourceConfig) -> None:
        self._config = config
        self._directions: dict[tuple[str, ...], list[tuple[str, str, str, str]]] = {}

    def directions(self, texts: Mapping[str, str]) -> list[tuple[str, str, str, str]]:
        """Of each pair that is taken of a sentence: the keys of its sides, and their tags."""
        key = tuple(texts)
        found = self._directions.get(key)
        if found is None:
            found = self._directions[key] = self._of(key)
        return found

    def among(self, row: Parallel) -> Parallel | Rejected:
        """The sentence in the languages that were chosen."""
        config = self._config
        chosen = config.languages or tuple(filter(None, (config.source_lang, config.target_lang)))
        if len(chosen) < 2:
            return row
        found = {tag: matching(tag, tuple(row.texts)) for tag in chosen}
        texts = {tag: row.texts[there] for tag, there in found.items() if there is not None}
        return replace(row, texts=texts) if len(texts) > 1 else self.lacking(row)

    def has(self, row: Pair) -> bool:
        """Whether a pair that says its languages is one of those that were chosen."""
        config = self._config
        sides = {row.source_lang, row.target_lang}
        if config.languages and not all(_one_of(side, config.languages) for side in sides):
            return False
        return all(
            wanted is None or _one_of(wanted, sides)
            for wanted in (config.source_lang, config.target_lang)
        )

    def refused(self, row: Pair) -> Rejected:
        shown = f"{row.source}\t{row.target}"
        reason = f"{row.source_lang} → {row.target_lang} is not among the languages chosen"
        return rejected(row.place.file, row.place.line, reason, shown)

    def lacking(self, row: Parallel) -> Rejected:
        there = ", ".join(row.texts)
        reason = f"it is in {there}, not in two of the languages chosen"
        shown = json.dumps(dict(row.texts), ensure_ascii=False)
        return rejected(row.place.file, row.place.line, reason, shown)

    def _of(self, there: tuple[str, ...]) -> list[tuple[str, str, str, str]]:
        config = self._config
        chosen = config.languages or config.direction or there
        keys = {tag: key for tag in chosen if (key := matching(tag, there)) is not None}
        # A side that is set may be spelt otherwise in the data: `en` for its `en-US`.
        for side in (config.source_lang, config.target_lang):
            if side is not None and side not in keys and (key := matching(side, there)):
                keys = {side if found == key else tag: found for tag, found in keys.items()}
        tags = list(keys)
        if source := config.source_lang:
            every = [(source, tag) for tag in tags if tag != source and source in keys]
        elif target := config.target_lang:
            every = [(tag, target) for tag in tags if tag != target and target in keys]
        else:
            every = [(tag, other) for index, tag in enumerate(tags) for other in tags[index + 1 :]]
        return [
            (keys[source], keys[target], source, target)
            for source, target in every
            if config.target_lang in (None, target)
        ]


def _one_of(tag: str, among: Sequence[str] | set[str]) -> bool:
    return matching(tag, tuple(among)) is not None
