"""Translations of what the data stage kept back: every direction, trained or not."""

from __future__ import annotations

from collections.abc import Sequence

from bayling.evaluate import directions
from bayling.evaluate.answers import read_lines
from bayling.evaluate.config import EvaluateConfig
from bayling.evaluate.decoding import Decoding
from bayling.evaluate.suite import Row, Scored
from bayling.evaluate.translation import Metrics
from bayling.stage import Context


class HeldOut:
    """One translation a row."""

    name = "heldout"

    def __init__(self, rows: Sequence[Row], decoding: Decoding) -> None:
        self.decoding = decoding
        self.questions: Sequence[Row] = [
            {"turns": [row["prompt"]], **{k: v for k, v in row.items() if k != "prompt"}}
            for row in rows
        ]

    def score(self, rows: Sequence[Row]) -> Scored:
        return directions.score(rows, Metrics(ter=False))


def suite(config: EvaluateConfig, context: Context) -> HeldOut:
    folder, data = context.upstream("data")
    return HeldOut(read_lines(folder / data.outputs["heldout_translate"]), config.decoding)
