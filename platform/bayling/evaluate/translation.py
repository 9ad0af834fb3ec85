"""Figures of translations beside references.

BLEU, chrF++ and TER are sacreBLEU's (Post 2018, Popović 2017, Snover et al. 2006), 0 to 100: its
statistics of each sentence, added up as it adds them. Everything else is a share between 0 and 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sacrebleu

from bayling.errors import UserError
from bayling.evaluate import outputs as faults_of
from bayling.evaluate.samples import Sample, faults, pooled, share

# sacreBLEU's tokenizers; those for words of Japanese and Korean need dictionaries of their own.
_TOKENIZERS = {
    "zh": "zh",
    "yue": "zh",
    **dict.fromkeys(("ja", "ko", "th", "km", "lo", "my", "bo"), "char"),
}
_UNSPACED = frozenset(_TOKENIZERS) - {"ko"}
TITLES = {
    "chrf": "chrF++",
    "bleu": "BLEU",
    "ter": "TER",
    "comet": "COMET",
    "exact_match": "exact",
    "off_target": "off target",
    "copies": "copied",
    "empty": "empty",
    "loops": "loops",
    "length_ratio": "length",
}
"""What people call the figures."""


@dataclass(frozen=True)
class Metrics:
    """Which metrics, and how BLEU finds words."""

    tokenizers: Mapping[str, str] = field(default_factory=dict)
    """Target language → sacreBLEU tokenizer, in place of the usual one."""
    ter: bool = True
    comet: Callable[[Sequence[str], Sequence[str], Sequence[str]], Sequence[float]] | None = None
    """Sources, outputs and references to a score each."""

    def tokenizer(self, language: str) -> str:
        """The name of the BLEU tokenizer for texts in a language."""
        return self.tokenizers.get(language) or bleu_tokenizer(language)

    def check(self, languages: Sequence[str]) -> None:
        """Raise UserError for a tokenizer that does not exist or is not installed."""
        for language in languages:
            _bleu(self.tokenizer(language), language)

    def signatures(self, language: str) -> dict[str, str]:
        """sacreBLEU's signature of each of its metrics, for one reference."""
        made = {}
        for name, metric in self._metrics(language).items():
            metric.num_refs = 1
            made[name] = str(metric.get_signature())
        return made

    def _metrics(self, language: str) -> dict[str, Any]:
        metrics: dict[str, Any] = {
            "bleu": _bleu(self.tokenizer(language), language),
            "chrf": sacrebleu.CHRF(word_order=2),
        }
        if self.ter:
            metrics["ter"] = sacrebleu.TER()
        return metrics


def bleu_tokenizer(language: str) -> str:
    """sacreBLEU's tokenizer for a language: `zh`, `char` where words have no spaces, or `13a`."""
    return _TOKENIZERS.get(language.split("-")[0], "13a")


def spaced(language: str) -> bool:
    """Whether words are set apart, so that TER, which counts them, says something."""
    return language.split("-")[0] not in _UNSPACED


def score(
    outputs: Sequence[str],
    references: Sequence[str],
    language: str,
    metrics: Metrics,
    *,
    sources: Sequence[str] | None = None,
    others: Sequence[Mapping[str, str]] | None = None,
) -> dict[str, Sample]:
    """Figures of translations into one language, each a sample of one item per sentence.

    Args:
        language: BCP-47 tag of the language that was asked for.
        sources: for copies, and for COMET.
        others: the same sentences in other languages, as in `outputs.off_target`.

    Raises:
        ValueError: there is nothing to score.
        UserError: a tokenizer is missing.
    """
    if not outputs:
        raise ValueError("no translations to score")
    texts = [output.strip() for output in outputs]
    made: dict[str, Sample] = {}
    for name, metric in metrics._metrics(language).items():
        # sacreBLEU's own paired tests use this, too; there is no other way to a sentence's counts.
        counts = metric._extract_corpus_statistics(list(texts), [list(references)])
        made[name] = Sample(name, np.asarray(counts, dtype=np.float64))
    if metrics.comet is not None and sources is not None:
        values = np.asarray(metrics.comet(sources, texts, references), dtype=np.float64)
        made["comet"] = Sample("mean", np.stack([values, np.ones(len(values))], axis=1))
    made["exact_match"] = share([a == b.strip() for a, b in zip(texts, references, strict=True)])
    made["off_target"] = faults(faults_of.off_target(texts, references, language, others))
    if sources is not None:
        made["copies"] = faults(faults_of.copied(texts, sources, references))
    made["empty"] = faults(faults_of.empty(texts))
    made["loops"] = faults(faults_of.looping(texts, references))
    pairs = zip(texts, references, strict=True)
    lengths = [[len(text), len(reference)] for text, reference in pairs]
    made["length_ratio"] = Sample("ratio", np.asarray(lengths, dtype=np.float64))
    return made


def together(figures: Sequence[Mapping[str, Sample]]) -> dict[str, Sample]:
    """The figures of several directions as one: those that all of them have.

    Counts of BLEU are added up as each language's tokenizer made them.
    """
    common = [name for name in figures[0] if all(name in one for one in figures)]
    return {name: pooled([one[name] for one in figures]) for name in common}


def _bleu(tokenizer: str, language: str) -> sacrebleu.BLEU:
    known = sacrebleu.BLEU.TOKENIZERS
    if tokenizer not in known:
        raise UserError(
            f"sacreBLEU has no tokenizer {tokenizer!r} for {language}: it has {', '.join(known)}"
        )
    try:
        return sacrebleu.BLEU(tokenize=tokenizer, force=True)
    except (ImportError, RuntimeError, OSError) as error:
        extra = {"ja-mecab": "ja", "ko-mecab": "ko"}.get(tokenizer)
        way = f": pip install 'sacrebleu[{extra}]'" if extra else ""
        raise UserError(
            f"the tokenizer {tokenizer} for {language} is not installed{way}, or take another "
            f"({bleu_tokenizer(language)})"
        ) from error
