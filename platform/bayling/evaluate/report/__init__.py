"""What an evaluation found, for people: a page that stands alone, plots and a table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bayling.evaluate.report import page, plots, table
from bayling.evaluate.suite import Row


def write(
    folder: Path, result: dict[str, Any], answered: Mapping[str, Mapping[str, list[Row]]]
) -> list[Path]:
    """Write `scores.html`, `scores.csv` and the plots below `folder`; returns their paths.

    Args:
        result: as it lies in `scores.json`.
        answered: system → suite → answered rows, for examples.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures = plots.write(folder, result)
    html = folder / "scores.html"
    html.write_text(page.render(result, answered, pictures), "utf-8")
    rows = folder / "scores.csv"
    table.write(rows, result)
    return [html, rows, *pictures.values()]
