"""RayJobs of many scales: valid, and with what their stages need."""

from __future__ import annotations

import os
from typing import Any

import pytest
from crds import validator

from bayling.cluster import rayjob
from bayling.cluster.installation import Installation
from bayling.config import compose, options
from bayling.errors import UserError
from bayling.pods import Network

pytestmark = pytest.mark.unit
THERE = Installation.assume("bayling", "ml")
GIB = 2**30


def _made(*overrides: str, stage: str = "train", there: Installation = THERE) -> dict[str, Any]:
    config = compose(list(overrides))
    job = rayjob.Job("a-job", stage, list(overrides), config.team)
    return rayjob.manifest(job, config.scale, there, "ml")


def _workers(made: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The group of workers, and its container."""
    (group,) = made["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    (container,) = group["template"]["spec"]["containers"]
    return group, container


@pytest.mark.parametrize(
    ("scale", "network"),
    [
        *((scale, "tcp") for scale in options("scale")),
        *(("cluster", each.value) for each in Network),
    ],
)
def test_kuberay_knows_every_field(scale: str, network: str) -> None:
    folder = os.environ.get("BAYLING_CRD_DIR")
    if not folder:
        pytest.skip("BAYLING_CRD_DIR is not set")
    overrides = [
        f"scale={scale}",
        f"scale.kubernetes.network={network}",
        "scale.kubernetes.deadline_s=3600",
        "scale.kubernetes.spot=true",
        "scale.kubernetes.priority_class=low",
        "scale.kubernetes.pull_secrets=[registry]",
        "scale.kubernetes.queue=nightly",
        "scale.kubernetes.node_selector=[nvidia.com/gpu.product:H100]",
        "scale.kubernetes.secrets=[HF_TOKEN:hub/token]",
    ]
    validator(folder, "RayJob").validate(_made(*overrides))


def test_the_quickstarts_cluster_has_the_cpus_that_its_stages_ask_for() -> None:
    made = _made("recipe=quickstart", stage="pipeline")
    group, container = _workers(made)
    config = compose(["recipe=quickstart"])
    cpus = group["replicas"] * int(container["resources"]["limits"]["cpu"])
    training = config.scale.workers * config.scale.cpus_per_worker
    evaluating = config.scale.engines * config.scale.cpus_per_worker
    serving = config.serve.min_replicas * config.serve.engine_cpus
    assert cpus >= max(training, evaluating, serving, 1)
    head = made["spec"]["rayClusterSpec"]["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0", "no task takes the head's memory"
    # It fits beside MLflow on a node of two cores and 8 GiB.
    parts = [head["template"], group["template"], made["spec"]["submitterPodTemplate"]]
    asked = [part["spec"]["containers"][0]["resources"]["requests"] for part in parts]
    assert sum(_cpus(each["cpu"]) for each in asked) <= 1.25
    assert sum(_bytes(each["memory"]) for each in asked) <= 4 * GIB


def _cpus(text: str) -> float:
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def _bytes(text: str) -> float:
    return float(text[:-2]) * {"Gi": GIB, "Mi": 2**20}[text[-2:]]


def test_a_pod_takes_a_whole_node_of_gpus_and_more_workers_take_more_pods() -> None:
    group, container = _workers(_made("scale=cluster"))
    assert group["replicas"] == 1
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 8
    assert container["resources"]["limits"]["cpu"] == "32"
    group, container = _workers(_made("scale=cluster", "scale.workers=20"))
    assert group["replicas"] == 3
    group, container = _workers(
        _made("scale=cluster", "scale.kubernetes.workers_per_pod=2", "scale.engines=2")
    )
    assert group["replicas"] == 4
    assert container["resources"]["requests"]["nvidia.com/gpu"] == 2
    # A quarter of a node's, less what Kubernetes needs of it.
    assert 0.2 * 1024e9 < _bytes(container["resources"]["limits"]["memory"]) < 0.25 * 1024e9


def test_only_stages_that_compute_on_gpus_ask_for_some() -> None:
    for stage, asks in (("data", False), ("promote", False), ("train", True), ("pipeline", True)):
        _, container = _workers(_made("scale=cluster", stage=stage))
        assert ("nvidia.com/gpu" in container["resources"]["limits"]) is asks, stage


def test_a_pod_is_given_longer_than_rays_drain_takes() -> None:
    made = _made("scale.kubernetes.drain_s=400")
    cluster = made["spec"]["rayClusterSpec"]
    for template in (cluster["headGroupSpec"]["template"], _workers(made)[0]["template"]):
        container = template["spec"]["containers"][0]
        drain = {e["name"]: e.get("value") for e in container["env"]}
        seconds = int(drain["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
        assert seconds == 400 < template["spec"]["terminationGracePeriodSeconds"]


def test_networks_bring_their_devices_and_the_capability() -> None:
    for network, resource, variable in (
        ("tcp", None, "NCCL_IB_DISABLE"),
        ("rdma", "rdma/hca", None),
        ("efa", "vpc.amazonaws.com/efa", "FI_PROVIDER"),
    ):
        overrides = (f"scale.kubernetes.network={network}", "scale.kubernetes.network_devices=4")
        made = _made("scale=cluster", *overrides, "scale.kubernetes.interface=eth0")
        _, container = _workers(made)
        names = {entry["name"]: entry.get("value") for entry in container["env"]}
        assert names["NCCL_SOCKET_IFNAME"] == names["GLOO_SOCKET_IFNAME"] == "eth0"
        assert variable is None or variable in names
        capabilities = container["securityContext"]["capabilities"]
        assert capabilities.get("add") == (["IPC_LOCK"] if resource else None)
        assert resource is None or container["resources"]["limits"][resource] == 4
        head = made["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
        assert head["containers"][0]["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_spot_nodes_take_workers_but_not_the_head() -> None:
    made = _made("scale.kubernetes.spot=true")
    assert _workers(made)[0]["template"]["spec"]["tolerations"]
    head = made["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    assert "tolerations" not in head, "with the head the whole cluster is lost"


def test_secrets_are_referred_to_and_never_written_down() -> None:
    _, container = _workers(_made("scale.kubernetes.secrets=[HF_TOKEN:hub/token]"))
    env = {entry["name"]: entry for entry in container["env"]}
    reference = {"secretKeyRef": {"name": "hub", "key": "token"}}
    assert env["HF_TOKEN"] == {"name": "HF_TOKEN", "valueFrom": reference}
    assert "value" not in env["MLFLOW_TRACKING_PASSWORD"]


def test_the_ray_of_the_image_is_the_one_that_constraints_pin() -> None:
    from pathlib import Path

    constraints = Path(__file__).resolve().parents[2] / "constraints.txt"
    assert f"ray=={THERE.ray_version}" in constraints.read_text("utf-8").splitlines()


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("scale.kubernetes.image=r.example.com:5000/bayling", "has no tag"),
        ("scale.kubernetes.tolerations=[gpu]", r"not KEY\[:VALUE\]:EFFECT"),
        ("scale.kubernetes.tolerations=[gpu:NoScheduel]", "NoSchedule"),
        ("scale.kubernetes.node_selector=[gpu]", "not KEY:VALUE"),
        ("scale.kubernetes.secrets=[HF_TOKEN:hub]", "not NAME:SECRET/KEY"),
        ("scale.kubernetes.namespace=ML", "no name in Kubernetes"),
        ("scale.kubernetes.storage_path=/tmp/x", "would hide"),
        ("scale.kubernetes.reserved=0", "above 0"),
        ("scale.kubernetes.netwrk=efa", "did you mean scale.kubernetes.network"),
        ("scale.kubernetes.network=ib", "network"),
        ("scale.kubernetes.network=efa", "is for GPUs"),
    ],
)
def test_a_wrong_value_is_named_with_the_way_out(override: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        compose([override])


def test_an_image_is_needed_where_no_release_names_one() -> None:
    with pytest.raises(UserError, match=r"scale\.kubernetes\.image"):
        _made(there=Installation.none())
