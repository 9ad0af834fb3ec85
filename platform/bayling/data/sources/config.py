"""`data.sources`: what an entry can say about parallel text or conversations of one's own."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from bayling import languages
from bayling.data.sources.columns import named_in
from bayling.errors import UserError

ROLES = ("source", "target", "source_lang", "target_lang", "register", "id")
"""What a column can be, beside a text in the language whose tag is the role."""


@dataclass(frozen=True)
class SourceConfig:
    """One entry of `data.sources`. Whatever is not set is told from the data."""

    path: tuple[str, ...]
    """Addresses: one file, folder or glob; or aligned files in the order of `languages`."""
    format: str = "auto"
    """A name of `formats.FORMATS`."""
    source_lang: str | None = None
    """BCP-47, FLORES or ISO 639-3, as everywhere below."""
    target_lang: str | None = None
    languages: tuple[str, ...] = ()
    """The languages that are read of data that has more; their order is that of the directions."""
    columns: Mapping[str, str | int] = field(default_factory=dict)
    """Which column is what: names, or numbers from 1 where a table has no header."""
    licence: str | None = None
    origin: str = ""
    """Names the source in manifests and data cards; taken from the path unless set."""
    weight: float = 1.0
    register: str | None = None
    """Of all rows that have none of their own."""

    @property
    def shown(self) -> str:
        """The path as a person wrote it."""
        return ", ".join(self.path)

    @property
    def direction(self) -> tuple[str, str] | None:
        """Source and target language, where both are set."""
        if self.source_lang and self.target_lang:
            return self.source_lang, self.target_lang
        return (self.languages[0], self.languages[1]) if len(self.languages) == 2 else None


def source_config(item: Any, key: str = "data.sources") -> SourceConfig:
    """An entry as it stands in YAML or on the command line: a path, or a mapping with one.

    Raises:
        UserError: a key that does not exist, or a value that cannot be; `key` says where.
    """
    from bayling.data.sources.formats import FORMATS

    if isinstance(item, SourceConfig):
        return item
    given = {"path": item} if isinstance(item, str) else item
    if not isinstance(given, Mapping):
        raise UserError(f"{key} must be a path or a mapping with one, {{path:…}}, not {item!r}")
    names = [entry.name for entry in dataclasses.fields(SourceConfig)]
    for name in given:
        _known(str(name), names, key)
    made = {name: value for name, value in given.items() if value is not None}
    paths = _strings(made.get("path"), f"{key}.path")
    if not paths or not all(path.strip() for path in paths):
        raise UserError(f"{key}.path is missing: a file, a folder, a glob or an address")
    tags = tuple(_tag(code, f"{key}.languages") for code in _strings(made.get("languages"), key))
    if repeated := sorted({tag for tag in tags if tags.count(tag) > 1}):
        raise UserError(f"{key}.languages names {', '.join(repeated)} twice")
    sides = [
        _tag(made[name], f"{key}.{name}") if name in made else None
        for name in ("source_lang", "target_lang")
    ]
    if sides[0] is not None and sides[0] == sides[1]:
        raise UserError(f"{key}: source_lang and target_lang are both {sides[0]}")
    if tags and any(side is not None and side not in tags for side in sides):
        raise UserError(f"{key}.languages must contain source_lang and target_lang, or be left out")
    wanted = str(made.get("format", "auto"))
    if wanted != "auto":
        _known(wanted, list(FORMATS), f"{key}.format", "format")
    return SourceConfig(
        path=paths,
        format=wanted,
        source_lang=sides[0],
        target_lang=sides[1],
        languages=tags,
        columns=_columns(made.get("columns", {}), f"{key}.columns"),
        licence=_string(made.get("licence"), f"{key}.licence"),
        origin=_string(made.get("origin"), f"{key}.origin") or _origin(paths[0]),
        weight=_weight(made.get("weight", 1.0), f"{key}.weight"),
        register=_string(made.get("register"), f"{key}.register"),
    )


def source_configs(items: Any) -> list[SourceConfig]:
    """All entries of `data.sources`.

    Raises:
        UserError: one is wrong, or two have one origin.
    """
    made = [source_config(item, f"data.sources[{index}]") for index, item in enumerate(items)]
    origins = [source.origin for source in made]
    for index, origin in enumerate(origins):
        if origin in origins[:index]:
            raise UserError(
                f"data.sources[{origins.index(origin)}] and [{index}] both have the origin "
                f"{origin!r}: give one of them another, {{path:…,origin:NAME}}"
            )
    return made


def _known(name: str, names: list[str], where: str, what: str = "key") -> None:
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
        hint = f": did you mean {near[0]}?" if near else f"; there are {', '.join(names)}"
        raise UserError(f"{where}: there is no {what} {name!r}{hint}")


def _strings(value: Any, key: str) -> tuple[str, ...]:
    if value is None:
        return ()
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
        raise UserError(f"{key}: takes text or a list of it, not {value!r}")
    return tuple(items)


def _string(value: Any, key: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise UserError(f"{key}: takes text, not {value!r}")
    return value or None


def _weight(value: Any, key: str) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < value < float("inf"):
        raise UserError(f"{key} must be a number above 0, not {value!r}")
    return float(value)


def _tag(code: Any, key: str) -> str:
    if isinstance(code, bool):
        # YAML 1.1 reads the code of Norwegian as "off".
        raise UserError(f'{key}: YAML takes no for false: write "no" in quotes, or nb')
    if not isinstance(code, str):
        raise UserError(f"{key}: takes a language tag such as en, not {code!r}")
    try:
        return languages.parse(code)
    except UserError as error:
        raise UserError(f"{key}: {error}") from None


def _columns(value: Any, key: str) -> dict[str, str | int]:
    if not isinstance(value, Mapping):
        raise UserError(f"{key} says which column is what, {{source:en,target:zh}}, not {value!r}")
    found: dict[str, str | int] = {}
    for role, column in value.items():
        if isinstance(column, bool) or not isinstance(column, str | int) or column in ("", 0):
            raise UserError(f"{key}.{role} must be a column's name, or its number from 1")
        found[_role(role, key)] = column
    if ("source" in found) != ("target" in found):
        raise UserError(f"{key} must name both source and target")
    return found


def _role(role: Any, key: str) -> str:
    if role in ROLES:
        return str(role)
    try:
        return languages.parse(str(role))
    except UserError:
        near = difflib.get_close_matches(str(role), ROLES, n=1, cutoff=0.6)
        hint = f": did you mean {near[0]}?" if near else ""
        raise UserError(
            f"{key}: {role!r} is neither one of {', '.join(ROLES)} nor a language{hint}"
        ) from None


def _origin(path: str) -> str:
    """`/data/opus/x.en.gz` gives `opus/x`, `hf://datasets/owner/name` gives `owner/name`."""
    bare = (urlsplit(path).path if path.startswith("http") else path).partition("://")
    parts = [part for part in (bare[2] or bare[0]).split("/") if part.strip("*.~")]
    if not parts:
        return path
    name = re.sub(r"[*?\[\]]+", "", parts[-1])
    name = re.sub(r"\.(?:gz|zst|zstd|xz)$", "", name)
    name = re.sub(r"\.(?:jsonl?|ndjson|tsv|csv|parquet|arrow|tmx|txt)$", "", name)
    stem, dot, last = name.rpartition(".")
    if dot and named_in(last):
        name = stem
    return "/".join([*parts[-2:-1], name.strip("-_.") or parts[-1].strip("*.")])
