"""Translations that have to contain given words."""

from __future__ import annotations

from collections.abc import Sequence

from bayling import languages
from bayling.errors import UserError
from bayling.evaluate import constraints
from bayling.evaluate.config import EvaluateConfig
from bayling.evaluate.decoding import Decoding
from bayling.evaluate.files import found, language_of, read_constrained
from bayling.evaluate.suite import Row, Scored
from bayling.evaluate.translation import Metrics
from bayling.prompts import include_prompt, translate_prompt
from bayling.stage import Context


class Constrained:
    """Sentences of one language, each with words that its translation has to have."""

    name = "constrained"

    def __init__(self, rows: Sequence[Row], language: str, decoding: Decoding) -> None:
        self.decoding = decoding
        self._language = language
        self.questions: Sequence[Row] = [
            {
                **row,
                "target_lang": language,
                "turns": [
                    translate_prompt(row["source"], language, "en")
                    + (
                        f"\n{include_prompt(row['constraints'], 'en')}"
                        if row["constraints"]
                        else ""
                    )
                ],
            }
            for row in rows
        ]

    def score(self, rows: Sequence[Row]) -> Scored:
        return constraints.score(rows, self._language, Metrics(ter=False))


def suite(config: EvaluateConfig, context: Context) -> Constrained:
    if not config.constrained.files:
        raise UserError(
            "the suite constrained needs rows of src, tgt and constraint[]: "
            "evaluate.constrained.files=[constraints.en-zh.jsonl]"
        )
    paths = found(config.constrained.files, "evaluate.constrained.files")
    rows = [row for path in paths for row in read_constrained(path, answered=False)]
    named = config.constrained.target_lang
    told = language_of([row["target"] for row in rows], named, ", ".join(map(str, paths)))
    return Constrained(rows, languages.parse(told), config.decoding)
