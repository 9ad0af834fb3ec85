"""All figures as one table, for a spreadsheet."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

_COLUMNS = (
    "system",
    "suite",
    "kind",
    "group",
    "source_lang",
    "target_lang",
    "figure",
    "value",
    "low",
    "high",
    "items",
)


def write(path: Path, result: dict[str, Any]) -> None:
    """One row for each system, suite, group and figure of `scores.json`."""
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(_COLUMNS)
        for system, suites in result["systems"].items():
            for suite, scored in suites.items():
                for group, known in scored["groups"].items():
                    kind = known.get("kind", "")
                    if kind == "direction" and known["zero_shot"]:
                        kind = "zero-shot direction"
                    about = [known.get(key, "") for key in ("source_lang", "target_lang")]
                    for figure, one in known["figures"].items():
                        numbers = [round(one[key], 4) for key in ("value", "low", "high")]
                        row = [system, suite, kind, group, *about, figure, *numbers, one["items"]]
                        rows.writerow(row)
