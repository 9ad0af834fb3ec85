"""Every chart with every set of values: well formed, and understood by Kubernetes and KubeRay."""

from __future__ import annotations

import json
import os
import time
from typing import Any

import pytest
from chart_values import VALUES
from charted import CASES, CHARTS, KUBERAY, Case, called, chart, files, objects, objects_of
from crds import validator
from helm_python import Config, lint
from kubernetes_validate import latest_version, validate

OLDEST = "1.30"
NOWHERE = """
apiVersion: v1
kind: Config
clusters: [{name: nowhere, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: nobody, user: {}}]
contexts: [{name: nowhere, context: {cluster: nowhere, user: nobody}}]
current-context: nowhere
"""

every_case = pytest.mark.parametrize("case", CASES, ids=str)


def test_every_chart_has_sets_of_values() -> None:
    assert {path.parent.name for path in CHARTS.glob("*/Chart.yaml")} == set(VALUES)
    assert all(len(sets) >= 12 for sets in VALUES.values())


@pytest.mark.parametrize("name", VALUES)
def test_lint_finds_nothing(name: str) -> None:
    report = lint(CHARTS / name, {}, strict=True, kube_version=f"v{OLDEST}.0")
    assert not report["errors"]
    # An icon is for catalogues, in which the chart is not.
    assert [m for m in report["messages"] if "icon" not in m["error"]] == []


@every_case
def test_lint_finds_nothing_with_these_values(case: Case) -> None:
    _needs_no_kuberay(case)
    values = VALUES[case.chart][case.values]
    assert not lint(CHARTS / case.chart, values, strict=True)["errors"]


@every_case
def test_it_could_be_installed(case: Case) -> None:
    _needs_no_kuberay(case)
    values = VALUES[case.chart][case.values]
    with Config(kubeconfig_content=NOWHERE, storage_driver="memory", namespace="ml") as config:
        release = config.install(
            str(CHARTS / case.chart), "first", values, namespace="ml", dry_run="client"
        )
    assert release["manifest"]


def _needs_no_kuberay(case: Case) -> None:
    if any(each["apiVersion"] == KUBERAY for each in objects_of(case)):
        pytest.skip("neither lint nor a dry run on the client can be told that KubeRay is there")


@every_case
def test_kubernetes_knows_every_field(case: Case) -> None:
    for each in objects_of(case):
        group = each["apiVersion"].partition("/")[0]
        if group in ("ray.io", "monitoring.coreos.com", "gateway.networking.k8s.io"):
            continue
        for version in (OLDEST, latest_version()):
            validate(each, version, strict=True)


@every_case
def test_kuberay_knows_every_field(case: Case) -> None:
    folder = os.environ.get("BAYLING_CRD_DIR")
    if not folder:
        pytest.skip("BAYLING_CRD_DIR is not set")
    for each in objects_of(case):
        if each["apiVersion"] == KUBERAY:
            validator(folder, each["kind"]).validate(each)


@pytest.mark.parametrize("name", VALUES)
def test_a_release_may_be_called_what_yaml_takes_for_something_else(name: str) -> None:
    for each in objects(name, {}, release="on", namespace="2024"):
        labels = each["metadata"].get("labels", {})
        assert labels.get("app.kubernetes.io/instance") == "on", called(each)
        assert isinstance(each["metadata"]["name"], str), called(each)
        if not each["apiVersion"].startswith("ray.io"):
            validate(each, latest_version(), strict=True)


@every_case
def test_it_renders_in_under_a_second(case: Case) -> None:
    chart(case.chart)
    began = time.perf_counter()
    files(case.chart, VALUES[case.chart][case.values])
    assert time.perf_counter() - began < 1


@every_case
def test_names_fit_and_are_given_once(case: Case) -> None:
    names = [(e["apiVersion"], e["kind"], e["metadata"]["name"]) for e in objects_of(case)]
    assert len(names) == len(set(names))
    for each in objects_of(case):
        limit = 47 if each["apiVersion"] == KUBERAY else 63
        assert len(each["metadata"]["name"]) <= limit, called(each)
        assert "namespace" not in each["metadata"], called(each)


@pytest.mark.parametrize("name", VALUES)
def test_the_schema_is_closed(name: str) -> None:
    schema = json.loads((CHARTS / name / "values.schema.json").read_text(encoding="utf-8"))
    _closed(schema, name)


def _closed(schema: Any, where: str) -> None:
    for key, value in schema.get("properties", {}).items():
        _closed(value, f"{where}.{key}")
    for key, value in schema.get("$defs", {}).items():
        _closed(value, f"{where}.{key}")
    if "properties" in schema:
        assert schema["additionalProperties"] is False, where
