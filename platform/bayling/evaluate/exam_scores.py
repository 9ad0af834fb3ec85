"""Scores of answered exam questions: a group for each exam, and their mean.

The headline is the macro average, as AGIEval reports it: every exam counts alike, whatever its
number of questions.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from bayling.evaluate import open_answers
from bayling.evaluate.extraction import chosen
from bayling.evaluate.samples import averaged, faults, share
from bayling.evaluate.suite import ALL, Row, Scored

_SHOWN = 5
"""Answers that were not understood, for a person to look at; of each exam."""
_LONGEST = 300


def score(rows: Sequence[Row]) -> Scored:
    """Judge answered rows, as `choices.QuestionFile.rows` makes them.

    Figures are `accuracy`, a share, and `unextracted`, the share of answers that do not say what
    they choose. These are wrong, too.
    """
    scored = Scored()
    exams: dict[str, list[tuple[Row, str, str | None]]] = defaultdict(list)
    for row in rows:
        output = row["outputs"][-1]
        exams[row["file"]].append((row, output, _said(row, output)))
    for name, answered in exams.items():
        scored.samples[name] = {
            "accuracy": share([float(_is_right(row, said)) for row, _, said in answered]),
            "unextracted": faults([float(said is None) for _, _, said in answered]),
        }
        scored.groups[name] = {"kind": "exam", **_about([row for row, _, _ in answered])}
        scored.details.setdefault("exams", {})[name] = _details(answered)
    means = {
        figure: averaged([scored.samples[name][figure] for name in exams])
        for figure in ("accuracy", "unextracted")
    }
    scored.samples = {ALL: means, **scored.samples}
    scored.groups[ALL] = {"kind": "overall", "exams": len(exams)}
    return scored


def _said(row: Mapping[str, Any], output: str) -> str | None:
    """The answer that an output gives: letters, or the text of an open answer."""
    if not row["options"]:
        return open_answers.given(output)
    letters = chosen(output, row["options"], several=row["several"])
    return None if letters is None else "".join(sorted(letters))


def _is_right(row: Mapping[str, Any], said: str | None) -> bool:
    if said is None:
        return False
    if not row["options"]:
        return open_answers.same(said, row["answer"])
    return said == "".join(row["right"])


def _about(rows: Sequence[Row]) -> dict[str, Any]:
    """The language, and what guessing would reach where that is known."""
    about: dict[str, Any] = {"language": rows[0]["language"]}
    if all(row["options"] for row in rows) and not any(row["several"] for row in rows):
        about["chance"] = sum(1 / len(row["options"]) for row in rows) / len(rows)
    return about


def _details(answered: Sequence[tuple[Row, str, str | None]]) -> dict[str, Any]:
    """How often each letter was chosen, and answers that were not understood."""
    letters = Counter(said for row, _, said in answered if said is not None and row["options"])
    lost = [(row["id"], output) for row, output, said in answered if said is None]
    return {
        "chosen": dict(sorted(letters.items())),
        "unextracted": [{"id": one, "output": output[:_LONGEST]} for one, output in lost[:_SHOWN]],
    }
