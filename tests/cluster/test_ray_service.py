"""A RayService as a target of rollouts, in front of a small API server and a small API."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from ray_service_server import (
    KEY,
    NAME,
    ApiServer,
    ServedApi,
    kubeconfig,
    ray_service,
    served,
    serving,
    status_of,
)

from bayling.cluster.kubernetes_api import Unreachable, connect
from bayling.cluster.ray_service import RayService
from bayling.errors import UserError
from bayling.serve.rollout.target import Observation

pytestmark = pytest.mark.unit

REPORT = {
    "shares": {"7": 0.75, "8": 0.25},
    "troubles": {"9": "no tokenizer"},
    "languages": {"7": ["en", "de"], "8": ["en"]},
    "ongoing": {"7": 3},
    "engines": {
        "bayling-v7": {"running": 2, "starting": 1},
        "bayling-v8": {"running": 1, "starting": 0},
    },
}


def describe(shares: Mapping[str, float], leaving: Collection[str]) -> dict[str, Any]:
    """As `bayling.serve.application` does, in short."""
    engines = [{"name": f"bayling-v{one}"} for one in (*shares, *leaving)]
    return {"applications": [*engines, {"name": "bayling", "shares": dict(shares)}]}


def app(status: str, message: str = "", engine: str = "") -> dict[str, Any]:
    part = {"status": status, "message": engine}
    return {"status": status, "message": message, "serveDeploymentStatuses": {"Engine": part}}


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with serving(ApiServer()) as server:
        yield server


@pytest.fixture
def api() -> Iterator[ServedApi]:
    with served(ServedApi()) as api:
        yield api


@pytest.fixture
def target(server: ApiServer, api: ServedApi, tmp_path: Path) -> RayService:
    cluster = connect(
        kubeconfig=str(kubeconfig(server, tmp_path)), granted_by="the Role of the chart `serving`"
    )
    return RayService(cluster, NAME, describe, api.address, lambda: KEY, "bayling-v")


def test_what_is_to_run_is_written_into_the_object_once(
    target: RayService, server: ApiServer
) -> None:
    assert target.versions() == set()
    target.apply({"7": 1.0}, ())
    assert server.config() == describe({"7": 1.0}, ())
    assert server.patched_as == "application/merge-patch+json"
    assert server.there is not None
    assert server.there["spec"]["rayClusterConfig"] == ray_service()["spec"]["rayClusterConfig"]
    target.apply({"7": 1.0}, ())
    assert len(server.patches) == 1, "nothing has changed"
    target.apply({"7": 0.5, "8": 0.5}, ("6",))
    assert target.versions() == {"6", "7", "8"}


def test_a_conflict_is_looked_at_again_and_retried(target: RayService, server: ApiServer) -> None:
    writers = iter(range(2))

    def kuberay_writes() -> None:
        if next(writers, None) is not None:
            server.touch(observedGeneration=1)

    server.before_patch = kuberay_writes
    target.apply({"7": 1.0}, ())
    assert server.config() == describe({"7": 1.0}, ())
    assert server.there is not None and server.there["status"] == {"observedGeneration": 1}
    assert len(server.patches) == 1


def test_what_cannot_be_written_is_a_sentence(target: RayService, server: ApiServer) -> None:
    server.there = None
    with pytest.raises(UserError, match="no RayService 'champion' in the namespace 'ml'"):
        target.apply({"7": 1.0}, ())
    server.there = ray_service()
    refusal = (
        'rayservices.ray.io "champion" is forbidden: User "system:serviceaccount:ml:rollout" '
        'cannot patch resource "rayservices" in API group "ray.io" in the namespace "ml"'
    )
    server.instead = [server.get(), status_of(403, refusal)]
    with pytest.raises(UserError, match=r"may not patch rayservices\.ray\.io .* the chart"):
        target.apply({"7": 1.0}, ())
    server.instead = [None]
    with pytest.raises(Unreachable, match="does not answer"):
        target.apply({"7": 1.0}, ())
    # Gone and made anew between the look and the patch.
    server.instead = [server.get(), status_of(410, "gone"), server.get()]
    with pytest.raises(Exception, match="410"):
        target.apply({"7": 1.0}, ())
    server.instead = []
    target.apply({"7": 1.0}, ())
    assert server.config() == describe({"7": 1.0}, ())


def test_what_runs_is_told_by_status_and_api_together(
    target: RayService, server: ApiServer, api: ServedApi
) -> None:
    api.report = REPORT
    server.touch(
        activeServiceStatus={
            "applicationStatuses": {
                "bayling": app("RUNNING"),
                "bayling-v7": app("RUNNING"),
                "bayling-v8": app("DEPLOYING"),
                "bayling-v9": app("DEPLOY_FAILED", engine="UserError: holds no model"),
            }
        }
    )
    seen = Observation.read(target.observe(17.0))
    assert seen.shares == {"7": 0.75, "8": 0.25}
    seven, eight, nine = (seen.of(version) for version in "789")
    assert (seven.running, seven.starting, seven.ready, seven.ongoing) == (2, 1, True, 3)
    assert (eight.running, eight.ready, eight.languages) == (1, True, ("en",))
    assert (nine.running, nine.ready, nine.failed) == (0, False, "holds no model")
    assert api.since == [17.0]
    assert seen.no_traffic is None


def test_an_api_that_is_away_hides_neither_engines_nor_failures(
    target: RayService, server: ApiServer
) -> None:
    # Before the first cluster has the traffic.
    server.touch(
        pendingServiceStatus={
            "applicationStatuses": {
                "bayling-v7": app("RUNNING"),
                "bayling-v8": app("UNHEALTHY", "replicas keep dying"),
            }
        }
    )
    seen = Observation.read(target.observe(0.0))
    assert seen.shares is None
    assert seen.of("7").ready and seen.of("7").ongoing is None
    assert seen.of("8").failed == "replicas keep dying"
    assert seen.no_traffic is not None and "no replica" in seen.no_traffic


def test_what_was_lost_is_put_back(target: RayService, server: ApiServer) -> None:
    target.apply({"7": 1.0}, ())
    server.there = ray_service()  # deleted, and installed again
    target.observe(None)
    assert server.config() == describe({"7": 1.0}, ())


def test_a_hand_written_config_names_no_versions(target: RayService, server: ApiServer) -> None:
    assert server.there is not None
    server.there["spec"]["serveConfigV2"] = "applications: [{name: bayling-v7}]"
    assert target.versions() == set()
    target.apply({"8": 1.0}, ())
    assert target.versions() == {"8"}


def test_a_version_is_asked_as_anybody_would(target: RayService, api: ServedApi) -> None:
    assert target.ask("bayling@8", "Translate: 21 March", 64) == {"text": "21. März"}
    assert api.chats[0]["messages"] == [{"role": "user", "content": "Translate: 21 March"}]
    assert target.ask("bayling@9", "Translate", 64) == {
        "status": 404,
        "error": "there is no model bayling@9 here",
    }


def test_a_key_that_is_refused_is_told(
    server: ApiServer, api: ServedApi, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = connect(kubeconfig=str(kubeconfig(server, tmp_path)))
    stranger = RayService(cluster, NAME, describe, api.address, lambda: "bl-other", "bayling-v")
    seen = Observation.read(stranger.observe(None))
    assert seen.shares is None
    assert "the API key is not valid" in caplog.text


def test_the_config_is_json_which_is_yaml(target: RayService, server: ApiServer) -> None:
    target.apply({"7": 1.0}, ())
    assert server.there is not None
    assert json.loads(server.there["spec"]["serveConfigV2"])["applications"]
