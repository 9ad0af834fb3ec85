"""Whether the cluster has what training asks for, and sees where training writes."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bayling.errors import UserError
from bayling.scale import Device, ScaleConfig

_ANSWER_S = 120.0
"""How long a node may take to look: a worker process has to start, and storage to answer."""


def per_worker(scale: ScaleConfig) -> dict[str, float]:
    """Ray's resources for one worker."""
    gpu = {} if scale.device is Device.cpu else {"GPU": 1.0}
    return {"CPU": float(scale.cpus_per_worker)} | gpu


def check(scale: ScaleConfig, folder: Path, base: Path | None = None) -> None:
    """Refuse to start where it cannot end well.

    Args:
        folder: what is written to; `base`: the folder of the weights that training starts from.

    Raises:
        UserError: too few CPUs or GPUs, or a node that does not see one of the folders.
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
    nodes = [node for node in ray.nodes() if _can_work(node, scale)]
    # Checkpoints are written by every node and read by any.
    with marked(folder) as mark:
        _check_seen("output_dir", folder, mark, nodes)
    if base is not None:
        _check_seen("model.base", base, base / "config.json", nodes)


def check_shared(key: str, folder: Path, scale: ScaleConfig) -> None:
    """See that all nodes that can work see a folder; `key` is what the user sets it with.

    Raises:
        UserError: one does not, or nothing can be written there.
    """
    import ray

    nodes = [node for node in ray.nodes() if _can_work(node, scale)]
    with marked(folder) as mark:
        _check_seen(key, folder, mark, nodes)


@contextmanager
def marked(folder: Path) -> Iterator[Path]:
    """A file of its own in a folder, for as long as the block."""
    mark = folder / f".seen-by-all-{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError as error:
        raise UserError(f"cannot write to {folder} ({error.strerror})") from None
    try:
        yield mark
    finally:
        mark.unlink(missing_ok=True)


def _can_work(node: dict[str, Any], scale: ScaleConfig) -> bool:
    resources = node["Resources"]
    enough = all(resources.get(key, 0) >= number for key, number in per_worker(scale).items())
    return bool(node["Alive"]) and enough


def _check_seen(key: str, folder: Path, file: Path, nodes: list[dict[str, Any]]) -> None:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    def sees(path: str) -> bool:
        return Path(path).exists()

    task = ray.remote(sees)
    asked = {}
    for node in nodes:
        here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        answer = task.options(num_cpus=0, scheduling_strategy=here).remote(str(file))
        asked[answer] = f"{node['NodeManagerAddress']} ({node['NodeID'][:8]})"
    ready, late = ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER_S)
    blind = sorted(asked[answer] for answer in ready if not _answer(answer))
    if blind:
        raise UserError(
            f"{folder} is not seen by {', '.join(blind)}: set {key} to storage that all nodes share"
        )
    if late:
        silent = ", ".join(sorted(asked[answer] for answer in late))
        raise UserError(
            f"{silent} did not say within {_ANSWER_S:g} s whether {folder} is there: is its "
            "storage mounted, and does it answer?"
        )


def _answer(reference: Any) -> bool:
    import ray

    try:
        return bool(ray.get(reference))
    except ray.exceptions.RayError:
        return True  # the node is gone, which is for training itself to find out
