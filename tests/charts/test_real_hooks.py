"""Helm's hooks at a real API server: migrations before an upgrade, and `helm test`.

Nothing runs there: a thread writes the end of the hook's Job or Pod into its status, as controllers
would, and Helm goes by that.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
from charted import Object
from cluster_server import RealServer
from helm_python import HelmError
from releases import Releases, releases

pytestmark = pytest.mark.cluster
MIGRATED: Object = {"mlflow": {"database": {"type": "postgresql"}, "workers": 1}}
MIGRATE, JOB = "batch/v1/Job", "first-mlflow-migrate"
_WITHIN_S = 30


@pytest.fixture
def there(real_server: RealServer, request: pytest.FixtureRequest) -> Iterator[Releases]:
    with releases(real_server, request.node.name.replace("_", "-")[:60].strip("-")) as made:
        yield made


@contextmanager
def _meanwhile(
    there: Releases, kind: str, name: str, act: Callable[[Object], bool]
) -> Iterator[None]:
    """Wait beside what is done for an object of a hook's.

    Args:
        act: does to it what a controller would, and says whether it is the one waited for.
    """
    from kubernetes.client import ApiException

    acted: list[bool] = []

    def work() -> None:
        until = time.monotonic() + _WITHIN_S
        while time.monotonic() < until and not any(acted):
            try:
                acted.append(act(there.server.get(kind, name, there.namespace)))
            except ApiException as error:
                if error.status != 404:
                    raise
            time.sleep(0.1)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    assert any(acted), f"{name} was never made"


def _ends(there: Releases, job: Object, *, well: bool) -> bool:
    """What the controller of Jobs writes."""
    if job.get("status", {}).get("conditions"):
        return False  # that of an attempt before
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    first, last = ("SuccessCriteriaMet", "Complete") if well else ("FailureTarget", "Failed")
    status: Object = {
        "startTime": now,
        "conditions": [
            {"type": kind, "status": "True", "reason": "Test", "lastTransitionTime": now}
            for kind in (first, last)
        ],
        **({"completionTime": now, "succeeded": 1} if well else {"failed": 1}),
    }
    there.server.patch(job, {"status": status}, part="status")
    return True


def _workers(there: Releases) -> str:
    """What of the server's pods an upgrade of these tests changes."""
    deployment = there.server.get("apps/v1/Deployment", "first-mlflow", there.namespace)
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    (found,) = [each for each in container["args"] if each.startswith("--workers=")]
    return str(found)


def test_a_migration_comes_before_the_pods_of_an_upgrade(there: Releases) -> None:
    there.install("platform", "first", MIGRATED)
    assert not there.objects().keys() & {f"Job {JOB}"}, "there is nothing to migrate"
    before: list[str] = []

    def migrate(job: Object) -> bool:
        before.append(_workers(there))
        return _ends(there, job, well=True)

    change = {"mlflow": {**MIGRATED["mlflow"], "workers": 2}}
    with _meanwhile(there, MIGRATE, JOB, migrate):
        there.upgrade("platform", "first", change, timeout_seconds=_WITHIN_S)
    assert before == ["--workers=1"]
    assert _workers(there) == "--workers=2"
    assert f"Job {JOB}" not in there.objects()


def test_a_migration_that_fails_leaves_the_pods_as_they_were(there: Releases) -> None:
    there.install("platform", "first", MIGRATED)
    change = {"mlflow": {**MIGRATED["mlflow"], "workers": 2}}

    with (
        _meanwhile(there, MIGRATE, JOB, lambda job: _ends(there, job, well=False)),
        pytest.raises(HelmError, match="pre-upgrade"),
    ):
        there.upgrade("platform", "first", change, timeout_seconds=_WITHIN_S)
    assert _workers(there) == "--workers=1"
    assert f"Job {JOB}" in there.objects(), "its log says why"
    with _meanwhile(there, MIGRATE, JOB, lambda job: _ends(there, job, well=True)):
        there.upgrade("platform", "first", change, timeout_seconds=_WITHIN_S)
    assert _workers(there) == "--workers=2"


def test_an_external_database_is_migrated_before_the_first_pods(there: Releases) -> None:
    database = {"type": "external", "external": {"existingSecret": "database"}}
    seen: list[bool] = []

    def migrate(job: Object) -> bool:
        seen.append("Deployment first-mlflow" in there.objects())
        return _ends(there, job, well=True)

    with _meanwhile(there, MIGRATE, JOB, migrate):
        there.install(
            "platform", "first", {"mlflow": {"database": database}}, timeout_seconds=_WITHIN_S
        )
    assert seen == [False]
    assert "Deployment first-mlflow" in there.objects()


@pytest.mark.parametrize("chart", ["platform", "serving"])
def test_helm_test_goes_by_the_pods_end(real_server: RealServer, chart: str) -> None:
    with releases(real_server, f"helm-test-{chart}") as there:
        there.install(chart, "first", {})

        def end(phase: str) -> Callable[[Object], bool]:
            def act(pod: Object) -> bool:
                if pod["status"]["phase"] != "Pending":
                    return False
                there.server.patch(pod, {"status": {"phase": phase}}, part="status")
                return True

            return act

        with (
            _meanwhile(there, "v1/Pod", "first-test", end("Failed")),
            pytest.raises(HelmError, match="first-test failed"),
        ):
            there.config.test("first", timeout=_WITHIN_S)
        assert "Pod first-test" in there.objects(), "its log says why"
        with _meanwhile(there, "v1/Pod", "first-test", end("Succeeded")):
            there.config.test("first", timeout=_WITHIN_S)
        assert "Pod first-test" not in there.objects()
