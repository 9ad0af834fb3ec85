"""What a value does, what is refused and how, and what the README says of values."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from chart_values import VALUES
from charted import CHARTS, KUBERAY, PROMETHEUS, Object, called, files, objects, one
from helm_python import HelmError
from pods import pods


def _load_table() -> ModuleType:
    spec = importlib.util.spec_from_file_location("values_table", CHARTS / "values_table.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


values_table = _load_table()


@pytest.mark.parametrize("name", VALUES)
def test_every_value_is_in_the_readme_as_its_comment_says(name: str) -> None:
    readme = (CHARTS / name / "README.md").read_text(encoding="utf-8")
    values = (CHARTS / name / "values.yaml").read_text(encoding="utf-8")
    assert values_table.with_table(readme, values) == readme, (
        f"run: python charts/values_table.py charts/{name}"
    )


@pytest.mark.parametrize("name", VALUES)
def test_a_misspelt_key_is_refused_at_any_depth(name: str) -> None:
    values = yaml.safe_load((CHARTS / name / "values.yaml").read_text(encoding="utf-8"))
    free = {path for path, default, _ in _documented(name) if isinstance(default, dict)}
    for path in _sections(values):
        if any(".".join(path).startswith(each) for each in free):
            continue
        wrong: Any = {"mispelt": 1}
        for key in reversed(path):
            wrong = {key: wrong}
        with pytest.raises(HelmError, match="mispelt"):
            files(name, wrong)


def _documented(name: str) -> list[tuple[str, Any, str]]:
    text = (CHARTS / name / "values.yaml").read_text(encoding="utf-8")
    return list(values_table.documented(text))


def _sections(values: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _sections(value, (*path, key))


def test_a_value_without_a_comment_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"line 4: b\.c has no description"):
        list(values_table.documented("# -- An a.\na: 1\nb:\n  c: 2\n"))


EXTERNAL = {"type": "external", "external": {"existingSecret": "rds"}}
REFUSED = {
    "a name of 41 characters": (
        {"fullnameOverride": "n" * 41},
        "41 characters, and 40 is the most",
    ),
    "S3 without a bucket": ({"mlflow": {"artifacts": {"type": "s3"}}}, r"needs .*s3\.bucket"),
    "S3 that is not switched on": (
        {"mlflow": {"artifacts": {"s3": {"bucket": "b"}}}},
        "artifacts.type is volume",
    ),
    "an external database without a Secret": (
        {"mlflow": {"database": {"type": "external"}}},
        "the name of a Secret",
    ),
    "sqlite and an external database": (
        {"mlflow": {"database": {"external": {"existingSecret": "rds"}}}},
        "Two databases",
    ),
    "an external database and PostgreSQL": (
        {"mlflow": {"database": EXTERNAL}, "postgresql": {"existingSecret": "x"}},
        "Two databases",
    ),
    "replicas of sqlite": ({"mlflow": {"replicas": 2}}, "a database that pods can share"),
    "replicas with one volume": (
        {"mlflow": {"replicas": 2, "database": EXTERNAL}},
        "artifacts that pods can share",
    ),
    "accounts without authentication": (
        {"mlflow": {"auth": {"enabled": False, "existingSecret": "x"}}},
        "switch authentication on",
    ),
    "no MLflow": ({"mlflow": {"enabled": False}}, r"set jobs\.trackingUri"),
    "a queue without a name": ({"kueue": {"enabled": True}}, "set team, or kueue.queue"),
    "a queue for a cluster that grows": (
        {"team": "t", "kueue": {"enabled": True}, "ray": {"enabled": True}},
        "Set ray.autoscaling=false",
    ),
    "workers above their maximum": (
        {
            "ray": {
                "workers": [
                    {
                        "name": "cpu",
                        "replicas": 5,
                        "minReplicas": 0,
                        "maxReplicas": 4,
                        "resources": {
                            "requests": {"cpu": 1},
                            "limits": {"cpu": 1, "memory": "4Gi"},
                        },
                    }
                ]
            }
        },
        "minReplicas <= replicas <= maxReplicas, not 0, 5, 4",
    ),
    "workers without a limit of memory": (
        {
            "ray": {
                "workers": [
                    {
                        "name": "cpu",
                        "replicas": 1,
                        "minReplicas": 0,
                        "maxReplicas": 4,
                        "resources": {"requests": {"cpu": 1}, "limits": {"cpu": 1}},
                    }
                ]
            }
        },
        "memory",
    ),
    "a tag that moves": ({"image": {"tag": "latest"}}, "tag"),
    "any host": ({"mlflow": {"allowedHosts": ["*"]}}, "allowedHosts"),
    "a number as text": ({"mlflow": {"replicas": "2"}}, "replicas"),
}


@pytest.mark.parametrize(("values", "sentence"), REFUSED.values(), ids=REFUSED)
def test_it_is_refused_with_a_sentence(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(HelmError, match=sentence):
        files("platform", values)


def test_a_release_name_that_no_service_can_have_is_refused() -> None:
    for release in ("1st", "a.b"):
        with pytest.raises(HelmError, match="set fullnameOverride"):
            files("platform", {}, release=release)
        assert files("platform", {"fullnameOverride": "first"}, release=release)


def test_without_kuberay_a_ray_cluster_is_refused_at_once() -> None:
    with pytest.raises(HelmError, match="Install the KubeRay operator"):
        files("platform", {"ray": {"enabled": True}}, apis=PROMETHEUS)


def test_without_kuberay_the_notes_say_how_to_get_it() -> None:
    assert "helm install kuberay-operator" in _notes({}, apis=())
    assert "helm install kuberay-operator" not in _notes({}, apis=(KUBERAY,))


def _notes(values: dict[str, Any], **where: Any) -> str:
    (text,) = [t for path, t in files("platform", values, **where).items() if "NOTES" in path]
    return text


def test_the_notes_tell_the_next_command() -> None:
    notes = _notes({})
    assert "helm test first --namespace ml" in notes
    assert "port-forward service/first-mlflow 5000:5000" in notes
    password = '{{index .data "admin-username" | base64decode}}'
    assert password in notes
    assert "WARNING" in _notes({"mlflow": {"auth": {"enabled": False}}})
    assert "--force-conflicts" in _notes({"ray": {"enabled": True}})
    assert "--force-conflicts" not in _notes({"ray": {"enabled": True, "autoscaling": False}})


def test_monitors_need_both_the_switch_and_the_crds() -> None:
    def kinds(values: dict[str, Any], apis: tuple[str, ...]) -> set[str]:
        return {e["kind"] for e in objects("platform", values, apis=apis)}

    on = {"monitoring": {"enabled": True}}
    monitors = {"ServiceMonitor", "PodMonitor"}
    assert kinds(on, PROMETHEUS) & monitors == monitors
    assert not kinds(on, ()) & monitors
    assert not kinds({}, PROMETHEUS) & monitors
    assert "no monitors were created" in _notes(on, apis=())


@pytest.mark.parametrize("name", VALUES)
def test_two_releases_share_no_name_and_select_no_pod_of_the_other(name: str) -> None:
    values = {
        "mlflow": {"database": {"type": "postgresql"}},
        "ray": {"enabled": True, "protectHead": True},
        "quota": {"enabled": True},
        "limitRange": {"enabled": True},
        "monitoring": {"enabled": True, "dashboards": {"enabled": True}},
    }
    values = values if name == "platform" else {}
    first, second = (objects(name, values, release=release) for release in ("one", "two"))
    assert not {called(e) for e in first} & {called(e) for e in second}
    for selecting, others in ((first, second), (second, first)):
        labels = [pod.labels.items() for pod in pods(others)]
        for each in selecting:
            for selector in _own_selectors(each):
                assert not any(selector.items() <= have for have in labels), called(each)


def _own_selectors(each: Object) -> list[dict[str, str]]:
    spec = each.get("spec", {})
    if each["kind"] == "Service":
        return [spec["selector"]]
    selector = spec.get("podSelector") or spec.get("selector") or {}
    if each["kind"] in ("Deployment", "StatefulSet", "NetworkPolicy", "PodDisruptionBudget"):
        return [selector["matchLabels"]]
    return []


def test_the_namespace_is_the_releases_wherever_it_is_named() -> None:
    for namespace in ("ml", "other"):
        found = objects("platform", {}, namespace=namespace)
        config = one(found, "ConfigMap", "first-jobs")
        assert config["data"]["MLFLOW_TRACKING_URI"] == f"http://first-mlflow.{namespace}.svc:5000"
        binding = one(found, "RoleBinding", "first-submit")
        assert binding["subjects"][0]["namespace"] == namespace


def _server(values: dict[str, Any]) -> Object:
    deployment = one(objects("platform", values), "Deployment", "first-mlflow")
    server: Object = deployment["spec"]["template"]["spec"]["containers"][0]
    return server


def test_mlflow_asks_for_a_password_and_tells_nobody_of_its_use() -> None:
    server = _server({})
    environment = {e["name"]: e.get("value") for e in server["env"]}
    assert "--app-name=basic-auth" in server["args"]
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == environment["DO_NOT_TRACK"] == "true"
    assert server["readinessProbe"]["httpGet"]["path"] == "/health"


def test_mlflow_answers_to_its_names_with_and_without_a_port() -> None:
    (hosts,) = [a for a in _server({})["args"] if a.startswith("--allowed-hosts=")]
    names = hosts.partition("=")[2].split(",")
    assert "*" not in names
    for name in ("first-mlflow", "first-mlflow.ml.svc", "first-mlflow.ml.svc.cluster.local"):
        assert {name, f"{name}:5000"} <= set(names)
    more = {"mlflow": {"allowedHosts": ["mlflow.example.com"], "service": {"port": 80}}}
    (hosts,) = [a for a in _server(more)["args"] if a.startswith("--allowed-hosts=")]
    assert hosts.endswith(",mlflow.example.com")
    assert "first-mlflow.ml.svc:80" in hosts


@pytest.mark.parametrize(
    ("values", "strategy"),
    [
        ("default", "Recreate"),
        ("sqlite-s3", "Recreate"),
        ("postgresql", "Recreate"),
        ("postgresql-s3-replicas", "RollingUpdate"),
        ("external-shared-volume", "RollingUpdate"),
    ],
)
def test_an_upgrade_replaces_pods_one_by_one_only_where_two_may_run(
    values: str, strategy: str
) -> None:
    found = objects("platform", VALUES["platform"][values])
    assert one(found, "Deployment", "first-mlflow")["spec"]["strategy"]["type"] == strategy


@pytest.mark.parametrize(
    ("values", "hooks"),
    [
        ("default", None),
        ("postgresql", "pre-upgrade"),
        ("external-role", "pre-install,pre-upgrade"),
        ("external-shared-volume", None),
    ],
)
def test_migrations_are_a_hook_where_the_database_outlives_the_pod(
    values: str, hooks: str | None
) -> None:
    found = objects("platform", VALUES["platform"][values])
    jobs = [each for each in found if each["kind"] == "Job"]
    assert [j["metadata"]["annotations"]["helm.sh/hook"] for j in jobs] == (
        [hooks] if hooks else []
    )


_KEYS = ("admin-password", "flask-secret-key")


def test_what_was_drawn_at_random_is_the_same_wherever_it_is_used() -> None:
    found = objects("platform", {"mlflow": {"database": {"type": "postgresql"}}})
    secrets = [each for each in found if each["kind"] == "Secret"]
    assert {s["metadata"]["name"] for s in secrets} == {
        "first-mlflow",
        "first-jobs-mlflow",
        "first-postgresql",
    }
    for secret in secrets:
        assert secret["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    deployment = one(found, "Deployment", "first-mlflow")
    checksums = deployment["spec"]["template"]["metadata"]["annotations"]
    drawn = {key: one(found, "Secret", "first-mlflow")["data"][key] for key in _KEYS}
    text = yaml.safe_dump(drawn, width=1000).strip()
    assert checksums["checksum/accounts"] == hashlib.sha256(text.encode()).hexdigest()


def test_pods_roll_when_what_they_read_changes() -> None:
    deployment = one(objects("platform", {}), "Deployment", "first-mlflow")
    checksums = deployment["spec"]["template"]["metadata"]["annotations"]
    assert {"checksum/prepare", "checksum/accounts", "checksum/jobs"} <= set(checksums)
    assert all(re.fullmatch("[0-9a-f]{64}", value) for value in checksums.values())


def test_ray_asks_for_a_token_and_has_time_to_drain() -> None:
    found = objects("platform", VALUES["platform"]["ray-gpus"])
    cluster = one(found, "RayCluster", "first-ray")["spec"]
    assert cluster["authOptions"] == {"mode": "token", "secretName": "token"}
    for pod in pods(found):
        if pod.where.startswith("RayCluster"):
            (drain,) = [
                int(e["value"])
                for e in pod.spec["containers"][0]["env"]
                if e["name"] == "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
            ]
            assert pod.spec["terminationGracePeriodSeconds"] > drain


def test_the_autoscaler_alone_has_a_token_of_the_api_server() -> None:
    cluster = one(objects("platform", VALUES["platform"]["ray"]), "RayCluster", "first-ray")["spec"]
    (mount,) = cluster["autoscalerOptions"]["volumeMounts"]
    assert mount["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount"
    head = cluster["headGroupSpec"]["template"]["spec"]
    (volume,) = [v for v in head["volumes"] if v["name"] == mount["name"]]
    assert [next(iter(source)) for source in volume["projected"]["sources"]] == [
        "serviceAccountToken",
        "configMap",
        "downwardAPI",
    ]
    fixed = objects("platform", VALUES["platform"]["ray-kueue"])
    (pod,) = [pod for pod in pods(fixed) if pod.where.endswith("head")]
    assert pod.spec["serviceAccountName"] == "first-jobs"
    assert not any("projected" in volume for volume in pod.spec["volumes"])


def test_one_team_value_names_label_and_queue() -> None:
    found = objects("platform", VALUES["platform"]["team-namespace"])
    assert all(each["metadata"]["labels"]["bayling/team"] == "translators" for each in found)
    cluster = one(found, "RayCluster", "first-ray")
    assert cluster["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "translators"
    assert one(found, "ConfigMap", "first-jobs")["data"]["queue"] == "translators"


def test_the_version_of_chart_and_package_is_one() -> None:
    import bayling

    for name in VALUES:
        chart = yaml.safe_load((CHARTS / name / "Chart.yaml").read_text(encoding="utf-8"))
        assert bayling.__version__.startswith(chart["appVersion"])
        assert chart["kubeVersion"] == ">=1.30.0-0"


def test_rays_version_is_the_one_of_the_constraints() -> None:
    pins = Path(CHARTS.parent / "constraints.txt").read_text(encoding="utf-8").splitlines()
    for name in VALUES:
        values = yaml.safe_load((CHARTS / name / "values.yaml").read_text(encoding="utf-8"))
        assert f"ray=={values['ray']['version']}" in pins
