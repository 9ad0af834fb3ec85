"""What a person reads: one page with the scores, a heat map, and a table for spreadsheets."""

from __future__ import annotations

import base64
import csv
import html
import io
from pathlib import Path
from typing import Any

from bayling.languages import name_of

ZERO_SHOT = "zero-shot"
_COLUMNS = ("chrf", "bleu", "exact_match", "off_target", "sentences")
_TITLES = {
    "chrf": "chrF++",
    "bleu": "BLEU",
    "exact_match": "exact",
    "off_target": "off target",
    "sentences": "sentences",
}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem;
       color: #1c2330; background: #fff }
table { border-collapse: collapse; margin: 1rem 0 } img { max-width: 100% }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #dde }
th:first-child, td:first-child { text-align: left }
tr.zero td:first-child::after { content: " zero-shot"; color: #8a5a00; font-size: .8em }
.overall td { font-weight: 600 } small { color: #667 }
"""


def write(folder: Path, scores: dict[str, Any], languages: list[str]) -> list[Path]:
    """Write `scores.html`, `scores.csv` and `heatmap.png` below `folder`; returns their paths.

    Args:
        scores: what `run.scores_of` made, for the systems `trained` and `untrained`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    picture = folder / "heatmap.png"
    heat_map(scores, languages, picture)
    page = folder / "scores.html"
    page.write_text(_page(scores, picture), "utf-8")
    table = folder / "scores.csv"
    _table(scores, table)
    return [page, picture, table]


def heat_map(scores: dict[str, Any], languages: list[str], path: Path) -> None:
    """chrF++ source × target, the trained model beside the untrained; zero-shot cells hatched."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.patches import Patch, Rectangle

    systems = [name for name in ("trained", "untrained") if name in scores]
    size = max(4.2, 0.62 * len(languages) + 1.6)
    figure, axes = pyplot.subplots(
        1, len(systems), figsize=(size * len(systems), size + 0.6), squeeze=False
    )
    small = {"fontsize": 8 if len(languages) <= 12 else 5}
    for axis, system in zip(axes[0], systems, strict=True):
        rows = {
            (row["source_lang"], row["target_lang"]): row for row in scores[system]["directions"]
        }
        axis.set_xlim(-0.5, len(languages) - 0.5)
        axis.set_ylim(len(languages) - 0.5, -0.5)
        colours = pyplot.get_cmap("RdYlGn")
        for y, source in enumerate(languages):
            for x, target in enumerate(languages):
                row = rows.get((source, target))
                corner = (x - 0.5, y - 0.5)
                if row is None:
                    axis.add_patch(Rectangle(corner, 1, 1, color="#f0f0f2"))
                    continue
                style = {"hatch": "///", "edgecolor": "#00000038"} if row["zero_shot"] else {}
                shade = {"facecolor": colours(row["chrf"] / 100), "edgecolor": "white"}
                axis.add_patch(Rectangle(corner, 1, 1, **{**shade, **style}))
                # The ends of the scale are too dark for black digits.
                ink = "white" if row["chrf"] < 12 or row["chrf"] > 88 else "black"
                axis.text(x, y, f"{row['chrf']:.0f}", ha="center", va="center", color=ink, **small)
        axis.set_xticks(range(len(languages)), languages)
        axis.set_yticks(range(len(languages)), languages)
        axis.set_xlabel("target")
        axis.set_ylabel("source")
        axis.set_aspect("equal")
        axis.tick_params(length=0)
        for spine in axis.spines.values():
            spine.set_visible(False)
        overall = scores[system]["overall"]
        axis.set_title(f"{system} model: chrF++ {overall['chrf']:.1f} on trained directions")
    hatched = Patch(
        facecolor="white", edgecolor="#777", hatch="///", label="zero-shot: never trained"
    )
    figure.legend(handles=[hatched], loc="lower center", frameon=False)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _page(scores: dict[str, Any], picture: Path) -> str:
    encoded = base64.b64encode(picture.read_bytes()).decode()
    trained, untrained = scores["trained"], scores["untrained"]
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width'><title>Evaluation</title>",
        f"<style>{_STYLE}</style><h1>Evaluation on held-out values</h1>",
        "<p>No date, amount, quantity or list below occurs in training in any language. "
        "<b>Zero-shot</b> directions were never trained at all: they have neither English nor "
        "Chinese on one side.</p>",
        "<table><tr><th>system and directions</th>" + _head() + "</tr>",
    ]
    for system, result in (("trained", trained), ("untrained", untrained)):
        for group, title in (
            ("overall", "trained directions"),
            ("zero_shot", "zero-shot directions"),
        ):
            if result.get(group):
                parts.append(_row(f"{system} model, {title}", result[group], "overall"))
    parts.append("</table>")
    if trained["interactive"]:
        met = trained["interactive"]
        before = untrained["interactive"]["interactive_satisfaction"]
        parts.append(
            "<h2>Interactive translation</h2><p>Requirements met in "
            f"<b>{met['interactive_satisfaction']:.0%}</b> of the turns (untrained: {before:.0%}): "
            f"first turns {met['interactive_first_turn']:.0%}, refinements "
            f"{met['interactive_later_turns']:.0%}; {met['interactive_conversations_met']:.0%} of "
            f"the conversations meet every one; {met['interactive_exact']:.0%} of the answers are "
            "the true one.</p>"
        )
    parts.append(
        "<h2>Source × target</h2><img alt='chrF++ of every direction' "
        f"src='data:image/png;base64,{encoded}'>"
    )
    parts.append("<h2>Languages</h2><table><tr><th>trained model</th>" + _head() + "</tr>")
    for tag, row in trained["into"].items():
        parts.append(_row(f"into {name_of(tag)} ({tag})", row))
    for tag, row in trained["from"].items():
        parts.append(_row(f"from {name_of(tag)} ({tag})", row))
    parts.append("</table><h2>Directions, the weakest first</h2><table><tr><th>trained model</th>")
    parts.append(_head() + "</tr>")
    for row in sorted(trained["directions"], key=lambda item: item["chrf"]):
        title = f"{row['source_lang']} → {row['target_lang']}"
        parts.append(_row(title, row, "zero" if row["zero_shot"] else ""))
    parts.append("</table><h2>What went wrong</h2><table><tr><th>source</th><th>answer</th>")
    parts.append("<th>right</th></tr>")
    for row in trained["worst"]:
        cells = "".join(f"<td>{html.escape(row[key])}" for key in ("source", "output", "target"))
        direction = f"{row['source_lang']} → {row['target_lang']}"
        parts.append(f"<tr title='{direction}'>{cells}</tr>")
    parts.append("</table>")
    return "\n".join(parts) + "\n"


def _head() -> str:
    return "".join(f"<th>{_TITLES[column]}</th>" for column in _COLUMNS)


def _row(title: str, row: dict[str, Any], style: str = "") -> str:
    cells = "".join(f"<td>{_cell(column, row[column])}</td>" for column in _COLUMNS)
    return f"<tr class='{style}'><td>{html.escape(title)}</td>{cells}</tr>"


def _cell(column: str, value: float) -> str:
    if column == "sentences":
        return str(int(value))
    return f"{value:.1f}" if column in ("chrf", "bleu") else f"{value:.0%}"


def _table(scores: dict[str, Any], path: Path) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["system", "source", "target", "kind", *_COLUMNS])
    for system in ("trained", "untrained"):
        for row in scores[system]["directions"]:
            kind = ZERO_SHOT if row["zero_shot"] else "trained"
            cells = [round(row[column], 4) for column in _COLUMNS]
            writer.writerow([system, row["source_lang"], row["target_lang"], kind, *cells])
    path.write_text(buffer.getvalue(), "utf-8")
