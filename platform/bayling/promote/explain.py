"""A verdict for a person at a terminal: rules, directions that lost most, and what they said."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bayling.promote.evaluation import Compared, Evaluation
from bayling.promote.gate import Verdict
from bayling.promote.wording import often

_DIRECTIONS = 5
_EXAMPLES = 3


@dataclass(frozen=True)
class Example:
    """A sentence that the candidate did worse than the baseline."""

    source: str
    right: str
    now: str
    before: str


def rules(verdict: Verdict) -> Iterator[str]:
    """Each rule with its number and its limit, as lines of plain text."""
    yield f"{verdict.word}, compared with the {verdict.baseline}"
    for finding in verdict.findings:
        yield f"  {'✓' if finding.passed else '✗'} {finding.sentence}"
        yield f"      {finding.key}: {finding.value:.4g}, limit {finding.limit:g}"
    if verdict.silent:
        yield f"  – not looked at: {', '.join(verdict.silent)}"


def worst(evaluation: Evaluation, folder: Path) -> Iterator[str]:
    """The trained directions that lost most, with examples from the answers below `folder`."""
    for suite in evaluation.translations:
        ranked = sorted(evaluation.directions(suite, "chrf"), key=lambda one: -one.loss)
        lost = [one for one in ranked if one.loss > 0][:_DIRECTIONS]
        yield ""
        if not lost:
            yield f"{suite}: no trained direction lost against the {evaluation.baseline}"
            continue
        yield f"{suite}: the directions that lost most against the {evaluation.baseline}, in chrF++"
        answered = _Answers.read(evaluation, folder, suite)
        for one in lost:
            yield (
                f"  {one.group}  {one.value:.1f} after {one.baseline:.1f}, on {one.items} "
                f"sentences: the difference is between {one.low:+.1f} and {one.high:+.1f} (95 % "
                f"interval), and equally good models differ as much {often(one.p_worse)}"
            )
            for example in answered.examples(one):
                yield f"      source  {example.source}"
                yield f"      right   {example.right}"
                yield f"      before  {example.before or '(nothing)'}"
                yield f"      now     {example.now or '(nothing)'}"
                yield ""


@dataclass(frozen=True)
class _Answers:
    """Both models' answers to a suite of translations."""

    now: list[dict[str, Any]]
    before: dict[str, dict[str, Any]]
    """By the question's id."""

    @staticmethod
    def read(evaluation: Evaluation, folder: Path, suite: str) -> _Answers:
        now = _rows(folder / "answers" / "trained" / f"{suite}.jsonl")
        before = _rows(folder / "answers" / evaluation.baseline_system / f"{suite}.jsonl")
        return _Answers(now, {row["id"]: row for row in before})

    def examples(self, direction: Compared) -> list[Example]:
        """Sentences that the baseline got right and the candidate did not, or else any that the
        candidate got wrong."""
        asked = (direction.source_lang, direction.target_lang)
        found: list[tuple[bool, Example]] = []
        for row in self.now:
            if (row.get("source_lang"), row.get("target_lang")) != asked:
                continue
            before = self.before.get(row["id"])
            now = row["outputs"][0].strip()
            if before is None or now == row["target"].strip():
                continue
            earlier = before["outputs"][0].strip()
            right = earlier == row["target"].strip()
            found.append((right, Example(row["source"], row["target"], now, earlier)))
        found.sort(key=lambda pair: not pair[0])
        return [example for _, example in found[:_EXAMPLES]]


def _rows(path: Path) -> list[dict[str, Any]]:
    """Answers that lie in a file; none where they were not kept."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]
