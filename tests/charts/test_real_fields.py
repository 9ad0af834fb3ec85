"""Every object of every chart at a real API server, and every pod under the restricted standard.

Nothing is stored (`dryRun`); defaulting, validation and admission run all the same.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator

import pytest
from charted import CASES, Case, Object, called, objects_of
from cluster_server import RealServer, within
from pods import Pod, pods
from submitted import jobs_of

pytestmark = pytest.mark.cluster
every_chart = pytest.mark.parametrize("chart", ["platform", "serving"])


@pytest.fixture(scope="module")
def namespace(real_server: RealServer) -> str:
    """Labelled as docs/operations.md says."""
    for name in ("low", "high", "on", "off", "no"):
        body = {"metadata": {"name": name}, "value": 1}
        real_server.request("POST", "/apis/scheduling.k8s.io/v1/priorityclasses", body)
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    return real_server.namespace("restricted", **label)


def _cases(chart: str) -> Iterator[tuple[Case, list[Object]]]:
    for case in CASES:
        if case.chart == chart:
            found = objects_of(case)
            yield case, [*found, *jobs_of(case, found)]


def _tried(server: RealServer, found: Object, namespace: str) -> Object | str:
    """What it would be, or why it is refused."""
    from kubernetes.client import ApiException

    try:
        return server.create(found, namespace, only_try=True)
    except ApiException as error:
        return str(json.loads(error.body)["message"])


@every_chart
def test_the_server_knows_every_field_and_keeps_it(
    chart: str, real_server: RealServer, namespace: str
) -> None:
    refused: dict[str, object] = {}
    for case, found in _cases(chart):
        for each in found:
            made = _tried(real_server, each, namespace)
            # Quantities are written anew: 0.5 as 500m.
            if isinstance(made, str) or (
                each["apiVersion"] == "ray.io/v1" and not within(each["spec"], made["spec"])
            ):
                refused[f"{case}: {called(each)}"] = made
    assert not refused


@every_chart
def test_no_pod_is_refused_where_restricted_is_enforced(
    chart: str, real_server: RealServer, namespace: str
) -> None:
    refused = {}
    for case, found in _cases(chart):
        for pod in pods(found):
            made = _tried(real_server, _as_controllers_make_it(pod), namespace)
            if isinstance(made, str):
                refused[f"{case}: {pod.where}"] = made
    assert not refused


def test_restricted_is_enforced(real_server: RealServer, namespace: str) -> None:
    (first, *_) = pods(next(_cases("platform"))[1])
    pod = _as_controllers_make_it(first)
    del pod["spec"]["securityContext"]["runAsNonRoot"]
    assert 'violates PodSecurity "restricted' in str(_tried(real_server, pod, namespace))


def _as_controllers_make_it(pod: Pod) -> Object:
    """A template with what the controllers of StatefulSets and of KubeRay add to it."""
    spec = copy.deepcopy(pod.spec)
    if pod.where.startswith("StatefulSet"):
        claim = {"name": "data", "persistentVolumeClaim": {"claimName": "data-0"}}
        spec["volumes"] = [*spec["volumes"], claim]
    if pod.where.endswith(" head"):
        # A head that scales has an account of KubeRay's making.
        spec.setdefault("serviceAccountName", "of-the-autoscaler")
    metadata = {"name": "p", "labels": pod.labels, "annotations": pod.annotations}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
