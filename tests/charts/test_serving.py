"""The chart `serving`: what its values do, what it refuses, and its keys over upgrades."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from typing import Any

import pytest
import yaml
from chart_values import CPUS, GPUS, VALUES
from charted import CHARTS, GATEWAY, KUBERAY, PROMETHEUS, Object, files, objects, one
from helm_python import HelmError
from pods import Pod, pods, selected

from bayling.commands.rollout_follow import served_there
from bayling.config import Config as Settings
from bayling.config import compose
from bayling.serve.application import Arguments, service_config
from bayling.serve.config import ServeConfig

SERVING = VALUES["serving"]
TEST = CHARTS / "serving" / "files" / "translates.py"


def _ray(values: Object, **where: Any) -> Object:
    (service,) = [o for o in objects("serving", values, **where) if o["kind"] == "RayService"]
    spec: Object = service["spec"]
    return spec


def _everyone(values: Object) -> dict[str, Pod]:
    return {pod.where: pod for pod in pods(objects("serving", values))}


def _follow(values: Object) -> dict[str, str]:
    """The options of the controller's command; under `words` its overrides, a line each."""
    found = one(objects("serving", values), "Deployment", "first-rollout")
    (container,) = found["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["bayling", "rollout", "follow"]
    options = [arg.removeprefix("--").split("=", 1) for arg in container["args"] if arg[0] == "-"]
    words = [arg for arg in container["args"] if arg[0] != "-"]
    return {**dict(options), "words": "\n".join(words)}


def _settings(values: Object, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://first-mlflow:5000")
    return compose(_follow(values)["words"].split("\n"))


def test_what_is_served_is_left_to_the_controller() -> None:
    for values in SERVING.values():
        assert "serveConfigV2" not in _ray(values), "an upgrade would take shares back"


def test_every_key_of_the_configuration_but_the_charts_own_is_a_value() -> None:
    schema = json.loads((CHARTS / "serving" / "values.schema.json").read_text(encoding="utf-8"))
    config = schema["properties"]["config"]["properties"]
    own = {"name", "host", "port", "auth", "keys_file"}
    assert set(config) == {field.name for field in fields(ServeConfig)} - own
    defaults = ServeConfig()
    for group in ("identity", "tracing", "rollout"):
        inner = {field.name for field in fields(getattr(defaults, group))}
        assert set(config[group]["properties"]) == inner


@pytest.mark.parametrize("name", SERVING)
def test_what_the_controller_is_given_can_be_composed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = _settings({**SERVING[name], "fullnameOverride": "first"}, monkeypatch)
    config = SERVING[name].get("config", {})
    for key, value in config.items():
        there = getattr(settings.serve, key)
        if isinstance(value, dict):
            assert {inner: getattr(there, inner) for inner in value} == value
        else:
            assert getattr(there, "value", there) == value
    assert settings.serve.needs_keys
    assert settings.registered_model == SERVING[name].get("model", "bayling")


@pytest.mark.parametrize(
    ("name", "device", "cpus", "gpus"),
    [("default", "cpu", 1, 0), ("gpus-vllm", "cuda", 1, 2)],
)
def test_ray_serve_takes_what_the_controller_writes(
    name: str, device: str, cpus: int, gpus: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.serve.schema import ServeDeploySchema

    options = _follow(SERVING[name])
    settings = _settings(SERVING[name], monkeypatch)
    arguments = served_there(settings, options["cache"], options["api-on"])
    assert (arguments.device, arguments.cpus, arguments.gpus) == (device, cpus, gpus)
    assert not arguments.listen
    for shares, leaving in (({}, ()), ({"7": 1.0}, ()), ({"7": 0.9, "8": 0.1}, ("6",))):
        written = json.loads(json.dumps(service_config(arguments, shares, leaving)))
        taken = ServeDeploySchema(**written)
        wanted = {"bayling", *(f"bayling-v{one}" for one in (*shares, *leaving))}
        assert {one.name for one in taken.applications} == wanted
        assert [one.name for one in taken.applications if one.route_prefix == "/"] == ["bayling"]
        assert taken.http_options.port == 8000
        assert taken.proxy_location == "EveryNode"
        assert Arguments.read(taken.applications[-1].args) == arguments


@pytest.mark.parametrize("name", ["default", "redis"])
def test_the_api_is_on_the_node_that_has_its_resource_its_keys_and_its_label(name: str) -> None:
    spec, options = _ray(SERVING[name])["rayClusterConfig"], _follow(SERVING[name])
    groups = {"head": spec["headGroupSpec"]}
    groups |= {group["groupName"]: group for group in spec["workerGroupSpecs"]}
    (where,) = [
        name
        for name, group in groups.items()
        if options["api-on"] in group["rayStartParams"].get("resources", "")
    ]
    assert where == ("head" if name == "default" else "api")
    template = groups[where]["template"]
    assert template["metadata"]["labels"]["bayling/api"] == "true"
    mounts = {m["mountPath"] for m in template["spec"]["containers"][0]["volumeMounts"]}
    assert "serve.keys_file=/etc/bayling/keys" in options["words"]
    assert {"/etc/bayling/keys", options["cache"]} <= mounts
    # As the shell gets it from KubeRay, and Ray's autoscaler from the object.
    text = groups[where]["rayStartParams"]["resources"]
    assert json.loads(text[1:-1]) == {options["api-on"]: 1}
    assert text[0] == text[-1] == "'"


def test_without_a_redis_the_head_takes_requests_and_with_one_it_does_not() -> None:
    assert "excludeHeadPodFromServeSvc" not in _ray({})
    redis = _ray(SERVING["redis"])
    assert redis["excludeHeadPodFromServeSvc"] is True
    options = redis["rayClusterConfig"]["gcsFaultToleranceOptions"]
    assert options["redisAddress"] == "redis.ml.svc:6380"
    assert options["redisPassword"]["valueFrom"]["secretKeyRef"]["name"] == "redis"
    open_ = _ray(SERVING["redis-open"])["rayClusterConfig"]["gcsFaultToleranceOptions"]
    assert open_ == {"redisAddress": "redis:6379"}


def test_a_worker_is_ready_when_a_model_would_answer_and_the_head_before() -> None:
    probes = {
        where: pod.spec["containers"][0]["readinessProbe"]["httpGet"]
        for where, pod in _everyone(SERVING["redis"]).items()
        if where.startswith("RayService")
    }
    assert probes == {
        "RayService first head": {"path": "/api/healthz", "port": "agent"},
        "RayService first api": {"path": "/-/healthz", "port": "serve"},
        "RayService first engines": {"path": "/readyz", "port": "serve"},
    }


def test_a_node_that_goes_has_time_for_its_answers() -> None:
    for name, values in SERVING.items():
        slowest = values.get("config", {}).get("request_timeout_s", ServeConfig.request_timeout_s)
        for pod in _everyone(values).values():
            if not pod.where.startswith("RayService"):
                continue
            (drain,) = [
                int(e["value"])
                for e in pod.spec["containers"][0]["env"]
                if e["name"] == "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
            ]
            assert slowest < drain < pod.spec["terminationGracePeriodSeconds"], name


def test_the_controller_may_read_and_patch_its_rayservice_and_nothing_else() -> None:
    found = objects("serving", {})
    (role,) = [each for each in found if each["kind"] == "Role"]
    assert role["rules"] == [
        {
            "apiGroups": ["ray.io"],
            "resources": ["rayservices"],
            "resourceNames": ["first"],
            "verbs": ["get", "patch"],
        }
    ]
    assert _follow({})["ray-service"] == "first"


def _policies(values: Object) -> list[Object]:
    found = objects("serving", values)
    return [each["spec"] for each in found if each["kind"] == "NetworkPolicy"]


def _lets_in(policies: list[Object], target: Pod, port: int | str, source: Object) -> bool:
    """Whether a peer, as a policy writes it, may come to a port of a pod."""
    rules = [
        rule
        for policy in policies
        if selected(target, policy["podSelector"])
        for rule in policy.get("ingress", [])
    ]
    return any(
        source in rule.get("from", [])
        and ("ports" not in rule or port in {p["port"] for p in rule["ports"]})
        for rule in rules
    )


def test_the_operator_reaches_the_head_without_being_told_where_it_is() -> None:
    head = _everyone({})["RayService first head"]
    anywhere = {
        "namespaceSelector": {},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}},
    }
    for port in (8265, "serve"):
        assert _lets_in(_policies({}), head, port, anywhere)
    named = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kuberay"}}}
    policies = _policies(SERVING["redis"])
    assert _lets_in(policies, head, 8265, named)
    assert not _lets_in(policies, head, 8265, anywhere)


def test_only_who_is_named_reaches_the_api() -> None:
    head = _everyone({})["RayService first head"]
    anybody_here: Object = {"podSelector": {}}
    assert _lets_in(_policies({}), head, "serve", anybody_here)
    assert not _lets_in(_policies({}), head, 8265, anybody_here)
    policies = _policies(SERVING["ingress"])
    assert not _lets_in(policies, head, "serve", anybody_here)
    ingress = {"namespaceSelector": {"matchLabels": {"ingress": "yes"}}}
    assert _lets_in(policies, head, "serve", ingress)


def test_the_head_alone_reaches_the_redis() -> None:
    policies = _policies(SERVING["redis"])
    redis = {
        "to": [{"ipBlock": {"cidr": "10.2.0.0/16"}}],
        "ports": [{"port": 6380, "protocol": "TCP"}],
    }
    reaching = [
        where
        for where, pod in _everyone(SERVING["redis"]).items()
        if any(redis in p.get("egress", []) for p in policies if selected(pod, p["podSelector"]))
    ]
    assert reaching == ["RayService first head"]


def test_a_budget_lets_one_engine_go_and_only_where_there_are_several() -> None:
    def budgets(values: Object) -> dict[str, int]:
        found = [o for o in objects("serving", values) if o["kind"] == "PodDisruptionBudget"]
        return {o["metadata"]["name"]: o["spec"]["minAvailable"] for o in found}

    assert budgets({}) == {}
    assert budgets(SERVING["monitoring"]) == {"first-engines": 2}
    assert budgets(SERVING["gpus-vllm"]) == {"first-head": 1}


def test_routes_lead_to_the_api_and_not_to_what_is_for_the_cluster() -> None:
    (ingress,) = [o for o in objects("serving", SERVING["ingress"]) if o["kind"] == "Ingress"]
    (rule,) = ingress["spec"]["rules"]
    paths = [path["path"] for path in rule["http"]["paths"]]
    for path in rule["http"]["paths"]:
        assert path["backend"]["service"] == {"name": "first-serve-svc", "port": {"number": 8000}}
    (route,) = [o for o in objects("serving", SERVING["gateway"]) if o["kind"] == "HTTPRoute"]
    (rule,) = route["spec"]["rules"]
    assert [match["path"]["value"] for match in rule["matches"]] == paths
    assert rule["backendRefs"] == [{"name": "first-serve-svc", "port": 8000}]
    assert rule["timeouts"] == {"request": "10m"}
    assert not [path for path in paths if path.startswith(("/internal", "/-", "/metrics"))]


def test_prometheus_reads_figures_of_all_once_with_a_key() -> None:
    found = objects("serving", SERVING["monitoring"])
    (monitor,) = [o["spec"] for o in found if o["kind"] == "PodMonitor"]
    chosen = [pod.where for pod in pods(found) if selected(pod, monitor["selector"])]
    assert chosen == ["RayService first head"]
    (endpoint,) = monitor["podMetricsEndpoints"]
    secret = one(found, "Secret", endpoint["authorization"]["credentials"]["name"])
    assert endpoint["authorization"]["credentials"]["key"] in secret["data"]


def test_alerts_ask_for_figures_that_there_are_and_each_is_explained() -> None:
    (rules,) = [
        o for o in objects("serving", SERVING["monitoring"]) if o["kind"] == "PrometheusRule"
    ]
    documented = (CHARTS.parent / "docs" / "metrics.md").read_text(encoding="utf-8")
    operations = (CHARTS.parent / "docs" / "operations.md").read_text(encoding="utf-8")
    for rule in rules["spec"]["groups"][0]["rules"]:
        assert rule["alert"] in operations
        for metric in re.findall(r"bayling_\w+", rule["expr"]):
            assert f"`{metric.removesuffix('_bucket')}`" in documented, metric
        assert rule["expr"].count("(") == rule["expr"].count(")")
        if "kube_" not in rule["expr"]:
            assert 'namespace="ml",app_kubernetes_io_instance="first"' in rule["expr"]
    zero = {**SERVING["monitoring"], "config": {"min_replicas": 0}}
    (rules,) = [o for o in objects("serving", zero) if o["kind"] == "PrometheusRule"]
    names = [rule["alert"] for rule in rules["spec"]["groups"][0]["rules"]]
    assert "BayLingNoEngine" not in names and "BayLingErrors" in names


REFUSED = {
    "no KubeRay": ({}, "KubeRay is missing"),
    "a name of 41 characters": ({"fullnameOverride": "n" * 41}, "40 is the most"),
    "no MLflow": ({"mlflow": {"platform": ""}}, "no MLflow to take the model from"),
    "no account": (
        {"mlflow": {"platform": "", "trackingUri": "http://mlflow"}},
        r"set mlflow\.existingSecret",
    ),
    "an account without a login": (
        {"mlflow": {"auth": False, "existingSecret": "account"}},
        "leave the Secret out",
    ),
    "a password in the address": (
        {"mlflow": {"trackingUri": "http://user:password@mlflow"}},
        "trackingUri",
    ),
    "GPUs that no worker has": ({"device": "cuda"}, "add nvidia.com/gpu"),
    "GPUs that nobody uses": ({"ray": {"workers": [GPUS]}}, "set device=cuda"),
    "engines larger than a pod": ({"config": {"engine_cpus": 4}}, "No engine fits a pod"),
    "workers above their maximum": (
        {"ray": {"workers": [{**CPUS, "replicas": 5}]}},
        "minReplicas <= replicas <= maxReplicas, not 1, 5, 4",
    ),
    "two groups of one name": ({"ray": {"workers": [CPUS, CPUS]}}, "the same name"),
    "no workers": ({"ray": {"workers": []}}, "workers"),
    "a Redis without an address": (
        {"faultTolerance": {"enabled": True}},
        r"needs faultTolerance\.redisAddress",
    ),
    "a Redis that is not used": (
        {"faultTolerance": {"redisAddress": "redis:6379"}},
        "set it to true",
    ),
    "the API's group taken": (
        {**SERVING["redis"], "ray": {"workers": [{**CPUS, "name": "api"}]}},
        "a group called api already",
    ),
    "an ingress without a host": ({"ingress": {"enabled": True}}, r"needs ingress\.host"),
    "a route without a gateway": ({"gateway": {"enabled": True}}, r"needs gateway\.parentRefs"),
    "a drain shorter than an answer": (
        {"config": {"request_timeout_s": 600}},
        "would cut answers off",
    ),
    "fewer replicas than at least": (
        {"config": {"min_replicas": 3, "max_replicas": 2}},
        "below config.min_replicas=3",
    ),
    "a misspelt key of serve": ({"config": {"max_replica": 3}}, "max_replica"),
    "a key that the chart sets": ({"config": {"host": "0.0.0.0"}}, "host"),
    "an engine that there is not": ({"config": {"engine": "tgi"}}, "engine"),
    "a tag that moves": ({"image": {"tag": "latest"}}, "tag"),
}


@pytest.mark.parametrize(("values", "sentence"), REFUSED.values(), ids=REFUSED)
def test_it_is_refused_with_a_sentence(values: Object, sentence: str) -> None:
    apis = (GATEWAY, *PROMETHEUS) if "KubeRay" in sentence else (KUBERAY, GATEWAY, *PROMETHEUS)
    with pytest.raises(HelmError, match=sentence):
        files("serving", values, apis=apis)


def test_without_the_gateway_api_a_route_is_refused() -> None:
    with pytest.raises(HelmError, match="whose CRDs"):
        files("serving", SERVING["gateway"], apis=(KUBERAY,))


def _notes(values: Object, **where: Any) -> str:
    (text,) = [t for path, t in files("serving", values, **where).items() if "NOTES" in path]
    return text


def test_the_notes_tell_the_next_command_and_where_the_key_is() -> None:
    notes = _notes({})
    assert "helm test first --namespace ml" in notes
    assert "get secret first-app --template='{{.data.key | base64decode}}'" in notes
    assert "port-forward service/first-serve-svc 8000" in notes
    assert "customers" in _notes(SERVING["secrets-of-ones-own"])
    assert "https://translate.example.com/" in _notes(SERVING["ingress"])
    assert "networkPolicy.apiFrom" in _notes(SERVING["gateway"])
    few = {"ray": {"workers": [{**CPUS, "maxReplicas": 2}]}}
    assert "want 4 CPUs, and ray.workers have 2" in _notes(few)
    assert "want" not in notes
    assert "no alerts were created" in _notes(SERVING["monitoring"], apis=(KUBERAY,))


def test_the_settings_of_the_readme_can_be_installed() -> None:
    readme = (CHARTS / "serving" / "README.md").read_text(encoding="utf-8")
    settings = re.findall(r"```yaml\n(.+?)```", readme, re.DOTALL)
    assert len(settings) >= 5
    for text in settings:
        assert files("serving", yaml.safe_load(text))
