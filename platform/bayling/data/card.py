"""The data card: what was trained on, where it came from, what was left out, and how it looks."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from bayling.data.making import CONVERSATIONS
from bayling.data.tables import read_conversations
from bayling.languages import name_of
from bayling.stage import Manifest
from bayling.templates import TASKS, Conversation

CARD = "card"
_SAMPLES = 3
"""Of each task."""
_LOOKED_AT = 40
"""Partitions that samples are taken from."""
_SHOWN = 600
"""Characters of a turn that a sample shows."""
_LANGUAGES = 60
"""Bars of a picture, the largest ones."""
_COLOURS = {
    "translate": "#3b6fb6",
    "constrained": "#e39a3b",
    "interactive": "#4f9d69",
    "general": "#8a6bb0",
}


def write(folder: Path, manifest: Manifest, lengths: Mapping[int, int], bin_width: int) -> Path:
    """Write `card/README.md` and its pictures below the stage's folder; returns the card's folder.

    Args:
        lengths: first number of tokens of a bin → conversations as long.
    """
    card = folder / CARD
    card.mkdir(parents=True, exist_ok=True)
    _picture_of_languages(manifest, card / "languages.png")
    _picture_of_lengths(lengths, bin_width, card / "lengths.png")
    if manifest.dropped:
        _picture_of_dropped(manifest.dropped, card / "dropped.png")
    (card / "README.md").write_text(_text(folder, manifest), "utf-8")
    return card


def _text(folder: Path, manifest: Manifest) -> str:
    counts, config = manifest.counts, manifest.config
    kept, dropped = counts["conversations"], sum(manifest.dropped.values())
    parts = [
        "# Data card",
        f"{kept:,} conversations, {counts['tokens']:,} tokens ({counts['supervised_tokens']:,} of "
        f"them answers that the model learns to write) in {counts['sequences']:,} sequences of "
        f"{config['sequence_length']:,}, {100 * counts['fill']:.1f} % full. "
        f"Left out: {dropped:,}. Held out for tests: {counts['heldout_translate']:,} translations "
        f"and {counts['heldout_interactive']:,} conversations.",
        f"Digest of the packed tokens: `{manifest.results['packed_digest']}`, of the test set: "
        f"`{manifest.results['heldout_digest']}`. Fingerprint of the stage: "
        f"`{manifest.fingerprint}`.",
        "## Sources",
        _table(
            ("origin", "licence", "conversations"),
            [
                (origin, licence, f"{counts.get('origin', {}).get(origin, 0):,}")
                for origin, licence in manifest.licences.items()
            ],
        ),
        "## Tasks and languages",
        _table(
            ("task", "conversations", "share"),
            [
                (task, f"{number:,}", f"{100 * number / kept:.1f} %")
                for task, number in _sorted(counts.get("task", {}))
            ],
        ),
        "![Conversations by the language of the answer](languages.png)",
        _table(
            ("direction", "conversations"),
            [
                (_direction(direction), f"{number:,}")
                for direction, number in _sorted(counts.get("direction", {}))
            ],
        ),
        *_checks(counts.get("checks", {})),
        "## Lengths",
        "![Tokens of a conversation](lengths.png)",
    ]
    if cut := counts.get("cut_conversations"):
        parts.append(f"{cut:,} conversations were too long and end after an earlier turn.")
    parts += ["## What was left out, and why"]
    if manifest.dropped:
        parts += [
            "![What was left out](dropped.png)",
            _table(
                ("why", "number"),
                [(why, f"{number:,}") for why, number in _sorted(manifest.dropped)],
            ),
        ]
        if "quarantine" in manifest.outputs:
            parts.append(
                "Each with its text, file and line is in the tables below `quarantine/`, in the "
                "folder of the stage."
            )
    else:
        parts.append("Nothing.")
    parts += ["## Samples", *_samples(folder)]
    return "\n\n".join(parts) + "\n"


def _checks(checks: Mapping[str, int]) -> list[str]:
    """What the requirements are worth: how many of them one who copies would meet."""
    if not (turns := checks.get("turns")):
        return []
    copied, before = (
        checks.get(f"met by {what}", 0) for what in ("a copy of the prompt", "the answer before")
    )
    return [
        "## Requirements",
        f"{turns:,} turns have requirements that a machine checks, and every answer meets its own. "
        f"Who repeats the prompt would meet {100 * copied / turns:.1f} % of them, who repeats the "
        f"answer before {100 * before / turns:.1f} %.",
    ]


def _sorted(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _direction(direction: str) -> str:
    source, _, target = direction.partition(">")
    return name_of(source) if source == target else f"{name_of(source)} → {name_of(target)}"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    numbers = {"conversations", "share", "number"}
    lines = [
        "| " + " | ".join(head) + " |",
        "|" + "|".join("--:" if name in numbers else "---" for name in head) + "|",
        *("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows),
    ]
    return "\n".join(lines)


def _samples(folder: Path) -> list[str]:
    """The first conversations of every task, one a partition."""
    found: dict[str, list[Conversation]] = {task: [] for task in TASKS}
    paths = sorted((folder / CONVERSATIONS).glob("part-*.parquet"))
    for path in paths[:: max(1, len(paths) // _LOOKED_AT)]:
        here = set()
        for row in islice(read_conversations(path), 500):
            if row.task not in here and len(found[row.task]) < _SAMPLES:
                found[row.task].append(row)
                here.add(row.task)
    parts = []
    for task, rows in found.items():
        if rows:
            parts.append(f"### {task}")
            parts += [_sample(row) for row in rows]
    return parts


def _sample(row: Conversation) -> str:
    where = f"{row.id}, {row.origin}, {_direction(f'{row.source_lang}>{row.target_lang}')}"
    lines = [f"*{where}*", ""]
    for message in row.messages:
        said = message.content
        said = said if len(said) <= _SHOWN else said[:_SHOWN] + " […]"
        quoted = "\n".join(f"> {line}" for line in said.splitlines())
        asked = ", ".join(
            f"{one.kind} {' / '.join(one.values)}".strip() for one in message.requirements
        )
        lines += [f"**{message.role}**" + (f" ({asked})" if asked else ""), "", quoted, ""]
    return "\n".join(lines)


def _picture_of_languages(manifest: Manifest, path: Path) -> None:
    by_language: dict[str, dict[str, int]] = {}
    for key, number in manifest.counts.get("answers", {}).items():
        language, _, task = key.partition("/")
        by_language.setdefault(language, {})[task] = number
    order = sorted(by_language, key=lambda tag: (-sum(by_language[tag].values()), tag))
    order = order[:_LANGUAGES]
    pyplot = _pyplot()
    figure, axis = pyplot.subplots(figsize=(8, 1.2 + 0.28 * len(order)))
    left = [0] * len(order)
    for task in TASKS:
        widths = [by_language[tag].get(task, 0) for tag in order]
        if any(widths):
            axis.barh(range(len(order)), widths, left=left, color=_COLOURS[task], label=task)
            left = [one + more for one, more in zip(left, widths, strict=True)]
    axis.set_yticks(range(len(order)), [f"{name_of(tag)} ({tag})" for tag in order])
    axis.invert_yaxis()
    axis.set_xlabel("conversations, by the language of the answer")
    axis.legend(loc="lower right", frameon=False)
    _save(figure, path)


def _picture_of_lengths(lengths: Mapping[int, int], bin_width: int, path: Path) -> None:
    pyplot = _pyplot()
    figure, axis = pyplot.subplots(figsize=(8, 3))
    starts = sorted(lengths)
    heights = [lengths[start] for start in starts]
    axis.bar(starts, heights, width=bin_width, align="edge", color="#3b6fb6")
    axis.set_xlabel("tokens of a conversation")
    axis.set_ylabel("conversations")
    _save(figure, path)


def _picture_of_dropped(dropped: Mapping[str, int], path: Path) -> None:
    rows = _sorted(dropped)
    pyplot = _pyplot()
    figure, axis = pyplot.subplots(figsize=(8, 1 + 0.3 * len(rows)))
    bars = axis.barh([why for why, _ in rows], [number for _, number in rows], color="#b65a4f")
    axis.bar_label(bars, [f" {number:,}" for _, number in rows], fontsize=9)
    axis.invert_yaxis()
    axis.margins(x=0.12)
    axis.set_xlabel("left out")
    _save(figure, path)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _save(figure: Any, path: Path) -> None:
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="x", color="#00000014")
        axis.set_axisbelow(True)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    _pyplot().close(figure)
