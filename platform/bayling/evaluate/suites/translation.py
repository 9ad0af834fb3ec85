"""Test sets of line-aligned files, one per language: WMT's and FLORES' form."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bayling import languages
from bayling.errors import UserError
from bayling.evaluate import comet, directions
from bayling.evaluate.config import EvaluateConfig, TranslationConfig
from bayling.evaluate.decoding import Decoding
from bayling.evaluate.files import found, language_in_name, read_aligned
from bayling.evaluate.suite import Row, Scored
from bayling.evaluate.translation import Metrics
from bayling.prompts import translate_prompt
from bayling.stage import Context, fingerprint


class Translation:
    """Sentences of files, to be translated from every language into every other."""

    name = "translation"

    def __init__(self, config: TranslationConfig, decoding: Decoding) -> None:
        """Read the files.

        Raises:
            UserError: there are none, a language cannot be told, they do not fit together, or a
                direction has no files.
        """
        self.decoding = decoding
        self._metrics = Metrics(
            tokenizers=config.tokenizers,
            ter="ter" in config.metrics,
            comet=comet.scorer(config.comet) if config.comet else None,
        )
        paths = _by_language(found(config.files, "evaluate.translation.files"))
        read = read_aligned(paths, never_empty=list(paths))
        pairs = _directions(config.directions, list(paths))
        self._metrics.check([target for _, target in pairs])
        self.questions: Sequence[Row] = [
            {
                "id": fingerprint(source, target, number, text),
                "turns": [translate_prompt(text, target, "en")],
                "source_lang": source,
                "target_lang": target,
                "source": text,
                "target": read[target][number],
            }
            for source, target in pairs
            for number, text in enumerate(read[source][: config.limit])
        ]

    def score(self, rows: Sequence[Row]) -> Scored:
        return directions.score(rows, self._metrics)


def suite(config: EvaluateConfig, context: Context) -> Translation:
    if not config.translation.files:
        raise UserError(
            "the suite translation needs test sets: "
            "evaluate.translation.files=['flores/devtest/*.devtest']"
        )
    return Translation(config.translation, config.decoding)


def _by_language(paths: Sequence[Path]) -> dict[str, Path]:
    by_language: dict[str, Path] = {}
    for path in paths:
        tag = language_in_name(path)
        if tag in by_language:
            raise UserError(
                f"evaluate.translation.files: {by_language[tag]} and {path} are both in {tag}"
            )
        by_language[tag] = path
    if len(by_language) < 2:
        raise UserError("evaluate.translation.files needs files of at least two languages")
    return by_language


def _directions(named: Sequence[str], tags: Sequence[str]) -> list[tuple[str, str]]:
    if not named:
        return [(source, target) for source in tags for target in tags if source != target]
    pairs = []
    for one in named:
        source, dash, target = one.partition("-")
        if not dash:
            raise UserError(f"evaluate.translation.directions takes en-zh, not {one!r}")
        pair = languages.parse(source), languages.parse(target)
        if missing := [tag for tag in pair if tag not in tags]:
            raise UserError(
                f"evaluate.translation.directions names {one}, and there is no file for "
                f"{missing[0]}: there are {', '.join(tags)}"
            )
        pairs.append(pair)
    return list(dict.fromkeys(pairs))
