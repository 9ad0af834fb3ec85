"""Where pods are in objects of every kind, and what selects them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from charted import Object, called


@dataclass(frozen=True)
class Pod:
    """A pod, or the template of one."""

    where: str
    labels: dict[str, str]
    annotations: dict[str, str]
    spec: Object

    def containers(self) -> Iterator[Object]:
        """All of them; those that run first too."""
        yield from self.spec.get("initContainers", [])
        yield from self.spec["containers"]


def pods(found: list[Object]) -> list[Pod]:
    """Every pod that these objects lead to, with the labels that KubeRay adds."""
    made = []
    for each in found:
        where, spec = called(each), each.get("spec", {})
        if each["kind"] == "Pod":
            made.append(_pod(where, each))
        elif each["kind"] in ("Deployment", "StatefulSet", "DaemonSet", "Job"):
            made.append(_pod(where, spec["template"]))
        elif each["kind"] == "CronJob":
            made.append(_pod(where, spec["jobTemplate"]["spec"]["template"]))
        elif each["kind"] in ("RayCluster", "RayJob", "RayService"):
            key = {"RayJob": "rayClusterSpec", "RayService": "rayClusterConfig"}
            cluster = spec[key[each["kind"]]] if each["kind"] in key else spec
            name = each["metadata"]["name"]
            head = {"ray.io/node-type": "head", "ray.io/cluster": name}
            made.append(_pod(f"{where} head", cluster["headGroupSpec"]["template"], head))
            for group in cluster.get("workerGroupSpecs", []):
                worker = {"ray.io/node-type": "worker", "ray.io/cluster": name}
                made.append(_pod(f"{where} {group['groupName']}", group["template"], worker))
            if submitter := spec.get("submitterPodTemplate"):
                made.append(_pod(f"{where} submitter", submitter))
    return made


def _pod(where: str, template: Object, added: dict[str, str] | None = None) -> Pod:
    metadata = template.get("metadata", {})
    labels = {**metadata.get("labels", {}), **(added or {})}
    return Pod(where, labels, metadata.get("annotations", {}), template["spec"])


def selected(pod: Pod, selector: Object) -> bool:
    """Whether a selector of matchLabels chooses the pod."""
    assert set(selector) <= {"matchLabels"}, "tests know matchLabels only"
    return selector.get("matchLabels", {}).items() <= pod.labels.items()
