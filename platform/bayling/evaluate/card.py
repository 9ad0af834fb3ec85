"""The scores of a model in its card: what a hub shows of it, and who passes it on hands over."""

from __future__ import annotations

from typing import Any

from bayling.evaluate.directions import ZERO_SHOT
from bayling.evaluate.suite import ALL

_HEADING = "## Scores"


def with_scores(card: str, result: dict[str, Any]) -> str:
    """A model card with a section of scores, put before the licences, or in place of an older one.

    Args:
        result: of the evaluation, as `scores.json` has it.
    """
    head, found, tail = card.partition("\n## ")
    if found and tail.startswith(_HEADING.removeprefix("## ")):
        _, found, tail = tail.partition("\n## ")
    return f"{head.rstrip()}\n\n{_section(result)}\n{found}{tail}"


def _section(result: dict[str, Any]) -> str:
    lines = [_HEADING]
    for suite, scored in result["systems"][result["main"]].items():
        lines += ["", *_suite(result, suite, scored)]
    return "\n".join([*lines, ""])


def _suite(result: dict[str, Any], suite: str, scored: dict[str, Any]) -> list[str]:
    figures = scored["groups"].get(ALL, {}).get("figures", {})
    if not figures:
        return []
    items = max(figure["items"] for figure in figures.values())
    test = f"test set `{result['digests'][suite]}`, {result['decoding'][suite]}"
    if "chrf" in figures and "bleu" in figures:
        return [*_translations(result, suite, scored, items, test)]
    named = ", ".join(
        f"{name.replace('_', ' ')} {_number(name, figure['value'])}"
        for name, figure in figures.items()
    )
    return [f"**{suite}** ({items:,} items; {test}): {named}."]


def _translations(
    result: dict[str, Any], suite: str, scored: dict[str, Any], items: int, test: str
) -> list[str]:
    groups = scored["groups"]
    directions = [
        (row["figures"]["chrf"]["value"], row["source_lang"], row["target_lang"])
        for row in groups.values()
        if row.get("kind") == "direction" and not row["zero_shot"]
    ]
    lines = [
        f"**{suite}**: {items:,} translations of {max(1, len(directions))} directions ({test}), "
        "with 95 % intervals:",
        "",
        "| | chrF++ | BLEU | exact | off target |",
        "|---|---:|---:|---:|---:|",
        _row("this model", groups[ALL]["figures"]),
    ]
    if ZERO_SHOT in groups:
        name = "this model, directions it was not trained on"
        lines.append(_row(name, groups[ZERO_SHOT]["figures"]))
    for system, suites in result["systems"].items():
        if system != result["main"] and suite in suites:
            name = "before training" if system == "untrained" else result["called"][system]
            lines.append(_row(name, suites[suite]["groups"][ALL]["figures"]))
    if len(directions) > 1:
        weakest = ", ".join(
            f"{source}→{target} {chrf:.1f}" for chrf, source, target in sorted(directions)[:3]
        )
        lines += ["", f"The weakest directions by chrF++: {weakest}."]
    return lines


def _row(name: str, figures: dict[str, Any]) -> str:
    chrf = figures["chrf"]
    cells = [f"{chrf['value']:.1f} ({chrf['low']:.1f}–{chrf['high']:.1f})"]
    for figure in ("bleu", "exact_match", "off_target"):
        known = figures.get(figure)
        cells.append(_number(figure, known["value"]) if known else "")
    return f"| {name} | {' | '.join(cells)} |"


def _number(name: str, value: float) -> str:
    return f"{value:.1f}" if name in ("bleu", "chrf", "ter", "final_chrf") else f"{value:.0%}"
