"""The scores of a model in its card: what a hub shows of it, and who passes it on hands over."""

from __future__ import annotations

from typing import Any

_HEADING = "## Scores"


def with_scores(card: str, result: dict[str, Any], digest: str) -> str:
    """A model card with a section of scores, put before the licences, or in place of an older one.

    Args:
        result: of the evaluation, as `scores.json` has it.
        digest: of the test set.
    """
    head, found, tail = card.partition("\n## ")
    if found and tail.startswith(_HEADING.removeprefix("## ")):
        _, found, tail = tail.partition("\n## ")
    return f"{head.rstrip()}\n\n{_section(result, digest)}\n{found}{tail}"


def _section(result: dict[str, Any], digest: str) -> str:
    trained = result["trained"]
    directions = [row for row in trained["directions"] if not row["zero_shot"]]
    weakest = sorted(directions, key=lambda row: float(row["chrf"]))[:3]
    lines = [
        _HEADING,
        "",
        f"On {trained['overall']['sentences']:,} held-out translations of {len(directions)} "
        f"directions (test set `{digest}`), greedy decoding:",
        "",
        "| | chrF++ | BLEU | exact | off target |",
        "|---|---:|---:|---:|---:|",
        _row("this model", trained["overall"]),
    ]
    if trained["zero_shot"]:
        lines.append(_row("this model, directions it was not trained on", trained["zero_shot"]))
    lines += [_row("before training", result["untrained"]["overall"]), ""]
    named = ", ".join(
        f"{row['source_lang']}→{row['target_lang']} {row['chrf']:.1f}" for row in weakest
    )
    lines.append(f"The weakest directions by chrF++: {named}.")
    wishes = trained["interactive"].get("interactive_satisfaction")
    if wishes is not None:
        lines.append(f"Of the wishes in interactive translation, {wishes:.0%} are met.")
    return "\n".join(lines)


def _row(name: str, row: dict[str, Any]) -> str:
    return (
        f"| {name} | {row['chrf']:.1f} | {row['bleu']:.1f} | {row['exact_match']:.0%} "
        f"| {row['off_target']:.0%} |"
    )
