"""Which differences are clear, and which may be chance: once, for the page and the plots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bayling.multiplicity import holm

SIGNIFICANT = 0.05
BETTER, WORSE, SAME = "better", "worse", "same"
_LOWER_IS_BETTER = ("ter", "off_target", "copies", "empty", "loops", "unextracted")


def translation_suites(result: dict[str, Any]) -> list[str]:
    """The suites whose groups are directions."""
    return [
        name
        for name, scored in result["systems"][result["main"]].items()
        if any(known.get("kind") == "direction" for known in scored["groups"].values())
    ]


def verdict(figure: str, difference: float, p: float) -> str:
    """`better`, `worse`, or `same` where chance would do as an explanation."""
    if p >= SIGNIFICANT or difference == 0:
        return SAME
    return BETTER if (difference > 0) != (figure in _LOWER_IS_BETTER) else WORSE


def two_sided(one: Mapping[str, float]) -> float:
    """The p-value of a difference in either direction, of its two one-sided ones."""
    return min(1.0, 2 * min(one["p_worse"], one["p_better"]))


def together(result: dict[str, Any], suite: str, kinds: tuple[str, ...]) -> dict[str, str]:
    """Group → verdict on chrF++, of all groups of these kinds, corrected for their number."""
    groups = result["systems"][result["main"]][suite]["groups"]
    compared = {
        group: figures["chrf"]
        for group, figures in result["comparison"].get(suite, {}).items()
        if groups[group].get("kind") in kinds and "chrf" in figures
    }
    corrected = holm([two_sided(one) for one in compared.values()])
    return {
        group: verdict("chrf", one["difference"], p)
        for (group, one), p in zip(compared.items(), corrected, strict=True)
    }
