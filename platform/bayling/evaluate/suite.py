"""What a suite is: questions that systems are asked, and figures of their answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from bayling.evaluate.decoding import Decoding
from bayling.evaluate.samples import Sample
from bayling.evaluate.significance import Difference, difference, interval
from bayling.stage import Report, fingerprint

Row = dict[str, Any]
"""A question: `id` (unique in its suite), `turns` (what the user says, turn by turn), and whatever
its suite needs to judge the answers; answered it has `outputs`, one for each turn, each given after
the system's own earlier ones."""

ALL = "all"
"""The group of all that a suite's headline is about."""


@dataclass
class Scored:
    """What a suite finds in one system's answers."""

    samples: dict[str, dict[str, Sample]] = field(default_factory=dict)
    """Group (`all`, `en → zh`, `into zh`, …) → figure → the items that it is made of."""
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What is known of a group beside its figures: `kind`, `source_lang`, `target_lang`, …"""
    details: dict[str, Any] = field(default_factory=dict)
    """Anything else worth showing, as plain JSON: examples, signatures, counts, costs."""

    def as_dict(self) -> dict[str, Any]:
        """As it lies in `scores.json`: `groups` (each with `figures`: value, low, high, items)."""
        return {
            "groups": {
                group: {**self.groups.get(group, {}), "figures": self._figures(figures)}
                for group, figures in self.samples.items()
            },
            "details": self.details,
        }

    def _figures(self, figures: Mapping[str, Sample]) -> dict[str, Any]:
        shown = {}
        for name, sample in figures.items():
            low, high = interval(sample)
            shown[name] = {"value": sample.value, "low": low, "high": high, "items": len(sample)}
        return shown

    def against(self, baseline: Scored) -> dict[str, dict[str, Difference]]:
        """Group → figure → difference, of all that both have of the same items."""
        return {
            group: {
                name: difference(sample, baseline.samples[group][name])
                for name, sample in figures.items()
                if name in baseline.samples[group]
            }
            for group, figures in self.samples.items()
            if group in baseline.samples
        }

    def stored(self) -> dict[str, Any]:
        """All of it as plain JSON, items included, for `restored`."""
        return {
            "samples": {
                group: {
                    name: {"figure": one.figure, "items": one.items.tolist()}
                    for name, one in figures.items()
                }
                for group, figures in self.samples.items()
            },
            "groups": self.groups,
            "details": self.details,
        }

    @staticmethod
    def restored(stored: Mapping[str, Any]) -> Scored:
        return Scored(
            {
                group: {
                    name: Sample(one["figure"], np.asarray(one["items"], dtype=np.float64))
                    for name, one in figures.items()
                }
                for group, figures in stored["samples"].items()
            },
            dict(stored["groups"]),
            dict(stored["details"]),
        )


class Suite(Protocol):
    """A test set and how its answers are judged."""

    name: str
    decoding: Decoding
    questions: Sequence[Row]

    def score(self, rows: Sequence[Row]) -> Scored:
        """Judge answered questions; they come in the order of `questions`."""
        ...


@runtime_checkable
class Contest(Protocol):
    """A suite that says something of two systems' answers side by side, and little of one's."""

    def compare(
        self, rows: Sequence[Row], baseline_rows: Sequence[Row] | None, folder: Path, report: Report
    ) -> Scored:
        """Judge answered questions beside the baseline's answers to them.

        Args:
            folder: where what was paid for is kept, and found again after an interruption.
        """
        ...


def digest_of(suite: Suite) -> str:
    """Names questions and decoding: scores are comparable where it is equal."""
    return fingerprint(suite.name, suite.questions, suite.decoding)
