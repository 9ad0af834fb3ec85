"""Translations in many directions: the figures of each, and of what they have in common."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import sacrebleu

from bayling.evaluate import translation
from bayling.evaluate.samples import Sample
from bayling.evaluate.suite import ALL, Row, Scored
from bayling.evaluate.translation import Metrics
from bayling.language_families import family_of
from bayling.language_resources import LEVELS, level_of

ZERO_SHOT = "zero-shot"
_WORST = 12
_BESIDE = 4000
"""Sentences from which on more than one process is worth its start."""


def name_of_direction(source_lang: str, target_lang: str) -> str:
    return f"{source_lang} → {target_lang}"


def score(rows: Sequence[Row], metrics: Metrics) -> Scored:
    """Score rows with `source_lang`, `target_lang`, `source`, `target`, and one of `outputs`.

    Rows may have `zero_shot` and `in_other_languages`. The groups are every direction, `into` and
    `from` every language, families and resource levels of target languages, `all` – the directions
    that were trained – and `zero-shot`.

    Raises:
        ValueError: there are no rows.
    """
    if not rows:
        raise ValueError("no rows to score")
    directions: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        directions[row["source_lang"], row["target_lang"]].append(row)
    figures = dict(zip(directions, _of_each(list(directions.values()), metrics), strict=True))
    zero_shot = {pair for pair, those in directions.items() if those[0].get("zero_shot")}
    trained = [pair for pair in directions if pair not in zero_shot] or list(directions)
    scored = Scored()

    def add(group: str, pairs: Sequence[tuple[str, str]], **known: Any) -> None:
        scored.samples[group] = translation.together([figures[pair] for pair in pairs])
        scored.groups[group] = known

    add(ALL, trained, kind="overall", directions=len(trained))
    if zero_shot and len(zero_shot) < len(directions):
        add(ZERO_SHOT, sorted(zero_shot), kind="zero_shot", directions=len(zero_shot))
    for side, of in (("into", 1), ("from", 0)):
        for tag in sorted({pair[of] for pair in trained}):
            those = [pair for pair in trained if pair[of] == tag]
            key = {"target_lang" if of else "source_lang": tag}
            add(f"{side} {tag}", those, kind=side, **key)
    for family in sorted({family_of(target) for _, target in trained}):
        those = [pair for pair in trained if family_of(pair[1]) == family]
        add(f"family {family}", those, kind="family", family=family, directions=len(those))
    for level in LEVELS:
        if those := [pair for pair in trained if level_of(pair[1]) == level]:
            known = {"kind": "resources", "level": level, "directions": len(those)}
            add(f"resources {level}", those, **known)
    for pair in sorted(directions):
        source, target = pair
        add(
            name_of_direction(source, target),
            [pair],
            kind="direction",
            source_lang=source,
            target_lang=target,
            zero_shot=pair in zero_shot,
        )
    scored.details = {
        "signatures": _signatures(directions, metrics),
        "worst": _worst({pair: (directions[pair], figures[pair]) for pair in trained}),
    }
    return scored


def _worst(
    directions: Mapping[tuple[str, str], tuple[list[Row], dict[str, Sample]]],
) -> list[dict[str, Any]]:
    """The answer furthest from right of each direction, for a person to look at; the worst ones."""
    found = []
    for rows, figures in directions.values():
        chrf = figures["chrf"].of_sums(figures["chrf"].items)
        place = min(range(len(rows)), key=lambda index: (chrf[index], rows[index]["id"]))
        row = rows[place]
        if row["outputs"][0].strip() != row["target"].strip():
            keys = ("id", "source_lang", "target_lang", "source", "target")
            shown = {key: row[key] for key in keys}
            found.append((float(chrf[place]), {**shown, "output": row["outputs"][0]}))
    found.sort(key=lambda one: (one[0], one[1]["id"]))
    return [row for _, row in found[:_WORST]]


def sentence_chrf(row: Row) -> float:
    """chrF++ of one answered row."""
    made = sacrebleu.sentence_chrf(row["outputs"][0].strip(), [row["target"]], word_order=2)
    return float(made.score)


def _signatures(directions: Iterable[tuple[str, str]], metrics: Metrics) -> dict[str, list[str]]:
    """sacreBLEU's signature → the languages that were scored with it."""
    found: dict[str, list[str]] = defaultdict(list)
    for language in sorted({target for _, target in directions}):
        for name, signature in metrics.signatures(language).items():
            found[f"{translation.TITLES[name]}|{signature}"].append(language)
    return dict(found)


def _of_each(groups: list[list[Row]], metrics: Metrics) -> list[dict[str, Sample]]:
    work: Callable[[list[Row]], dict[str, Sample]] = _Work(metrics)
    processes = min(len(groups), os.cpu_count() or 1)
    # A COMET model is in this process, on its device.
    if processes == 1 or sum(map(len, groups)) < _BESIDE or metrics.comet is not None:
        return [work(rows) for rows in groups]
    # Not forked: Ray and torch have threads.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        return list(pool.map(work, groups))


class _Work:
    """Scores the rows of one direction; travels to another process."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def __call__(self, rows: list[Row]) -> dict[str, Sample]:
        others = [row.get("in_other_languages") or {} for row in rows]
        known = all(row.get("source") is not None for row in rows)
        return translation.score(
            [row["outputs"][0] for row in rows],
            [row["target"] for row in rows],
            rows[0]["target_lang"],
            self._metrics,
            sources=[row["source"] for row in rows] if known else None,
            others=others if any(others) else None,
        )
