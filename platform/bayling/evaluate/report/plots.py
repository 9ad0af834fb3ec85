"""Plots of an evaluation, as PNG: the heat map, the languages, the differences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bayling.evaluate.report.verdicts import BETTER, WORSE, together, translation_suites
from bayling.evaluate.suite import ALL

_MOST_DIFFERENCES = 40
_GREEN, _RED, _GREY, _BLUE = "#2a7f46", "#b3372f", "#8a8f98", "#2f5fa8"


def write(folder: Path, result: dict[str, Any]) -> dict[str, Path]:
    """Write what there is something to draw of; returns name → path."""
    import matplotlib

    matplotlib.use("Agg")
    made: dict[str, Path] = {}
    for suite in translation_suites(result):
        # The first of them, usually the only one, has the plain names.
        tail = "" if not made else f"-{suite}"
        if len(directions_of(result, result["main"], suite)) > 1:
            made[f"heatmap{tail}"] = folder / f"heatmap{tail}.png"
            heat_map(result, suite, made[f"heatmap{tail}"])
            made[f"languages{tail}"] = folder / f"languages{tail}.png"
            languages(result, suite, made[f"languages{tail}"])
        if result["comparison"].get(suite):
            made[f"differences{tail}"] = folder / f"differences{tail}.png"
            differences(result, suite, made[f"differences{tail}"])
    return made


def directions_of(result: dict[str, Any], system: str, suite: str) -> list[dict[str, Any]]:
    """The directions of a suite, each with its `figures`."""
    groups = result["systems"][system].get(suite, {}).get("groups", {})
    return [known for known in groups.values() if known.get("kind") == "direction"]


def heat_map(result: dict[str, Any], suite: str, path: Path) -> None:
    """chrF++ source × target, the model beside what it is compared with; zero-shot hatched."""
    from matplotlib import pyplot
    from matplotlib.patches import Patch, Rectangle

    systems = [result["main"], *([result["baseline"]] if result["baseline"] else [])]
    rows = directions_of(result, result["main"], suite)
    tags = sorted({row[side] for row in rows for side in ("source_lang", "target_lang")})
    # The pivots first, as most directions have one of them.
    tags.sort(key=lambda tag: (tag not in ("en", "zh"), tag))
    size = max(4.2, 0.62 * len(tags) + 1.6) if len(tags) <= 30 else 0.32 * len(tags) + 2
    figure, axes = pyplot.subplots(
        1, len(systems), figsize=(size * len(systems), size + 0.6), squeeze=False
    )
    small = {"fontsize": 8 if len(tags) <= 12 else 5}
    colours = pyplot.get_cmap("RdYlGn")
    for axis, system in zip(axes[0], systems, strict=True):
        known = {
            (row["source_lang"], row["target_lang"]): row
            for row in directions_of(result, system, suite)
        }
        axis.set_xlim(-0.5, len(tags) - 0.5)
        axis.set_ylim(len(tags) - 0.5, -0.5)
        for y, source in enumerate(tags):
            for x, target in enumerate(tags):
                row = known.get((source, target))
                corner = (x - 0.5, y - 0.5)
                if row is None:
                    axis.add_patch(Rectangle(corner, 1, 1, color="#f0f0f2"))
                    continue
                chrf = row["figures"]["chrf"]["value"]
                style = {"hatch": "///", "edgecolor": "#00000038"} if row["zero_shot"] else {}
                shade = {"facecolor": colours(chrf / 100), "edgecolor": "white"}
                axis.add_patch(Rectangle(corner, 1, 1, **{**shade, **style}))
                # The ends of the scale are too dark for black digits.
                ink = "white" if chrf < 12 or chrf > 88 else "black"
                axis.text(x, y, f"{chrf:.0f}", ha="center", va="center", color=ink, **small)
        axis.set_xticks(range(len(tags)), tags, rotation=90 if len(tags) > 20 else 0)
        axis.set_yticks(range(len(tags)), tags)
        axis.set_xlabel("target")
        axis.set_ylabel("source")
        axis.set_aspect("equal")
        axis.tick_params(length=0)
        for spine in axis.spines.values():
            spine.set_visible(False)
        overall = result["systems"][system][suite]["groups"][ALL]["figures"]["chrf"]["value"]
        axis.set_title(f"{result['called'][system]}: chrF++ {overall:.1f}", fontsize=10)
    if any(row["zero_shot"] for row in rows):
        hatched = Patch(
            facecolor="white", edgecolor="#777", hatch="///", label="zero-shot: never trained"
        )
        figure.legend(handles=[hatched], loc="lower center", frameon=False)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def languages(result: dict[str, Any], suite: str, path: Path) -> None:
    """chrF++ into and from every language with 95 % intervals, beside the baseline's."""
    from matplotlib import pyplot

    systems = [result["main"], *([result["baseline"]] if result["baseline"] else [])]
    groups = result["systems"][result["main"]][suite]["groups"]
    sides = [
        (side, [group for group, known in groups.items() if known.get("kind") == side])
        for side in ("into", "from")
    ]
    sides = [(side, those) for side, those in sides if those]
    tall = max(len(those) for _, those in sides)
    figure, axes = pyplot.subplots(
        1, len(sides), figsize=(4.6 * len(sides), 1.6 + 0.3 * tall), squeeze=False
    )
    for axis, (side, those) in zip(axes[0], sides, strict=True):
        those.sort(key=lambda group: -groups[group]["figures"]["chrf"]["value"])
        for system, colour, shift in zip(systems, (_BLUE, _GREY), (-0.13, 0.13), strict=False):
            known = result["systems"][system][suite]["groups"]
            # A missing language has no interval to draw.
            placed = [(y, known[one]) for y, one in enumerate(those) if one in known]
            figures = [row["figures"]["chrf"] for _, row in placed]
            axis.errorbar(
                [one["value"] for one in figures],
                [y + shift for y, _ in placed],
                xerr=[
                    [max(0, one["value"] - one["low"]) for one in figures],
                    [max(0, one["high"] - one["value"]) for one in figures],
                ],
                fmt="o",
                color=colour,
                markersize=4,
                capsize=2,
                label=result["called"][system],
            )
        tags = [groups[one]["target_lang" if side == "into" else "source_lang"] for one in those]
        axis.set_yticks(range(len(those)), tags)
        axis.invert_yaxis()
        axis.set_xlabel(f"chrF++ {side} a language")
        axis.grid(axis="x", color="#e3e3e8")
        axis.set_axisbelow(True)
        for spine in ("top", "right", "left"):
            axis.spines[spine].set_visible(False)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncols=2, frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.5 / (1.6 + 0.3 * tall)))
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def differences(result: dict[str, Any], suite: str, path: Path) -> None:
    """What the model gained and lost in each direction against the baseline, with intervals."""
    from matplotlib import pyplot

    groups = result["systems"][result["main"]][suite]["groups"]
    compared = [
        (group, figures["chrf"])
        for group, figures in result["comparison"][suite].items()
        if groups[group].get("kind") == "direction" and "chrf" in figures
    ]
    all_of_them = len(compared)
    compared = [item for item in compared if item[1]["low"] or item[1]["high"]]
    same = all_of_them - len(compared)
    compared.sort(key=lambda item: item[1]["difference"])
    left_out = len(compared) - _MOST_DIFFERENCES
    if left_out > 0:
        half = _MOST_DIFFERENCES // 2
        compared = [*compared[:half], *compared[-half:]]
    verdicts = together(result, suite, ("direction",))
    figure, axis = pyplot.subplots(figsize=(6.4, 1.4 + 0.24 * len(compared)))
    for y, (group, one) in enumerate(compared):
        colour = {BETTER: _GREEN, WORSE: _RED}.get(verdicts[group], _GREY)
        axis.plot([one["low"], one["high"]], [y, y], color=colour, linewidth=1.6)
        axis.plot([one["difference"]], [y], "o", color=colour, markersize=4)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(range(len(compared)), [group for group, _ in compared], fontsize=8)
    axis.set_xlabel(f"chrF++ against the {result['called'][result['baseline']]}, 95 % interval")
    said = "coloured: clear, also with all directions together"
    if same:
        said += f"; {same} without any difference are left out"
    if left_out > 0:
        said += f"; so are {left_out} between"
    axis.set_title(said, fontsize=8)
    axis.grid(axis="x", color="#e3e3e8")
    axis.set_axisbelow(True)
    for spine in ("top", "right", "left"):
        axis.spines[spine].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
