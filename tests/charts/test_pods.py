"""What every pod of every chart is held to: the restricted standard, resources, probes, secrets."""

from __future__ import annotations

import re

import pytest
from chart_values import VALUES
from charted import CASES, Case, Object, called, objects, objects_of
from pods import Pod, pods, selected
from submitted import jobs_of

every_case = pytest.mark.parametrize("case", CASES, ids=str)

# What a chart takes by default from a release of another one.
ELSEWHERE = {"serving": {"bayling-jobs", "bayling-jobs-mlflow"}}
# The restricted standard allows these kinds of volumes.
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim"}
VOLUMES |= {"projected", "secret", "name"}


@every_case
def test_pods_satisfy_the_restricted_standard(case: Case) -> None:
    for pod in pods(objects_of(case)):
        spec, security = pod.spec, pod.spec["securityContext"]
        assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & set(spec), pod.where
        assert security["runAsNonRoot"] is True, pod.where
        assert security["runAsUser"] > 0, pod.where
        assert security["seccompProfile"]["type"] == "RuntimeDefault", pod.where
        for volume in spec.get("volumes", []):
            assert set(volume) <= VOLUMES, (pod.where, volume)
        for container in pod.containers():
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False, pod.where
            assert own["capabilities"] == {"drop": ["ALL"]}, pod.where
            assert not own.get("privileged"), pod.where
            assert own.get("runAsNonRoot", True) and own.get("runAsUser", 1), pod.where
            assert not any("hostPort" in port for port in container.get("ports", [])), pod.where


@every_case
def test_file_systems_are_read_only_but_for_rays(case: Case) -> None:
    for pod in pods(objects_of(case)):
        for container in pod.containers():
            if not container["name"].startswith("ray-"):
                assert container["securityContext"]["readOnlyRootFilesystem"] is True, pod.where


@every_case
def test_containers_say_what_they_take(case: Case) -> None:
    for pod in pods(objects_of(case)):
        for container in pod.containers():
            for kind in ("requests", "limits"):
                assert {"cpu", "memory"} <= set(container["resources"][kind]), pod.where


@every_case
def test_images_have_a_version_or_a_digest(case: Case) -> None:
    for pod in pods(objects_of(case)):
        for container in pod.containers():
            image = container["image"]
            assert re.search(r"(@sha256:[0-9a-f]{64}|:[\w.-]*\d+\.\d+[\w.-]*)$", image), image


@every_case
def test_servers_are_probed(case: Case) -> None:
    for each in objects_of(case):
        if each["kind"] in ("Job", "Pod", "CronJob"):
            continue
        for pod in pods([each]):
            for container in pod.spec["containers"]:
                probes = {"readinessProbe", "livenessProbe", "startupProbe"}
                assert probes <= set(container), pod.where
                ports = {port["name"] for port in container["ports"]}
                for probe in probes:
                    if asked := container[probe].get("httpGet"):
                        assert asked["port"] in ports, pod.where


@every_case
def test_pods_have_no_token_of_the_api_server_unless_they_use_it(case: Case) -> None:
    for pod in pods(objects_of(case)):
        assert pod.spec["automountServiceAccountToken"] is False, pod.where
        mounting = [
            container["name"]
            for container in pod.containers()
            for mount in container.get("volumeMounts", [])
            if "serviceaccount" in mount["mountPath"]
        ]
        # The rollout controller writes what is to run into its RayService.
        assert mounting in ([], ["rollout"]), pod.where


@every_case
def test_no_secret_stands_in_an_object_that_is_no_secret(case: Case) -> None:
    found = objects_of(case)
    for pod in pods(found):
        for container in pod.containers():
            for entry in container.get("env", []):
                if re.search("PASSWORD|SECRET|TOKEN(?!IZERS)|ACCESS_KEY|^KEY$", entry["name"]):
                    assert "value" not in entry, (pod.where, entry["name"])
                assert not re.search(r"://[^/@\s]+:[^/@\s]+@", entry.get("value", "")), pod.where
    drawn = [v for e in found if e["kind"] == "Secret" for v in e["data"].values() if len(v) > 30]
    for each in found:
        if each["kind"] != "Secret":
            text = str(each)
            assert not any(value in text for value in drawn), called(each)


@every_case
def test_what_pods_refer_to_is_there(case: Case) -> None:
    found = objects_of(case)
    names = {kind: _names(found, kind) for kind in ("Secret", "ConfigMap", "ServiceAccount")}
    claims = _names(found, "PersistentVolumeClaim")
    given = _given(case)
    for pod in pods(found):
        account = pod.spec.get("serviceAccountName")
        assert account is None or account in names["ServiceAccount"], pod.where
        mounted = {volume["name"] for volume in pod.spec.get("volumes", [])}
        mounted |= {"data"} if pod.where.startswith("StatefulSet") else set()
        for container in pod.containers():
            assert {m["name"] for m in container.get("volumeMounts", [])} <= mounted, pod.where
            for entry in container.get("env", []):
                if secret := entry.get("valueFrom", {}).get("secretKeyRef"):
                    assert secret["name"] in names["Secret"] | given, (pod.where, secret)
                    for own in found:
                        if called(own) == f"Secret {secret['name']}":
                            assert secret["key"] in own["data"], (pod.where, secret)
        for volume in pod.spec.get("volumes", []):
            if claim := volume.get("persistentVolumeClaim"):
                assert claim["claimName"] in claims | given, pod.where
            if config := volume.get("configMap"):
                assert config["name"] in names["ConfigMap"], pod.where


def _given(case: Case) -> set[str]:
    """Names that the values say are in the cluster already."""

    def texts(value: object) -> set[str]:
        if isinstance(value, dict):
            return {text for each in value.values() for text in texts(each)}
        if isinstance(value, list):
            return {text for each in value for text in texts(each)}
        return {value} if isinstance(value, str) else set()

    return texts(VALUES[case.chart][case.values]) | ELSEWHERE.get(case.chart, set())


def _names(found: list[Object], kind: str) -> set[str]:
    return {each["metadata"]["name"] for each in found if each["kind"] == kind}


@every_case
def test_selectors_choose_the_pods_they_are_for(case: Case) -> None:
    found = objects_of(case)
    everyone = pods([*found, *jobs_of(case, found)])
    for each in found:
        spec = each.get("spec", {})
        if each["kind"] in ("Deployment", "StatefulSet"):
            chosen = [pod for pod in everyone if selected(pod, spec["selector"])]
            assert [pod.where for pod in chosen] == [called(each)]
        elif each["kind"] == "Service":
            (pod,) = [pod for pod in everyone if selected(pod, {"matchLabels": spec["selector"]})]
            ports = {p["name"] for c in pod.spec["containers"] for p in c["ports"]}
            assert {port["targetPort"] for port in spec["ports"]} <= ports, called(each)
        elif each["kind"] in ("PodDisruptionBudget", "NetworkPolicy"):
            selector = spec["selector" if "selector" in spec else "podSelector"]
            assert any(selected(pod, selector) for pod in everyone), called(each)
        elif each["kind"] == "ServiceMonitor":
            labels = spec["selector"]["matchLabels"].items()
            services = [s for s in found if s["kind"] == "Service"]
            assert any(labels <= s["metadata"]["labels"].items() for s in services), called(each)


@every_case
def test_every_pod_has_network_policies_for_both_directions(case: Case) -> None:
    found = objects_of(case)
    policies = [each["spec"] for each in found if each["kind"] == "NetworkPolicy"]
    if case.values == "no-network-policies":
        assert not policies
        return
    for pod in pods(found):
        mine = [policy for policy in policies if selected(pod, policy["podSelector"])]
        assert {"Ingress", "Egress"} <= {t for p in mine for t in p["policyTypes"]}, pod.where
        # One of them says what the pod may do: denial alone would be a pod that can do nothing.
        assert any(set(p) & {"ingress", "egress"} for p in mine), pod.where


def _speaks(policies: list[Object], source: Pod, target: Pod, port: str | int) -> bool:
    """Whether policies let a pod of this namespace reach another's port."""

    def meets(peer: Object, pod: Pod) -> bool:
        return "namespaceSelector" not in peer and selected(pod, peer.get("podSelector", {"x": 1}))

    def opened(rules: list[Object], key: str, pod: Pod) -> bool:
        return any(
            any("podSelector" in peer and meets(peer, pod) for peer in rule.get(key, []))
            and ("ports" not in rule or any(p["port"] in _same(port) for p in rule["ports"]))
            for rule in rules
        )

    leaves = [
        r for p in policies if selected(source, p["podSelector"]) for r in p.get("egress", [])
    ]
    enters = [
        r for p in policies if selected(target, p["podSelector"]) for r in p.get("ingress", [])
    ]
    return opened(leaves, "to", target) and opened(enters, "from", source)


def _same(port: str | int) -> set[str | int]:
    return {port, {5000: "http", 5432: "postgresql"}.get(port, port) if port else port}


def test_only_those_who_need_it_reach_mlflow_and_its_database() -> None:
    values = {"mlflow": {"database": {"type": "postgresql"}}, "ray": {"enabled": True}}
    found = objects("platform", values)
    policies = [each["spec"] for each in found if each["kind"] == "NetworkPolicy"]
    everyone = {pod.where: pod for pod in pods(found)}
    mlflow = everyone["Deployment first-mlflow"]
    database = everyone["StatefulSet first-postgresql"]
    reach = {
        where: (_speaks(policies, pod, mlflow, 5000), _speaks(policies, pod, database, 5432))
        for where, pod in everyone.items()
    }
    assert reach == {
        "Deployment first-mlflow": (False, True),
        "StatefulSet first-postgresql": (False, False),
        "Job first-mlflow-migrate": (False, True),
        "Pod first-test": (True, False),
        "RayCluster first-ray head": (True, False),
        "RayCluster first-ray cpu": (True, False),
    }


@every_case
def test_roles_name_what_they_allow(case: Case) -> None:
    for each in objects_of(case):
        assert each["kind"] not in ("ClusterRole", "ClusterRoleBinding"), called(each)
        for rule in each.get("rules", []) if each["kind"] == "Role" else []:
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]], rule
            assert not {"secrets", "pods/exec", "roles", "rolebindings"} & set(rule["resources"])
            assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"]), rule
        if each["kind"] == "ServiceAccount":
            assert each["automountServiceAccountToken"] is False, called(each)


@every_case
def test_every_object_says_whose_it_is(case: Case) -> None:
    for each in objects_of(case):
        labels = each["metadata"]["labels"]
        assert labels["app.kubernetes.io/part-of"] == "bayling", called(each)
        assert labels["app.kubernetes.io/instance"] == "first", called(each)
