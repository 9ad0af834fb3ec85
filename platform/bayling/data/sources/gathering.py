"""From the paths of a source to its parts: a file, or the aligned files that belong together."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bayling.data.sources.addresses import find, folder_of, listing, name_of, read_text
from bayling.data.sources.columns import direction_in, language_of
from bayling.data.sources.config import SourceConfig
from bayling.data.sources.formats import Layout, UnknownFormat, look
from bayling.data.sources.lines import groups
from bayling.data.sources.opening import Stretch
from bayling.errors import UserError

_STRUCTURED = (".json", ".jsonl", ".ndjson", ".tsv", ".csv", ".parquet", ".arrow", ".tmx", ".xml")
_SPLIT = re.compile(r"(train|training|valid|validation|dev|devtest|test|eval)(?=[-_.\d]|$)")
_LOOKED_AT = 32
_TRAINED_ON = ("train", "training")


@dataclass(frozen=True)
class Part:
    """What is read at a time: in a task of its own, in one process."""

    files: tuple[str, ...]
    """Addresses: one, or the aligned files of a text in the order of `languages`."""
    languages: tuple[str, ...] = ()
    """Of aligned files one each."""
    layout: Layout | None = None
    """Of a file that was looked at. Of many some are only looked at when they are read."""
    stretches: tuple[Stretch, ...] = ()
    """What is read of each file, where that is not all."""

    @property
    def name(self) -> str:
        """The address that rows have as their place."""
        return self.files[0]


@dataclass(frozen=True)
class Gathered:
    """The parts of a source in the order of their names, and what they were taken for."""

    parts: tuple[Part, ...]
    layout: Layout
    notes: tuple[str, ...] = ()
    """What was left out, and why."""


def gather(config: SourceConfig) -> Gathered:
    """Find the files of a source and tell their format.

    Raises:
        UserError: nothing is there, nothing of it is known, or it is several things at once.
    """
    if len(config.path) > 1 and len(config.languages) == len(config.path):
        return _as_listed(config)
    found = [find(path) for path in config.path]
    files = sorted({file for some, _ in found for file in some})
    if not files:
        raise UserError(f"the folder {config.shown} has no files with data in it")
    notes: list[str] = []
    if any(folder for _, folder in found):
        files = _of_datasets(config.path[0], files, notes)
        files = _trained_on(files, notes)
    single = len(files) == 1 and not any(folder for _, folder in found)
    parts, grouped = _aligned(files, single, config)
    seen = {"lines": [part.name for part in parts]} if parts else {}
    layouts = {}
    if parts:
        count = len(parts[0].files)
        why = f"plain text, a file for each of {count} languages, told by their names"
        layout = look(parts[0].name, config)
        layouts["lines"] = replace(layout, format="lines", stored="lines", why=why, dialect=None)
    refused = None
    for alike in _alike([file for file in files if file not in grouped]):
        try:
            layout = look(alike[0], config)
            if layout.format == "lines":
                raise UnknownFormat(_alone(alike[0]))
        except UnknownFormat as error:
            refused = refused or error
            notes.append(f"left out: {error}")
            continue
        seen.setdefault(layout.format, []).extend(alike)
        layouts.setdefault(layout.format, layout)
        parts += [Part((file,), layout=layout if file == alike[0] else None) for file in alike]
    if not parts:
        # One file says best itself what is wrong with it.
        if refused is not None and len(files) == 1:
            raise refused
        raise UserError(f"{config.shown} has nothing of a known format: {refused}")
    if len(seen) > 1:
        each = ", ".join(f"{name} ({posixpath.basename(some[0])})" for name, some in seen.items())
        raise UserError(
            f"{config.shown} holds several formats: {each}; name a file or a glob of one"
        )
    parts.sort(key=lambda part: part.files)
    return Gathered(tuple(parts), next(iter(layouts.values())), tuple(notes))


def _as_listed(config: SourceConfig) -> Gathered:
    """Aligned files with names that say nothing, in the order of the languages."""
    files = []
    for path in config.path:
        some, _ = find(path)
        if len(some) != 1:
            raise UserError(f"{path} is {len(some)} files: name one file for each of the languages")
        files += some
    _, tags = groups(files)
    told = [tags.get(file) for file in files]
    if None not in told and told != list(config.languages):
        # A shell sorts what a glob fits: names that say their languages know better.
        by_tag = {str(tag): file for tag, file in zip(told, files, strict=True)}
        order = [matching(tag, by_tag) for tag in config.languages]
        if None not in order and len(set(order)) == len(files):
            files = [by_tag[str(tag)] for tag in order]
    if config.format not in ("auto", "lines"):
        raise UserError(
            f"{config.shown}: a path for each language makes aligned text, not {config.format}: "
            "leave languages out to read each file for itself"
        )
    layout = look(files[0], config)
    if config.format == "auto" and layout.format not in ("lines", "tsv"):
        raise UserError(f"{files[0]} is {layout.format}, not text to be aligned by line")
    why = "a path for each of the languages"
    layout = Layout("lines", "lines", why, layout.compression, layout.encoding)
    return Gathered((Part(tuple(files), config.languages),), layout)


def _aligned(files: list[str], single: bool, config: SourceConfig) -> tuple[list[Part], set[str]]:
    """The parts that are aligned text, and the files that belong to them, chosen or not."""
    if config.format not in ("auto", "lines"):
        return [], set()
    candidates = listing(folder_of(files[0])) if single else files
    if single and files[0] not in candidates:  # a web server may not list
        candidates = [*candidates, files[0]]
    plain = [file for file in candidates if not name_of(file).lower().endswith(_STRUCTURED)]
    found, tags = groups(plain)
    if single:
        found = [group for group in found if files[0] in group]
    parts = []
    grouped: set[str] = set()
    for group in found:
        if config.format == "auto" and look(group[0], config).stored not in ("lines", "tsv"):
            continue  # records whose names differ by a language
        by_tag = {tags[file]: file for file in group}
        order = _order(by_tag, group, config)
        grouped.update(group)
        parts.append(Part(tuple(by_tag[tag] for tag in order), tuple(order)))
    return parts, grouped


def _order(by_tag: dict[str, str], group: Sequence[str], config: SourceConfig) -> list[str]:
    """The languages to read: those asked for, in their order, or all."""
    chosen = list(config.languages or config.direction or ())
    if not chosen:
        # `Europarl.de-en.de` says which is the source.
        said = direction_in(name_of(group[0]))
        chosen = list(said) if said and set(said) == set(by_tag) else list(by_tag)
    order = []
    for tag in chosen:
        there = matching(tag, by_tag)
        if there is None:
            raise UserError(
                f"{config.shown} has no {tag}: there are {', '.join(by_tag)}, told by the names"
            )
        order.append(there)
    return order


def matching(tag: str, among: Sequence[str] | dict[str, str]) -> str | None:
    """The tag itself or, without it, one of the same language: `en` stands for `en-US`, too."""
    if tag in among:
        return tag
    return next((one for one in among if one.split("-")[0] == tag.split("-")[0]), None)


def _alike(files: list[str]) -> list[list[str]]:
    """Where there are many, files of one folder whose names end alike are taken for the same."""
    if len(files) <= _LOOKED_AT:
        return [[file] for file in files]
    found: dict[tuple[str, str], list[str]] = {}
    for file in files:
        ending = posixpath.splitext(name_of(file))[1].lower()
        found.setdefault((folder_of(file), ending), []).append(file)
    return list(found.values())


def _alone(file: str) -> str:
    # FLORES-200 has languages that CLDR has no data for.
    code = re.search(r"(?<![A-Za-z])[a-z]{3}_[A-Z][a-z]{3}(?![A-Za-z])", name_of(file))
    if code is not None and language_of(code[0]) is None:
        return f"{file}: the Unicode CLDR knows no language {code[0]!r}"
    return (
        f"{file} is plain text in one language: put the other side beside it under the same name "
        "(x.en, x.zh), or name both, path=[…,…] with languages=[…,…]"
    )


def _of_datasets(folder: str, files: list[str], notes: list[str]) -> list[str]:
    """Of what `datasets` saved, the split to train on and the files in its order."""
    at = folder.rstrip("/")
    text = read_text(f"{at}/dataset_dict.json") if files[0].endswith(".arrow") else None
    try:
        splits = json.loads(text)["splits"] if text is not None else []
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{at}/dataset_dict.json is damaged: save the data set again") from None
    if chosen := [split for split in splits if split in _TRAINED_ON]:
        others = [split for split in splits if split not in chosen]
        if others:
            notes.append(f"left out: the split {', '.join(others)}; its folder can be named")
        files = [file for file in files if posixpath.basename(folder_of(file)) in chosen]
    return [file for file in files if not posixpath.basename(file).startswith("cache-")]


def _trained_on(files: list[str], notes: list[str]) -> list[str]:
    """Without the splits that are kept for testing, where one is named for training."""
    splits = {file: _SPLIT.match(posixpath.basename(file).lower()) for file in files}
    named = {file: match[1] for file, match in splits.items() if match}
    if not any(split in _TRAINED_ON for split in named.values()):
        return files
    others = sorted({split for split in named.values() if split not in _TRAINED_ON})
    if others:
        notes.append(f"left out: the split {', '.join(others)}; its files can be named")
    return [file for file in files if named.get(file, "train") in _TRAINED_ON]
