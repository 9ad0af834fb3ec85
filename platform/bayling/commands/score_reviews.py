"""`bayling score reviews`: wins, ties, losses and score ratios of reviews that judges wrote."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayling.errors import UserError

if TYPE_CHECKING:
    from bayling.evaluate.reviews import Review, Reviews, Unjudged

_HELP = "wins, ties, losses and score ratio of published judge reviews"
_EPILOG = """examples:
  bayling score reviews bayling-13b.vs.gpt-3.5-turbo.*.jsonl
  bayling score reviews gpt-4_pair.jsonl --json figures.json

Rows are BayLing's {question_id, question, category, system1, system2, score, result}, FastChat's
{question_id, answer1_id, answer2_id, score}, or MT-bench's {question_id, model_1, model_2,
g1_winner, g2_winner}. A win is one of the first system.
"""
_NAMED = 20
"""Unjudged rows that are named on the screen; the file of figures names all."""


def register(commands: Any) -> None:
    """Add the verb to the parsers of `bayling score`."""
    added = commands.add_parser(
        "reviews",
        help=_HELP,
        description=_HELP[0].upper() + _HELP[1:] + ".",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    added.set_defaults(work=_score)
    added.add_argument("files", nargs="+", type=Path, metavar="FILE", help="JSON lines")
    added.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")


def _score(arguments: argparse.Namespace) -> None:
    from bayling.evaluate import reviews
    from bayling.stage import write_json

    found = reviews.read(arguments.files)
    if not found.reviews:
        raise UserError(
            f"none of {len(found.unjudged)} rows is a review; the first: {found.unjudged[0]}"
        )
    result = figures(found)
    _show(result)
    if arguments.json is not None:
        try:
            write_json(arguments.json, result)
        except OSError as error:
            raise UserError(f"cannot write {arguments.json}: {error.strerror}") from None


def figures(found: Reviews) -> dict[str, Any]:
    """All figures, as they are written to a file: those of all rows, and `pairs`: those of each
    pair of systems, of its files and of its groups.

    Everywhere there are `wins`, `ties`, `losses`, `judged`, `unjudged`, and, with the ends of 95 %
    intervals in `intervals`, `win_rate`, `tie_rate`, `loss_rate`, `score_ratio` (absent
    where there are no scores) and `agreement` (of both orders; absent where there is one).
    """
    systems = dict.fromkeys(review.systems for review in found.reviews)
    return {
        **_figures(found.reviews, found.unjudged),
        "pairs": [_pair(found, names) for names in systems],
        "unjudged_rows": [str(row) for row in found.unjudged],
    }


def _pair(found: Reviews, systems: tuple[str, str]) -> dict[str, Any]:
    from bayling.evaluate.pairs import scored

    chosen = [review for review in found.reviews if review.systems == systems]
    unjudged = [row for row in found.unjudged if row.systems == systems]
    files = []
    for path in dict.fromkeys(review.path for review in chosen):
        inside = [review for review in chosen if review.path == path]
        without = [row for row in unjudged if row.path == path]
        files.append({"file": str(path), **_figures(inside, without)})
    groups = scored([review.pair for review in chosen]).as_dict()["groups"]
    result = {
        "systems": list(systems),
        **_figures(chosen, unjudged),
        "files": files,
        "groups": {
            name: {"kind": group["kind"], **_flat(group)}
            for name, group in groups.items()
            if group["kind"] != "overall"
        },
    }
    ratios = [file["score_ratio"] for file in files if "score_ratio" in file]
    if len(ratios) > 1:
        # BayLing's own summary: each of its four settings counts the same.
        result["mean_score_ratio_of_files"] = sum(ratios) / len(ratios)
    return result


def _figures(reviews: Sequence[Review], unjudged: Sequence[Unjudged]) -> dict[str, Any]:
    from bayling.evaluate.pairs import scored
    from bayling.evaluate.suite import ALL

    every = scored([review.pair for review in reviews]).as_dict()["groups"][ALL]
    return {**_flat(every), "unjudged": len(unjudged)}


def _flat(group: dict[str, Any]) -> dict[str, Any]:
    """A group of `Scored` with its figures beside its counts."""
    shown = {key: group[key] for key in ("wins", "ties", "losses", "judged")}
    for name, figure in group["figures"].items():
        shown[name] = figure["value"]
    shown["intervals"] = {
        name: [figure["low"], figure["high"]] for name, figure in group["figures"].items()
    }
    return shown


def _show(result: dict[str, Any]) -> None:
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, width=max(console.width, 150))
    for pair in result["pairs"]:
        console.print(_table(pair))
        if "mean_score_ratio_of_files" in pair:
            console.print(
                f"mean score ratio of {len(pair['files'])} files: "
                f"{pair['mean_score_ratio_of_files']:.1%}\n",
                soft_wrap=True,
            )
    rows = result["unjudged_rows"]
    if rows:
        console.print(f"not judged, and in none of the figures: {len(rows)}", soft_wrap=True)
    for row in rows[:_NAMED]:
        console.print(f"  {row}", soft_wrap=True)
    if len(rows) > _NAMED:
        console.print(f"  and {len(rows) - _NAMED} more, which --json FILE names")


def _table(pair: dict[str, Any]) -> Any:
    from rich.table import Table
    from rich.text import Text

    first, second = pair["systems"]
    table = Table(title=Text(f"{first} against {second}"), title_justify="left", box=None)
    table.add_column("", overflow="fold")
    for name in ("judged", "unjudged", "wins", "ties", "losses", "win rate"):
        table.add_column(name, justify="right")
    scores, orders = "score_ratio" in pair, "agreement" in pair
    if scores:
        table.add_column("score ratio", justify="right")
    if orders:
        table.add_column("orders agree", justify="right")
    for name, row in _rows(pair):
        cells = [f"{row[key]:,}" for key in ("judged", "unjudged", "wins", "ties", "losses")]
        cells.append(_with_interval(row, "win_rate"))
        cells += [_with_interval(row, "score_ratio")] if scores else []
        cells += [_with_interval(row, "agreement")] if orders else []
        table.add_row(Text(name), *cells)
    return table


def _rows(pair: dict[str, Any]) -> Iterable[tuple[str, dict[str, Any]]]:
    yield "all", pair
    if len(pair["files"]) > 1:
        for file in pair["files"]:
            yield Path(file["file"]).name, file
    for name, group in pair["groups"].items():
        yield name, {**group, "unjudged": 0}


def _with_interval(row: dict[str, Any], name: str) -> str:
    if name not in row:
        return "–"
    low, high = row["intervals"][name]
    return f"{row[name]:.1%} ({100 * low:.1f}–{100 * high:.1f})"
