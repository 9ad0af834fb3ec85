"""What the gate reads of an evaluation: `scores.json`, checked, and looked up by name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bayling.errors import UserError

TRANSLATIONS = ("heldout", "translation")
"""Suites whose groups are directions and languages, and whose figures are those of translations."""
EXAMS = ("knowledge", "harness")
OTHERS = ("interactive", "constrained", *EXAMS, "safety")
"""Further suites that the gate looks at."""
ALL = "all"
CHAMPION, UNTRAINED = "champion", "untrained"
"""What a candidate is compared with."""


@dataclass(frozen=True)
class Compared:
    """A figure of the candidate beside the same of the baseline, on the same items."""

    group: str
    kind: str
    """`overall`, `direction`, `into`, `from`, …"""
    source_lang: str | None
    target_lang: str | None
    value: float
    baseline: float
    low: float
    """Ends of the 95 % interval of the difference."""
    high: float
    p_worse: float
    """How likely equally good models are to differ as much to the candidate's disadvantage."""
    items: int

    @property
    def loss(self) -> float:
        """By how much the candidate is behind; negative where it is ahead."""
        return self.baseline - self.value


@dataclass(frozen=True)
class Evaluation:
    """The candidate's figures, and how they compare with the baseline's."""

    systems: Mapping[str, Any]
    comparison: Mapping[str, Any]
    champion_version: str | None
    """The baseline's version; None where it is the untrained model."""
    cost_per_million_tokens: float | None = None

    @staticmethod
    def read(path: Path) -> Evaluation:
        """The evaluation whose figures lie in a `scores.json`.

        Raises:
            UserError: the file is broken, or an earlier release wrote it.
        """
        try:
            raw = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read ({error}): {_anew(path)}") from None
        missing = [
            key
            for key in ("systems", "comparison", "baseline")
            if not isinstance(raw, dict) or key not in raw
        ]
        if missing or "trained" not in raw["systems"]:
            raise UserError(
                f"{path} was written by an earlier release, which did not compare with statistics "
                f"(it has no {', '.join(missing) or 'trained model'}): {_anew(path)}"
            )
        baseline, version = raw["baseline"], raw.get("champion_version")
        if baseline not in (UNTRAINED, CHAMPION):
            raise UserError(
                f"{path} compares with another model than the champion: evaluate without "
                "evaluate.against before promoting"
            )
        if (baseline == CHAMPION) != (version is not None):
            raise UserError(f"{path} does not say which champion was compared with: {_anew(path)}")
        judged = {*TRANSLATIONS, *OTHERS} & set(raw["systems"]["trained"])
        absent = sorted(judged - set(raw["comparison"]))
        if absent:
            raise UserError(
                f"{path} has no comparison of {', '.join(absent)} with the {baseline} "
                f"model: {_anew(path)}"
            )
        return Evaluation(
            raw["systems"],
            raw["comparison"],
            str(version) if version is not None else None,
            raw.get("cost_per_million_tokens"),
        )

    @property
    def baseline_system(self) -> str:
        """By which name its answers and figures are found."""
        return UNTRAINED if self.champion_version is None else CHAMPION

    @property
    def baseline(self) -> str:
        """What the candidate was compared with: `champion (version 3)`, or `untrained model`."""
        if self.champion_version is None:
            return "untrained model"
        return f"champion (version {self.champion_version})"

    @property
    def translations(self) -> tuple[str, ...]:
        """The suites of translations that were run."""
        return tuple(suite for suite in TRANSLATIONS if self.ran(suite))

    def ran(self, suite: str) -> bool:
        return suite in self.systems["trained"]

    def figure(self, suite: str, name: str) -> float | None:
        """The candidate's figure over all that a suite is about, None where it has none."""
        group = self.systems["trained"].get(suite, {}).get("groups", {}).get(ALL, {})
        found = group.get("figures", {}).get(name)
        return None if found is None else float(found["value"])

    def overall(self, suite: str, name: str) -> Compared | None:
        """The comparison over all that a suite is about, None where the suite was not run."""
        for found in self._compared(suite, name):
            if found.group == ALL:
                return found
        return None

    def directions(self, suite: str, name: str) -> list[Compared]:
        """The trained directions; those never trained may fall."""
        groups = self.systems["trained"][suite]["groups"]
        return [
            found
            for found in self._compared(suite, name)
            if found.kind == "direction" and not groups[found.group].get("zero_shot", False)
        ]

    def languages(self, suite: str, name: str) -> list[Compared]:
        """Into each language, and from each."""
        return [one for one in self._compared(suite, name) if one.kind in ("into", "from")]

    def _compared(self, suite: str, name: str) -> Iterator[Compared]:
        known = self.systems["trained"].get(suite, {}).get("groups", {})
        for group, figures in self.comparison.get(suite, {}).items():
            if name not in figures or group not in known:
                continue
            about, found = known[group], figures[name]
            yield Compared(
                group,
                about.get("kind", ""),
                about.get("source_lang"),
                about.get("target_lang"),
                found["value"],
                found["baseline"],
                found["low"],
                found["high"],
                found["p_worse"],
                found["items"],
            )


def _anew(path: Path) -> str:
    return f"remove {path.parent} and run `bayling evaluate` again"
