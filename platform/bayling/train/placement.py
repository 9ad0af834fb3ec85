"""Whether the cluster has what training asks for, and sees where training writes."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from bayling.errors import UserError
from bayling.scale import Device, ScaleConfig


def per_worker(scale: ScaleConfig) -> dict[str, float]:
    """Ray's resources for one worker."""
    gpu = {} if scale.device is Device.cpu else {"GPU": 1.0}
    return {"CPU": float(scale.cpus_per_worker)} | gpu


def check(scale: ScaleConfig, folder: Path) -> None:
    """Refuse to start where it cannot end well.

    Raises:
        UserError: too few CPUs or GPUs, or a node that does not see `folder`.
    """
    import ray

    least = scale.min_workers or scale.workers
    there = ray.cluster_resources()
    for key, number in per_worker(scale).items():
        if there.get(key, 0) < number * least:
            name = "scale.min_workers" if scale.min_workers else "scale.workers"
            raise UserError(
                f"{name}={least} needs {number * least:g} {key}s and the Ray cluster has "
                f"{there.get(key, 0):g}: lower {name}"
            )
    _check_storage(folder, [node for node in ray.nodes() if _can_work(node, scale)])


def _can_work(node: dict[str, Any], scale: ScaleConfig) -> bool:
    resources = node["Resources"]
    enough = all(resources.get(key, 0) >= number for key, number in per_worker(scale).items())
    return bool(node["Alive"]) and enough


def _check_storage(folder: Path, nodes: list[dict[str, Any]]) -> None:
    """Checkpoints are written by every node and read by any: all must see one folder."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    mark = folder / f".seen-by-all-{uuid.uuid4().hex[:8]}"
    mark.touch()

    def sees(path: str) -> bool:
        return Path(path).exists()

    try:
        task = ray.remote(sees)
        asked = {}
        for node in nodes:
            here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            asked[node["NodeManagerAddress"]] = task.options(
                num_cpus=0, scheduling_strategy=here
            ).remote(str(mark))
        blind = [address for address, answer in asked.items() if not ray.get(answer)]
    finally:
        mark.unlink(missing_ok=True)
    if blind:
        raise UserError(
            f"{folder} is not seen by {', '.join(sorted(blind))}: set output_dir to storage that "
            "all nodes share"
        )
