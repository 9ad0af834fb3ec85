"""Which language is the source of pairs that do not say it, and which the target."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bayling.data.sources.addresses import folder_of, name_of
from bayling.data.sources.columns import direction_in
from bayling.data.sources.config import SourceConfig
from bayling.data.sources.rows import Pair
from bayling.errors import UserError

SURE = 0.9
"""The confidence that decides. Of texts with so much, 99 % are in the language detected."""


def named(address: str) -> tuple[str, str] | None:
    """The two languages in the name of a file, or in that of its folder."""
    return direction_in(name_of(address)) or direction_in(name_of(folder_of(address)))


def direction(address: str, sample: Sequence[Pair], config: SourceConfig) -> tuple[str, str]:
    """The languages of the two sides: as configured, else by the name, else by the texts.

    Where the name has both, the texts decide about their order.

    Raises:
        UserError: neither tells; the message names the keys that do.
    """
    if config.direction is not None:
        return config.direction
    sides = [_joined(pair.source for pair in sample), _joined(pair.target for pair in sample)]
    if (found := named(address)) is not None:
        source, target = found[::-1] if _swapped(sides, found) else found
    else:
        source, target = _detected(address, sides, config)
    if config.source_lang not in (None, source) or config.target_lang not in (None, target):
        raise UserError(
            f"{address} is taken for {source} → {target}, which is not what the source says: set "
            "both source_lang and target_lang"
        )
    return source, target


def _swapped(sides: list[str], among: tuple[str, str]) -> bool:
    from bayling.detection import detect

    found = [detect(text, among) for text in sides]
    return all(one is not None and one.confidence >= SURE for one in found) and (
        tuple(one.language for one in found if one) == among[::-1]
    )


def _detected(address: str, sides: list[str], config: SourceConfig) -> tuple[str, str]:
    from bayling.detection import detect

    tags = []
    for text, given in zip(sides, (config.source_lang, config.target_lang), strict=True):
        found = None if given else detect(text)
        if given:
            tags.append(given)
        elif found is not None and found.confidence >= SURE:
            tags.append(found.language)
    if len(tags) < 2 or tags[0] == tags[1]:
        raise UserError(
            f"{address} does not tell its languages, neither by its name nor by its texts"
            f"{f' (both look like {tags[0]})' if len(tags) == 2 else ''}: set source_lang and "
            "target_lang"
        )
    return tags[0], tags[1]


def _joined(texts: Iterable[str]) -> str:
    return "\n".join(text for text in texts if text.strip())[:2000]
