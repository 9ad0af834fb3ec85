"""Every figure in a dashboard exists: in docs/metrics.md, in Ray, or in MLflow's exporter."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from charted import CHARTS, ROOT, objects

pytestmark = pytest.mark.unit

# What MLflow shows at /metrics with --expose-prometheus, beside its exporter's own.
MLFLOW = {"mlflow_http_request_total", "mlflow_http_request_duration_seconds"}
DASHBOARDS = sorted((CHARTS / "platform" / "files" / "dashboards").glob("*.json"))


def _queries(dashboard: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]] + [
        variable["query"]["query"]
        for variable in dashboard["templating"]["list"]
        if variable["type"] == "query"
    ]


def _known() -> set[str]:
    documented = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    ours = set(re.findall(r"^\| `(bayling_\w+)`", documented, re.MULTILINE))
    spec = find_spec("ray")
    assert spec and spec.origin
    panels = Path(spec.origin).parent / "dashboard" / "modules" / "metrics" / "dashboards"
    rays = {
        name
        for path in panels.glob("*_panels.py")
        for name in re.findall(r"\bray_\w+(?=\{)", path.read_text(encoding="utf-8"))
    }
    return ours | rays | MLFLOW


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_every_figure_exists(path: Path) -> None:
    dashboard = json.loads(path.read_text(encoding="utf-8"))
    known = _known()
    used = {
        name
        for query in _queries(dashboard)
        for name in re.findall(r"\b((?:bayling|ray|mlflow)_\w+)[{\[]", query)
        + re.findall(r"label_values\((\w+)", query)
    }
    assert used
    parts = re.compile("_(bucket|sum|count)$")
    assert not {name for name in used if not {name, parts.sub("", name)} & known}


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_panels_have_places_and_numbers_of_their_own(path: Path) -> None:
    panels = json.loads(path.read_text(encoding="utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({(p["gridPos"]["x"], p["gridPos"]["y"]) for p in panels}) == len(panels)


def test_dashboards_arrive_as_they_are() -> None:
    values = {"monitoring": {"dashboards": {"enabled": True}}}
    maps = [o for o in objects("platform", values) if "dashboard" in o["metadata"]["name"]]
    arrived = {name: text for each in maps for name, text in each["data"].items()}
    assert set(arrived) == {f"bayling-{path.name}" for path in DASHBOARDS}
    for path in DASHBOARDS:
        assert json.loads(arrived[f"bayling-{path.name}"]) == json.loads(path.read_text("utf-8"))
    assert all(each["metadata"]["labels"]["grafana_dashboard"] == "1" for each in maps)
