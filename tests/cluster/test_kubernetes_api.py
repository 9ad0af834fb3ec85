"""What the API server refuses, as sentences; and kubeconfigs that cannot be used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from api_server import ApiServer, forbidden, kubeconfig, serving, status

from bayling.cluster import kubernetes_api, kubernetes_jobs
from bayling.cluster.kubernetes_api import Cluster, Unreachable, connect, patiently
from bayling.errors import UserError
from bayling.pods import KubernetesConfig

pytestmark = pytest.mark.unit


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with serving() as server:
        yield server


@pytest.fixture
def cluster(api: ApiServer, tmp_path: Path) -> Cluster:
    return connect(kubeconfig=str(kubeconfig(api, tmp_path)), granted_by="the Role b-submit")


def test_the_namespace_is_the_contexts_unless_one_is_given(api: ApiServer, tmp_path: Path) -> None:
    path = str(kubeconfig(api, tmp_path))
    assert connect(kubeconfig=path).namespace == "ml"
    assert connect(kubeconfig=path, namespace="other").namespace == "other"


@pytest.mark.parametrize(
    ("code", "body", "sentence"),
    [
        (401, status(401, "Unauthorized", "Unauthorized"), "have expired"),
        (
            403,
            forbidden("list", "rayjobs", "ray.io"),
            "jane may not list rayjobs.ray.io in the namespace ml: the Role b-submit grants it",
        ),
        (
            403,
            status(
                403,
                'rayjobs.ray.io is forbidden: User "system:anonymous" cannot list resource '
                '"rayjobs" in API group "ray.io" in the namespace "ml"',
            ),
            "no valid credentials",
        ),
        (404, "404 page not found\n", "KubeRay is not installed"),
        (404, status(404, 'namespaces "ml" not found', "NotFound"), "no namespace 'ml'"),
        (
            403,
            status(
                403,
                'rayjobs.ray.io "x" is forbidden: exceeded quota: jobs, requested: '
                "count/rayjobs.ray.io=1, used: count/rayjobs.ray.io=5, limited: "
                "count/rayjobs.ray.io=5",
            ),
            "the quota 'jobs' is exceeded: asked for count/rayjobs.ray.io=1, in use "
            "count/rayjobs.ray.io=5, of count/rayjobs.ray.io=5",
        ),
        (
            403,
            status(403, 'admission webhook "policy.example.com" denied the request: no tag'),
            "admission refuses the object: admission webhook",
        ),
        (422, status(422, 'RayJob.ray.io "x" is invalid: spec.entrypoint'), "refuses the object"),
    ],
)
def test_a_refusal_is_a_sentence_with_a_way_out(
    api: ApiServer, cluster: Cluster, code: int, body: dict[str, object] | str, sentence: str
) -> None:
    api.refuse.append(("GET", "rayjobs", code, body, 1))
    with pytest.raises(UserError) as raised:
        kubernetes_jobs.every(cluster)
    assert sentence in str(raised.value)
    assert raised.value.exit_code == 2


def test_a_server_that_is_busy_or_away_is_asked_again(api: ApiServer, cluster: Cluster) -> None:
    api.refuse += [
        ("GET", "rayjobs", 503, status(503, "busy"), 1),
        ("GET", "rayjobs", 429, status(429, "too many requests"), 1),
        ("GET", "rayjobs", 0, "", 1),
    ]
    notes: list[str] = []
    found = patiently(
        lambda: kubernetes_jobs.every(cluster), 60, notes.append, sleep=lambda seconds: None
    )
    assert found == [] and api.times("GET", "rayjobs") == 4
    assert len(notes) == 2 and "answers again" in notes[1]


def test_a_server_that_stays_away_is_given_up(tmp_path: Path) -> None:
    nowhere = ApiServer()
    nowhere.address = "http://127.0.0.1:9"
    gone = connect(kubeconfig=str(kubeconfig(nowhere, tmp_path)))
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:9 does not answer.*network"):
        patiently(lambda: kubernetes_jobs.every(gone), 0)


def test_a_kubeconfig_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"there is no kubeconfig at .*nowhere"):
        connect(kubeconfig=str(tmp_path / "nowhere"))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "unset"))
    with pytest.raises(UserError, match=r"unset.*KUBECONFIG"):
        connect()


def test_a_kubeconfig_that_cannot_be_used_is_named(api: ApiServer, tmp_path: Path) -> None:
    path = kubeconfig(api, tmp_path)
    with pytest.raises(UserError, match="with the context 'prod' cannot be used"):
        connect(kubeconfig=str(path), context="prod")
    path.write_text("{", "utf-8")
    with pytest.raises(UserError, match="cannot be used"):
        connect(kubeconfig=str(path))


def test_a_credential_plugin_that_fails_is_said_before_anything_is_asked(
    api: ApiServer, tmp_path: Path
) -> None:
    path = kubeconfig(api, tmp_path)
    plugin = "exec: {apiVersion: client.authentication.k8s.io/v1, command: /no/such/plugin}"
    path.write_text(path.read_text("utf-8").replace("token: t", plugin), "utf-8")
    with pytest.raises(UserError, match=r"'small' cannot be had .*log in again"):
        connect(kubeconfig=str(path))
    assert not api.calls


def test_a_release_that_is_missing_or_old_is_told(api: ApiServer, cluster: Cluster) -> None:
    assert kubernetes_jobs.installation(cluster, KubernetesConfig()).claim == "bayling-jobs"
    other = KubernetesConfig(release="other")
    assert kubernetes_jobs.installation(cluster, other).release == "bayling", "the only one"
    api.config_maps["second-jobs"] = api.config_maps["bayling-jobs"]
    with pytest.raises(UserError, match=r"no release 'other'.*are bayling, second; helm install"):
        kubernetes_jobs.installation(cluster, other)
    may_not = ("GET", r"configmaps\?", 403, forbidden("list", "configmaps"), 9)
    api.refuse.append(may_not)
    with pytest.raises(UserError, match=r"no release 'other'.*jobs\): helm install other"):
        kubernetes_jobs.installation(cluster, other)
    without = KubernetesConfig(release="other", image="r/bayling:1")
    assert kubernetes_jobs.installation(cluster, without).image == ""
    del api.config_maps["bayling-jobs"]["chart-version"]
    with pytest.raises(UserError, match="helm upgrade bayling charts/platform"):
        kubernetes_jobs.installation(cluster, KubernetesConfig())


def test_waits_grow_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    now = [0.0]
    monkeypatch.setattr(kubernetes_api.time, "monotonic", lambda: now[0])

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        now[0] += seconds

    def away() -> None:
        raise Unreachable("x")

    with pytest.raises(Unreachable):
        patiently(away, 60, sleep=sleep)
    assert pauses == [0.5, 1, 2, 4, 8, 15, 15]
