"""The rollout controller's RayService at a real API server, with the token of its own account.

The chart made the object and the role; the operator's part is written into the status by hand.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import pytest
from charted import Object
from cluster_server import RealServer
from ray_service_server import KEY, ServedApi, served
from releases import Releases, releases

from bayling.cluster.kubernetes_api import connect
from bayling.cluster.ray_service import FIELD_MANAGER, RayService
from bayling.errors import UserError
from bayling.serve.rollout.target import Observation

pytestmark = pytest.mark.cluster
KIND = "ray.io/v1/RayService"
_numbers = itertools.count()


def describe(shares: Mapping[str, float], leaving: Collection[str]) -> dict[str, Any]:
    """As `bayling.serve.application` does, in short."""
    engines = [{"name": f"bayling-v{one}"} for one in (*shares, *leaving)]
    return {"applications": [*engines, {"name": "bayling", "shares": dict(shares)}]}


@pytest.fixture(params=[True, False], ids=["server-side", "client-side"])
def there(real_server: RealServer, request: pytest.FixtureRequest) -> Iterator[Releases]:
    namespace = f"rollout-{next(_numbers)}"
    with releases(real_server, namespace, server_side=request.param) as made:
        made.install("serving", "serving", {})
        yield made


@pytest.fixture
def api() -> Iterator[ServedApi]:
    with served(ServedApi()) as api:
        yield api


@pytest.fixture
def target(there: Releases, api: ServedApi) -> RayService:
    return _target(there, api, "serving")


def _target(there: Releases, api: ServedApi, name: str) -> RayService:
    token = there.server.account("serving-rollout", there.namespace)
    cluster = connect(kubeconfig=str(token), granted_by="the Role of the chart `serving`")
    return RayService(cluster, name, describe, api.address, lambda: KEY, "bayling-v")


def _object(there: Releases) -> Object:
    return there.server.get(KIND, "serving", there.namespace)


def test_what_is_to_run_outlives_upgrades_and_rollbacks(
    there: Releases, target: RayService
) -> None:
    assert target.versions() == set()
    target.apply({"7": 0.5, "8": 0.5}, ("6",))
    written = _object(there)["spec"]["serveConfigV2"]
    there.upgrade("serving", "serving", {"team": "translators", "ray": {"drainSeconds": 300}})
    assert _object(there)["spec"]["serveConfigV2"] == written
    target.apply({"8": 1.0}, ())
    there.rollback("serving")
    assert _object(there)["metadata"]["labels"].get("bayling/team") is None
    assert target.versions() == {"8"}
    (field,) = [
        each["fieldsV1"]
        for each in _object(there)["metadata"]["managedFields"]
        if each["manager"] == FIELD_MANAGER
    ]
    assert field == {"f:spec": {"f:serveConfigV2": {}}}


def test_an_object_that_is_made_anew_gets_it_again(there: Releases, target: RayService) -> None:
    target.apply({"7": 1.0}, ())
    there.server.request("DELETE", f"{there.server.path(_object(there), there.namespace)}/serving")
    with pytest.raises(
        UserError, match=f"no RayService 'serving' in the namespace '{there.namespace}'"
    ):
        target.observe(None)
    there.upgrade("serving", "serving", {})
    target.observe(None)
    assert target.versions() == {"7"}


def test_the_operators_status_does_not_get_lost_in_between(
    there: Releases, target: RayService, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = 0
    read = RayService._read

    def operator_writes_after_the_look(self: RayService) -> dict[str, Any]:
        nonlocal reads
        found = read(self)
        reads += 1
        if reads == 1:
            status = {"serviceStatus": "Running"}
            there.server.patch(_object(there), {"status": status}, part="status")
        return found

    monkeypatch.setattr(RayService, "_read", operator_writes_after_the_look)
    target.apply({"7": 1.0}, ())
    assert reads == 2, "the first patch was for a state that was no more"
    assert _object(there)["status"]["serviceStatus"] == "Running"
    assert target.versions() == {"7"}


def test_what_the_operator_says_is_read(there: Releases, target: RayService) -> None:
    target.apply({"7": 0.5, "8": 0.5}, ())
    failed = {"status": "UNHEALTHY", "message": "UserError: holds no model"}
    statuses = {
        "bayling-v7": {"status": "RUNNING", "serveDeploymentStatuses": {}},
        "bayling-v8": {"status": "DEPLOY_FAILED", "serveDeploymentStatuses": {"Engine": failed}},
    }
    status = {"activeServiceStatus": {"applicationStatuses": statuses}}
    there.server.patch(_object(there), {"status": status}, part="status")
    seen = Observation.read(target.observe(None))
    assert seen.of("7").ready
    assert seen.of("8").failed == "holds no model"


def test_another_rayservice_is_not_this_controllers(there: Releases, api: ServedApi) -> None:
    there.install("serving", "second", {})
    with pytest.raises(
        UserError, match=r"serving-rollout may not get rayservices\.ray\.io .*chart"
    ):
        _target(there, api, "second").apply({"7": 1.0}, ())
