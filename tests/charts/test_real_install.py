"""Install, upgrade, roll back and uninstall, by Helm itself at a real API server.

Pods never start there, so Helm does not wait for them; its hooks are in test_real_hooks.py.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator

import pytest
from chart_values import CPUS
from charted import Object
from cluster_server import RealServer
from helm_python import HelmError
from releases import Releases, differing, releases

pytestmark = pytest.mark.cluster
POSTGRESQL = {"mlflow": {"database": {"type": "postgresql"}}}
PLATFORM: Object = {**POSTGRESQL, "ray": {"enabled": True}, "monitoring": {"enabled": True}}
SERVING: Object = {"monitoring": {"enabled": True}}
_numbers = itertools.count()


@pytest.fixture(params=[True, False], ids=["server-side", "client-side"])
def there(real_server: RealServer, request: pytest.FixtureRequest) -> Iterator[Releases]:
    """A namespace of its own, for Helm 4's way and for Helm 3's."""
    namespace = f"install-{next(_numbers)}"
    with releases(real_server, namespace, server_side=request.param) as made:
        yield made


def _merged(values: Object, change: Object) -> Object:
    made = copy.deepcopy(values)
    for key, value in change.items():
        known = made.get(key)
        nested = isinstance(known, dict) and isinstance(value, dict)
        made[key] = _merged(known, value) if nested else value
    return made


def _secrets(found: dict[str, Object]) -> dict[str, Object]:
    return {name: each["data"] for name, each in found.items() if each["kind"] == "Secret"}


def test_what_is_drawn_outlives_upgrades_and_the_release(there: Releases) -> None:
    there.install("platform", "bayling", PLATFORM)
    there.install("serving", "serving", SERVING)
    drawn = _secrets(there.objects())
    assert set(drawn) == {
        *("Secret bayling-mlflow", "Secret bayling-jobs-mlflow", "Secret bayling-postgresql"),
        *("Secret serving-keys", "Secret serving-rollout", "Secret serving-app"),
    }
    there.upgrade("platform", "bayling", {**PLATFORM, "team": "x"}, disable_hooks=True)
    there.upgrade("serving", "serving", {**SERVING, "team": "x"})
    assert _secrets(there.objects()) == drawn
    there.rollback("bayling", disable_hooks=True)
    there.rollback("serving")
    assert _secrets(there.objects()) == drawn
    there.uninstall("bayling")
    there.uninstall("serving")
    assert _secrets(there.objects()) == drawn
    # A release of the same name takes them up again.
    there.install("platform", "bayling", PLATFORM)
    there.install("serving", "serving", SERVING)
    assert _secrets(there.objects()) == drawn


@pytest.mark.parametrize(("chart", "values"), [("platform", PLATFORM), ("serving", SERVING)])
def test_an_upgrade_to_the_same_values_changes_nothing(
    there: Releases, chart: str, values: Object
) -> None:
    there.install(chart, "first", values)
    before = there.objects()
    there.upgrade(chart, "first", values, disable_hooks=True)
    assert not differing(before, there.objects())


SMALLER = {"requests": {"cpu": "100m", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "2Gi"}}
CHANGES: dict[str, list[tuple[Object, set[str]]]] = {
    "platform": [
        ({"mlflow": {"resources": SMALLER}}, {"Deployment first-mlflow"}),
        ({"postgresql": {"resources": SMALLER}}, {"StatefulSet first-postgresql"}),
        ({"quota": {"enabled": True}}, {"ResourceQuota first"}),
        ({"jobs": {"storage": {"size": "1Ti"}}}, {"ConfigMap first-jobs"}),
        ({"ray": {"head": {"resources": SMALLER}}}, {"RayCluster first-ray"}),
        ({"networkPolicy": {"clientNamespaces": ["a"]}}, {"NetworkPolicy first-mlflow"}),
        (
            {"jobs": {"submit": {"subjects": [{"kind": "User", "name": "jane"}]}}},
            {"RoleBinding first-submit"},
        ),
    ],
    # What the controller is told is no business of the Ray cluster's, which would be replaced.
    "serving": [
        ({"config": {"min_replicas": 2}}, {"Deployment first-rollout"}),
        ({"model": "bayling-13b"}, {"Deployment first-rollout"}),
        ({"controller": {"resources": SMALLER}}, {"Deployment first-rollout"}),
        ({"ray": {"workers": [{**CPUS, "maxReplicas": 2}]}}, {"RayService first"}),
        ({"networkPolicy": {"apiFrom": []}}, {"NetworkPolicy first-ray"}),
        ({"monitoring": {"interval": "5s"}}, {"PodMonitor first"}),
    ],
}


@pytest.mark.parametrize(("chart", "values"), [("platform", PLATFORM), ("serving", SERVING)])
def test_an_upgrade_changes_what_its_values_say_and_a_rollback_takes_it_back(
    there: Releases, chart: str, values: Object
) -> None:
    there.install(chart, "first", values)
    before = _specified(there)
    there.upgrade(chart, "first", values, disable_hooks=True)
    for change, changed in CHANGES[chart]:
        there.upgrade(chart, "first", _merged(values, change), disable_hooks=True)
        assert differing(before, _specified(there)) == changed
    there.rollback("first", disable_hooks=True)
    assert differing(before, _specified(there)) == CHANGES[chart][-2][1]


def _specified(there: Releases) -> dict[str, Object]:
    """What is there, without what counts the changes and without what became of them."""
    found = {}
    for name, each in there.objects().items():
        metadata = {**each["metadata"], "generation": 0}
        found[name] = {**each, "metadata": metadata, "status": None}
    return found


@pytest.mark.parametrize(("chart", "values"), [("platform", PLATFORM), ("serving", SERVING)])
def test_labels_and_the_team_can_be_changed(there: Releases, chart: str, values: Object) -> None:
    there.install(chart, "first", values)
    # Selectors and a StatefulSet's claims are for ever: labels must not be in them.
    labels = {"team": "translators", "commonLabels": {"example.com/cost": "nlp"}}
    there.upgrade(chart, "first", {**values, **labels}, disable_hooks=True)
    for name, each in there.objects().items():
        if "helm.sh/chart" in each["metadata"].get("labels", {}):
            assert each["metadata"]["labels"]["bayling/team"] == "translators", name


def test_what_cannot_be_changed_is_refused_and_the_next_upgrade_goes_through(
    there: Releases,
) -> None:
    there.install("platform", "first", POSTGRESQL)
    larger = _merged(POSTGRESQL, {"postgresql": {"persistence": {"size": "99Gi"}}})
    with pytest.raises(HelmError, match=r"StatefulSet.*Forbidden: updates to statefulset spec"):
        there.upgrade("platform", "first", larger, disable_hooks=True)
    there.upgrade("platform", "first", POSTGRESQL, disable_hooks=True)


def test_releases_stand_side_by_side(there: Releases, real_server: RealServer) -> None:
    there.install("platform", "first", POSTGRESQL)
    there.install("serving", "first-serving", {"mlflow": {"platform": "first"}})
    before = there.objects()
    there.install("platform", "second", POSTGRESQL)
    there.install("serving", "second-serving", {"mlflow": {"platform": "second"}})
    found = there.objects()
    assert not differing(before, {name: found[name] for name in before})
    passwords = [str(data) for data in _secrets(found).values()]
    assert len(passwords) == len(set(passwords)) == 12
    for each in found.values():
        labels = each["metadata"].get("labels", {})
        if instance := labels.get("app.kubernetes.io/instance"):
            assert each["metadata"]["name"].startswith(instance)
    other = f"{there.namespace}-other"
    with releases(real_server, other, server_side=there.server_side) as elsewhere:
        elsewhere.install("platform", "first", POSTGRESQL)
        theirs = elsewhere.objects()
        assert _secrets(theirs).keys() < _secrets(found).keys()
        assert all(found[name]["data"] != data for name, data in _secrets(theirs).items())
        there.uninstall("first")
        assert not differing(theirs, elsewhere.objects())
    left = there.objects()
    assert {name for name in found if "second" in name} <= left.keys()
    assert not [name for name in left if name.startswith("Deployment first-mlflow")]


def test_an_uninstalled_release_leaves_its_data_and_what_opens_it(there: Releases) -> None:
    there.install("platform", "bayling", {"ray": {"enabled": True}, "quota": {"enabled": True}})
    there.uninstall("bayling")
    claim = "PersistentVolumeClaim bayling-mlflow"
    left = {"Secret bayling-mlflow", "Secret bayling-jobs-mlflow", claim}
    assert there.objects().keys() == left
    # To be rid of them: docs/operations.md.
    for name, each in there.objects().items():
        assert each["metadata"]["labels"]["app.kubernetes.io/instance"] == "bayling", name
    there.install("platform", "bayling", {"mlflow": {"persistence": {"keep": False}}})
    there.install("serving", "serving", {})
    there.uninstall("bayling")
    there.uninstall("serving")
    keys = {"Secret serving-keys", "Secret serving-rollout", "Secret serving-app"}
    assert there.objects().keys() == left - {claim} | keys


def test_numbers_of_workers_are_the_autoscalers(there: Releases) -> None:
    values: Object = {"ray": {"enabled": True}}
    there.install("platform", "first", values)
    cluster = _ray_cluster(there)
    groups = cluster["spec"]["workerGroupSpecs"]
    groups[0]["replicas"] = 3
    there.server.patch(cluster, {"spec": {"workerGroupSpecs": groups}}, manager="autoscaler")
    change = {**values, "quota": {"enabled": True}}
    if there.server_side:
        # A list of the CRD's belongs to one writer as a whole. docs/operations.md has the way out.
        with pytest.raises(HelmError, match=r'conflict with "autoscaler".*workerGroupSpecs'):
            there.upgrade("platform", "first", change)
        there.upgrade("platform", "first", change, force_conflicts=True)
    else:
        there.upgrade("platform", "first", change)
        assert _ray_cluster(there)["spec"]["workerGroupSpecs"][0]["replicas"] == 3
    assert "ResourceQuota first" in there.objects()


def _ray_cluster(there: Releases) -> Object:
    return there.server.get("ray.io/v1/RayCluster", "first-ray", there.namespace)
