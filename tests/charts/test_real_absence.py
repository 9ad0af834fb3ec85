"""At a real API server that lacks KubeRay and Prometheus' operator: what charts and jobs say."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from charted import Object
from cluster_server import assets, running
from helm_python import HelmError
from releases import Releases, releases

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Releases]:
    assets()
    with (
        running(tmp_path_factory.mktemp("bare"), bare=True) as server,
        releases(server, "bare") as made,
    ):
        yield made


@pytest.mark.parametrize(
    ("chart", "values", "sentence"),
    [
        ("serving", {}, r"KubeRay is missing: .* helm install kuberay-operator"),
        ("platform", {"ray": {"enabled": True}}, "Install the KubeRay operator 1.7 first"),
    ],
)
def test_without_kuberay_nothing_is_begun(
    there: Releases, chart: str, values: Object, sentence: str
) -> None:
    before = there.objects()
    with pytest.raises(HelmError, match=sentence):
        there.install(chart, "first", values)
    assert there.objects() == before
    assert not there.config.list(all_states=True)


def test_the_platform_asks_for_nothing_but_kubernetes(there: Releases) -> None:
    there.install("platform", "alone", {"monitoring": {"enabled": True}})
    notes = there.config.status("alone")["notes"]
    assert "helm install kuberay-operator" in notes
    assert "no monitors were created" in notes
    there.uninstall("alone")


def test_without_kuberay_a_job_is_not_submitted(
    there: Releases, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from bayling.cli import main

    there.install("platform", "bayling", {})
    kubeconfig = there.server.account("bayling-submit", there.namespace)
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    assert main(["submit", "data", "recipe=quickstart", "--no-wait"]) == 2
    assert "KubeRay is not installed" in capsys.readouterr().err
    there.uninstall("bayling")
