"""Submitted jobs beside the chart that they are made for: its ConfigMap, its policies, its role."""

from __future__ import annotations

import re

import pytest
from charted import CASES, CHARTS, Case, objects, objects_of
from kubernetes_validate import latest_version, validate
from pods import Pod, pods, selected
from submitted import installation, job, jobs_of
from yaml import safe_load

from bayling.cluster import rayjob
from bayling.cluster.installation import CHART, Installation
from bayling.errors import UserError

every_case = pytest.mark.parametrize(
    "case", [case for case in CASES if case.chart == "platform"], ids=str
)


def _pods(case: Case) -> list[Pod]:
    return pods(jobs_of(case, objects_of(case)))


@every_case
def test_a_jobs_pods_are_restricted_and_say_what_they_take(case: Case) -> None:
    assert [pod.where.split()[-1] for pod in _pods(case)] == ["head", "workers", "submitter"]
    for pod in _pods(case):
        security = pod.spec["securityContext"]
        assert security["runAsNonRoot"] is True and security["runAsUser"] > 0
        assert security["seccompProfile"]["type"] == "RuntimeDefault"
        assert pod.spec["automountServiceAccountToken"] is False
        for container in pod.containers():
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            for kind in ("requests", "limits"):
                assert {"cpu", "memory"} <= set(container["resources"][kind])
            assert re.search(r"(@sha256:[0-9a-f]{64}|:[\w.-]*\d+\.\d+[\w.-]*)$", container["image"])


@every_case
def test_a_jobs_pods_are_what_kubernetes_takes(case: Case) -> None:
    for pod in _pods(case):
        metadata = {"name": "p", "labels": pod.labels, "annotations": pod.annotations}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod.spec}
        for version in ("1.30", latest_version()):
            validate(body, version, strict=True)


@every_case
def test_what_a_job_refers_to_is_of_the_release(case: Case) -> None:
    found = objects_of(case)
    there = installation(found, "registry" if case.values == "everything-else" else "first")
    accounts = [e["metadata"]["name"] for e in found if e["kind"] == "ServiceAccount"]
    given = {"jobs", "true"}
    secrets = {e["metadata"]["name"] for e in found if e["kind"] == "Secret"} | given
    for pod in _pods(case):
        assert pod.spec["serviceAccountName"] in accounts
        for container in pod.containers():
            for entry in container["env"]:
                if "valueFrom" in entry:
                    assert entry["valueFrom"]["secretKeyRef"]["name"] in secrets
                elif re.search("_(PASSWORD|TOKEN|SECRET)$", entry["name"]):
                    pytest.fail(f"{entry['name']} is no reference")
    (services,) = [
        {e["metadata"]["name"]: e["spec"]["ports"][0]["port"] for e in found if _is_mlflow(e)}
    ]
    if services:
        ((name, port),) = services.items()
        assert there.tracking_uri == f"http://{name}.ml.svc:{port}"


def _is_mlflow(each: dict[str, object]) -> bool:
    return each["kind"] == "Service" and "mlflow" in str(each["metadata"])


@every_case
def test_a_jobs_pods_have_policies_for_both_directions(case: Case) -> None:
    policies = [each["spec"] for each in objects_of(case) if each["kind"] == "NetworkPolicy"]
    for pod in _pods(case):
        mine = [policy for policy in policies if selected(pod, policy["podSelector"])]
        types = {kind for policy in mine for kind in policy["policyTypes"]}
        assert types == (set() if case.values == "no-network-policies" else {"Ingress", "Egress"})


def test_a_jobs_pods_reach_each_other_and_mlflow_and_the_operator_reaches_the_head() -> None:
    found = objects("platform", {})
    (policy,) = [
        e["spec"]
        for e in found
        if e["kind"] == "NetworkPolicy" and e["metadata"]["name"] == "first-jobs"
    ]
    of_jobs = policy["ingress"][0]["from"][0]["podSelector"]
    all_of_them = pods([job(installation(found))])
    assert all(selected(pod, of_jobs) for pod in all_of_them)
    assert "ports" not in policy["ingress"][0], "gloo and NCCL choose their ports"
    operator = policy["ingress"][1]
    assert operator["from"][0]["namespaceSelector"] == {}
    # KubeRay's Helm chart and its plain manifests have this label in common.
    assert operator["from"][0]["podSelector"]["matchLabels"] == {
        "app.kubernetes.io/component": "kuberay-operator"
    }
    assert operator["ports"] == [{"port": 8265, "protocol": "TCP"}]
    (mlflow,) = [p for p in pods(found) if p.where == "Deployment first-mlflow"]
    assert any(
        selected(mlflow, peer["podSelector"])
        for rule in policy["egress"]
        for peer in rule.get("to", [])
        if "podSelector" in peer
    )


def test_the_role_has_the_verbs_of_the_client_and_no_others() -> None:
    found = objects("platform", {})
    (role,) = [e for e in found if e["kind"] == "Role" and e["metadata"]["name"] == "first-submit"]
    rights = {
        (resource, verb)
        for rule in role["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert rights == {
        *(("rayjobs", verb) for verb in ("get", "list", "watch", "create", "delete")),
        ("pods", "list"),
        ("events", "list"),
        ("pods/log", "get"),
        ("configmaps", "get"),
        ("persistentvolumeclaims", "get"),
        ("persistentvolumeclaims", "create"),
    }
    theirs = objects("platform", {"jobs": {"storage": {"existingClaim": "nfs"}}})
    (role,) = [e for e in theirs if e["kind"] == "Role" and e["metadata"]["name"] == "first-submit"]
    assert "create" not in [v for r in role["rules"] for v in r["verbs"] if "persist" in str(r)]


def test_the_team_decides_on_queue_and_labels() -> None:
    values = {"team": "translators", "kueue": {"enabled": True, "queue": "nightly"}}
    there = installation(objects("platform", values))
    queue = "kueue.x-k8s.io/queue-name"
    labels = job(there)["metadata"]["labels"]
    assert (labels[queue], labels[rayjob.TEAM]) == ("nightly", "translators")
    labels = job(there, "team=speech")["metadata"]["labels"]
    assert (labels[queue], labels[rayjob.TEAM]) == ("speech", "speech")
    assert queue not in job(installation(objects("platform", {})))["metadata"]["labels"]


def test_images_follow_the_device() -> None:
    values = {
        "image": {"repository": "r.example.com/bayling", "tag": "1.0-cpu"},
        "jobs": {"gpuImage": {"tag": "1.0-gpu"}},
    }
    there = installation(objects("platform", values))
    for scale, image in (("laptop", "1.0-cpu"), ("cluster", "1.0-gpu")):
        made = pods([job(there, f"scale={scale}")])
        images = {container["image"] for pod in made for container in pod.containers()}
        assert images == {f"r.example.com/bayling:{image}"}


def test_the_claim_of_a_release_is_what_its_values_say() -> None:
    storage = {"size": "1Ti", "storageClass": "nfs", "accessMode": "ReadWriteMany"}
    there = installation(objects("platform", {"jobs": {"storage": storage}}))
    claim = rayjob.claim(there, "ml")
    validate(claim, latest_version(), strict=True)
    assert claim["spec"] == {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": "1Ti"}},
        "storageClassName": "nfs",
    }
    assert "affinity" not in pods([job(there)])[1].spec, "many nodes can mount it"
    alone = pods([job(installation(objects("platform", {})))])
    terms = {str(pod.spec.get("affinity")) for pod in alone[:2]}
    assert len(terms) == 1 and "kubernetes.io/hostname" in terms.pop()


def test_the_code_asks_for_no_newer_chart_than_there_is_and_refuses_an_older_one() -> None:
    chart = safe_load((CHARTS / "platform" / "Chart.yaml").read_text(encoding="utf-8"))
    assert [int(n) for n in chart["version"].split(".")] >= [int(n) for n in CHART.split(".")]
    with pytest.raises(UserError, match=r"0\.1\.0.*helm upgrade first charts/platform"):
        Installation.of("first", {"image": "bayling:0.1.0-cpu"})


def test_what_a_dry_run_assumes_is_what_the_chart_makes() -> None:
    real = installation(objects("platform", {}))
    assumed = Installation.assume("first", "ml")
    differing = {key for key, value in vars(assumed).items() if value != getattr(real, key)} - {
        "assumed"
    }
    assert not differing
