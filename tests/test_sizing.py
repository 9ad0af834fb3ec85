"""The table of sizes in the documentation is what `bayling plan` says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bayling import plan
from bayling.config import compose
from bayling.train.config import Offload

_TABLE = Path(__file__).parents[1] / "docs" / "kubernetes.md"
_ROW = re.compile(
    r"\| `(?P<recipe>[\w-]+)` \| (?P<weights>all|adapters) \| (?P<gpu>\S+) \| (?P<gpus>\d+) "
    r"\| (?P<zero>\d) \| (?P<memory>\d+) GiB \| (?P<hours>\d+) \| (?P<disk>\d+) GiB \|"
)
_ROWS = [row.groupdict() for row in _ROW.finditer(_TABLE.read_text("utf-8"))]


def test_the_table_has_every_size_of_model() -> None:
    assert {row["recipe"] for row in _ROWS} == {"bayling-2-7b", "bayling-2-8b", "bayling-2-13b"}
    assert len(_ROWS) == 18


@pytest.mark.parametrize("row", _ROWS, ids=lambda row: " ".join(list(row.values())[:3]))
def test_a_row_is_what_the_plan_says(row: dict[str, str]) -> None:
    overrides = [
        f"recipe={row['recipe']}",
        "scale=cluster",
        f"scale.gpu={row['gpu']}",
        f"scale.workers={row['gpus']}",
        "scale.min_workers=null",
        "data.conversations=3200000",
    ]
    if row["weights"] == "adapters":
        overrides.append("train=lora")
    made = plan.make(compose(overrides))
    run = made.runs[0]
    assert made.layout.offload_optimizer is made.layout.offload_parameters is Offload.none
    assert {
        "zero": str(made.layout.zero_stage),
        "memory": f"{run.memory.total / 2**30:.0f}",
        "hours": f"{run.gpu_hours:.0f}",
        "disk": f"{made.disk_bytes / 2**30:.0f}",
    }.items() <= row.items()
