"""How often each row is used: weights of sources, groups of languages, and temperature.

Rows are counted in strata: those of one source in one pair of languages, or conversations of one
source in one language. From the counts follows how often a row of each stratum is to be used; which
rows that are is decided by a hash of each, so that it does not depend on partitions or workers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from bayling.errors import UserError

Key = TypeVar("Key")


@dataclass
class GroupShares:
    """What part of all conversations is in which language; all 0: as the sources have it."""

    zh: float = 0.0
    en: float = 0.0
    other: float = 0.0
    """In one other language."""
    crosslingual: float = 0.0
    """Between two: made from sentence pairs."""


@dataclass
class TaskShares:
    """What part of the conversations that are made from sentence pairs is of which task."""

    translate: float = 0.6
    constrained: float = 0.1
    """A pair without a word that its translation has to contain becomes a plain translation."""
    interactive: float = 0.3


@dataclass
class MixtureConfig:
    """What part of the training data comes from where."""

    groups: GroupShares = field(default_factory=GroupShares)
    tasks: TaskShares = field(default_factory=TaskShares)
    temperature: float = 1.0
    """Languages are drawn by the number of their rows to the power of 1/temperature: with 1 as they
    come; the higher, the more alike."""
    most_uses: float = 1.0
    """How often a row may be used at most, each time with other words around it."""
    most_per_language: int | None = None
    """Conversations of one pair of languages, or in one language."""
    least_per_language: int = 0
    """The same, as far as `most_uses` allows."""

    def validate(self) -> None:
        for key, optional in (("groups", True), ("tasks", False)):
            shares: dict[str, float] = vars(getattr(self, key))
            for name, part in shares.items():
                if part < 0:
                    raise UserError(f"data.mixture.{key}.{name} cannot be negative: {part:g}")
            total = sum(shares.values())
            if abs(total - 1) > 1e-6 and not (optional and total == 0):
                raise UserError(
                    f"data.mixture.{key} must add up to 1, not {total:g}: "
                    + ", ".join(f"{name}={part:g}" for name, part in shares.items())
                )
        if self.temperature < 1:
            raise UserError(
                f"data.mixture.temperature must be at least 1, not {self.temperature:g}: below, "
                "small languages would lose"
            )
        if self.most_uses <= 0:
            raise UserError(f"data.mixture.most_uses must be above 0, not {self.most_uses:g}")
        if self.most_per_language is not None and self.most_per_language < max(
            1, self.least_per_language
        ):
            raise UserError(
                f"data.mixture.most_per_language={self.most_per_language} must be at least 1 and "
                f"least_per_language={self.least_per_language}"
            )


@dataclass(frozen=True, order=True)
class Stratum:
    """Rows that are drawn alike."""

    origin: str
    first: str
    """The languages of a pair, sorted; of a conversation, its language twice."""
    second: str

    @staticmethod
    def of(origin: str, source_lang: str, target_lang: str) -> Stratum:
        first, second = sorted((source_lang, target_lang))
        return Stratum(origin, first, second)

    @property
    def group(self) -> str:
        """A key of `GroupShares`."""
        if self.first != self.second:
            return "crosslingual"
        language = self.first.split("-")[0]
        return language if language in ("zh", "en") else "other"

    @property
    def languages(self) -> tuple[str, str]:
        return self.first, self.second


def plan(
    counts: Mapping[Stratum, int],
    weights: Mapping[str, float],
    wanted: int,
    config: MixtureConfig,
) -> dict[Stratum, float]:
    """How often a row of each stratum is to be used, so that about `wanted` conversations result.

    Args:
        counts: rows of each stratum.
        weights: origin → how much more its rows count than those of one with weight 1.

    Returns:
        Uses of each row, at most `most_uses`: 0.25 uses every fourth row. Fewer than `wanted`
        result where there are not enough rows.

    Raises:
        UserError: a group is to have a part, and there is no row of it.
    """
    shares: dict[str, float] = vars(config.groups)
    if not sum(shares.values()):
        shares = {"all": 1.0}
    uses: dict[Stratum, float] = {}
    for group, share in shares.items():
        mine = {
            stratum: number
            for stratum, number in counts.items()
            if number and (group in ("all", stratum.group))
        }
        if not mine:
            if share:
                raise UserError(
                    f"data.mixture.groups.{group}={share:g}, but no source has such rows: add one "
                    "to data.sources, or give its part to others"
                )
            continue
        uses |= _spread(mine, weights, wanted * share, config)
    return uses


def _spread(
    counts: Mapping[Stratum, int],
    weights: Mapping[str, float],
    wanted: float,
    config: MixtureConfig,
) -> dict[Stratum, float]:
    """Over the strata of one group, what is wanted of it; what a full one cannot take goes to the
    others."""
    of_language: dict[tuple[str, str], int] = {}
    for stratum, number in counts.items():
        of_language[stratum.languages] = of_language.get(stratum.languages, 0) + number
    mass = {
        stratum: weights.get(stratum.origin, 1.0)
        * number
        * of_language[stratum.languages] ** (1 / config.temperature - 1)
        for stratum, number in counts.items()
    }
    by_language: dict[tuple[str, str], float] = {}
    for stratum, one in mass.items():
        by_language[stratum.languages] = by_language.get(stratum.languages, 0.0) + one
    room = {language: number * config.most_uses for language, number in of_language.items()}
    if config.most_per_language is not None:
        room = {language: min(one, config.most_per_language) for language, one in room.items()}
    least = {language: min(config.least_per_language, one) for language, one in room.items()}
    amounts = _between(by_language, least, room, wanted)
    uses: dict[Stratum, float] = {}
    for language, amount in amounts.items():
        strata = {stratum: one for stratum, one in mass.items() if stratum.languages == language}
        full = {stratum: counts[stratum] * config.most_uses for stratum in strata}
        parts = _between(strata, dict.fromkeys(strata, 0.0), full, amount)
        uses |= {stratum: parts[stratum] / counts[stratum] for stratum in strata}
    return uses


def _between(
    mass: Mapping[Key, float],
    least: Mapping[Key, float],
    most: Mapping[Key, float],
    wanted: float,
) -> dict[Key, float]:
    """Amounts in proportion to mass, within their limits, that add up to `wanted` if they can."""
    low, high = 0.0, max((most[key] / one for key, one in mass.items() if one), default=0.0)

    def amounts(level: float) -> dict[Key, float]:
        return {key: min(max(one * level, least[key]), most[key]) for key, one in mass.items()}

    for _ in range(100):  # the sum grows with the level: halve until doubles cannot tell
        middle = (low + high) / 2
        if sum(amounts(middle).values()) < wanted:
            low = middle
        else:
            high = middle
    return amounts(high)


def draw(seed: int, what: str, name: str) -> float:
    """A number from 0 to 1 that a row has for a purpose: the same in every run."""
    digest = hashlib.blake2b(f"{seed}\0{what}\0{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def times(uses: float, seed: int, name: str) -> int:
    """How often a row is used."""
    whole = int(uses)
    return whole + (draw(seed, "mixture", name) < uses - whole)


def choose(weights: Mapping[str, float], at: float) -> str:
    """The name at a place between 0 and 1 of all weights laid side by side."""
    reached = 0.0
    total = sum(weights.values())
    for name, weight in weights.items():
        reached += weight / total
        if at < reached:
            return name
    return list(weights)[-1]
