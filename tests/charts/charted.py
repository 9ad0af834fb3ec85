"""Charts as tests see them: rendered with values, as a list of objects."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from chart_values import VALUES
from helm_python import Chart, _native

ROOT = Path(__file__).resolve().parents[2]
CHARTS = ROOT / "charts"
KUBERAY = "ray.io/v1"
PROMETHEUS = (
    "monitoring.coreos.com/v1/ServiceMonitor",
    "monitoring.coreos.com/v1/PodMonitor",
    "monitoring.coreos.com/v1/PrometheusRule",
)
GATEWAY = "gateway.networking.k8s.io/v1"

Object = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A chart with one set of values."""

    chart: str
    values: str

    def __str__(self) -> str:
        return f"{self.chart}-{self.values}"


CASES = [Case(chart, values) for chart in VALUES for values in VALUES[chart]]


@functools.cache
def chart(name: str) -> Chart:
    """The chart in charts/NAME."""
    return Chart.load(CHARTS / name)


def files(
    name: str,
    values: Object,
    *,
    release: str = "first",
    namespace: str = "ml",
    apis: tuple[str, ...] = (KUBERAY, GATEWAY, *PROMETHEUS),
) -> dict[str, str]:
    """Template → text, in a cluster that knows these APIs beside Kubernetes' own.

    The package's own `render` cannot be told of APIs; the library below it can.
    """
    options = {"name": release, "namespace": namespace, "api_versions": list(apis)}
    text = _native.call_string(
        "helm_render", chart(name)._raw(), json.dumps(values), json.dumps(options)
    )
    return dict(json.loads(text))


def objects(name: str, values: Object, **where: Any) -> list[Object]:
    """What the chart would create with these values, hooks included."""
    found = []
    for path, text in files(name, values, **where).items():
        if path.endswith((".yaml", ".yml")):
            found += [each for each in yaml.load_all(text, yaml.CSafeLoader) if each]
    return found


@functools.cache
def _objects_of(case: Case) -> list[Object]:
    return objects(case.chart, VALUES[case.chart][case.values])


def objects_of(case: Case) -> list[Object]:
    """What a case creates; rendered once."""
    return _objects_of(case)


def one(found: list[Object], kind: str, name: str) -> Object:
    """The object of this kind and name."""
    (only,) = [o for o in found if o["kind"] == kind and o["metadata"]["name"] == name]
    return only


def called(thing: Object) -> str:
    """Kind and name, for messages."""
    return f"{thing['kind']} {thing['metadata']['name']}"
