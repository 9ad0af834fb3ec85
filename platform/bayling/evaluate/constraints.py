"""Translations that have to contain given words: `{"src", "tgt", "constraint": [...]}`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bayling.evaluate import translation
from bayling.evaluate.samples import Sample, share
from bayling.evaluate.suite import ALL, Row, Scored
from bayling.evaluate.translation import Metrics

_MISSED = 8
TITLES = {
    "constraints_met": "constraints met",
    "sentences_met": "sentences with all of theirs",
    **translation.TITLES,
}


def score(rows: Sequence[Row], language: str, metrics: Metrics) -> Scored:
    """Score rows with `source`, `target`, `constraints` and `outputs`, all into one language.

    `constraints_met` is the share of constraints that stand in the answer verbatim, upper and lower
    case told apart; items are sentences, and a sentence may have several.
    """
    outputs = [row["outputs"][0] for row in rows]
    figures = translation.score(
        outputs,
        [row["target"] for row in rows],
        language,
        metrics,
        sources=[row["source"] for row in rows],
    )
    met = [[word in row["outputs"][0] for word in row["constraints"]] for row in rows]
    counts = [[sum(those), len(those)] for those in met]
    of_all = {
        "constraints_met": Sample("share", np.asarray(counts, dtype=np.float64)),
        "sentences_met": share([all(those) for those in met]),
        **figures,
    }
    return Scored(
        samples={ALL: of_all},
        groups={ALL: {"kind": "overall", "target_lang": language}},
        details={"signatures": metrics.signatures(language), "missed": _missed(rows, met)},
    )


def _missed(rows: Sequence[Row], met: Sequence[Sequence[bool]]) -> list[dict[str, Any]]:
    found = []
    for row, those in zip(rows, met, strict=True):
        missing = [word for word, there in zip(row["constraints"], those, strict=True) if not there]
        if missing:
            keys = ("id", "source", "target")
            shown = {key: row[key] for key in keys}
            found.append({**shown, "output": row["outputs"][0], "missing": missing})
    return found[:_MISSED]
