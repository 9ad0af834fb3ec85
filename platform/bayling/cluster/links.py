"""How fast the workers of a cluster reach each other: an all-reduce over all, and over each pair.

Bandwidths are those of NVIDIA's nccl-tests: the algorithm's is bytes over time; the bus's is that
times 2(n-1)/n, which every link carries, so that numbers of workers can be compared.
https://github.com/NVIDIA/nccl-tests/blob/master/doc/PERFORMANCE.md
"""

from __future__ import annotations

import importlib.metadata
import os
import socket
import statistics
import time
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from bayling.errors import StageFailed, UserError
from bayling.scale import Device, ScaleConfig

SLOW = 0.5
"""A link with less than this part of the median of its kind is reported as broken."""
_MIB = 2**20
_STARTED_WITHIN_S = 300.0
_VERSIONS = ("torch", "deepspeed", "ray", "transformers")
_PAIR_MIB = {"cpu": 16, "cuda": 128}
_SIZES_MIB = {"cpu": (1, 4, 16), "cuda": (1, 8, 64, 256, 1024)}
_REPEATS = 5


@dataclass(frozen=True)
class Worker:
    """Where a worker runs and what is installed there."""

    rank: int
    node: str
    versions: dict[str, str]
    """Driver, CUDA, NCCL, packages and image, as far as they are there."""
    locked_mib: float | None
    """Memory that may be locked, which RDMA registers; None for any amount."""


@dataclass(frozen=True)
class Size:
    """An all-reduce over all workers."""

    mib: float
    seconds: float
    workers: int

    @property
    def algorithm_gbs(self) -> float:
        """GB/s of the data that was reduced."""
        return self.mib * _MIB / self.seconds / 1e9

    @property
    def bus_gbs(self) -> float:
        """GB/s on each worker's link."""
        return self.algorithm_gbs * 2 * (self.workers - 1) / self.workers


@dataclass(frozen=True)
class Link:
    """An all-reduce of two workers."""

    ranks: tuple[int, int]
    nodes: tuple[str, str]
    gbs: float

    @property
    def within_a_node(self) -> bool:
        return self.nodes[0] == self.nodes[1]


@dataclass
class Report:
    """What was found."""

    workers: list[Worker]
    sizes: list[Size]
    links: list[Link]
    mismatches: list[str] = field(default_factory=list)
    slow: list[str] = field(default_factory=list)


def measure(scale: ScaleConfig) -> Report:
    """Start a worker on each device of the scale and measure. Ray must be connected.

    Raises:
        UserError: the cluster has no room for so many workers.
        StageFailed: they cannot reach each other.
    """
    import ray
    from ray.exceptions import GetTimeoutError, RayError
    from ray.util.placement_group import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    bundle: dict[str, float] = {"CPU": scale.cpus_per_worker}
    if scale.device is Device.cuda:
        bundle["GPU"] = 1
    group = placement_group([bundle] * scale.workers, strategy="PACK")
    try:
        if not group.wait(_STARTED_WITHIN_S):
            raise UserError(
                f"the cluster has no room for scale.workers={scale.workers} with {bundle} each "
                f"({ {k: v for k, v in ray.cluster_resources().items() if k in bundle} } in all)"
            )
        actor = ray.remote(_Member)
        members = [
            actor.options(
                num_cpus=bundle["CPU"],
                num_gpus=bundle.get("GPU", 0),
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, rank),
            ).remote(rank, scale.workers, scale.device.value)
            for rank in range(scale.workers)
        ]
        try:
            address = ray.get(members[0].address.remote(), timeout=_STARTED_WITHIN_S)
            workers = ray.get([one.join.remote(address) for one in members], timeout=600)
            sizes = ray.get([one.sizes.remote() for one in members], timeout=1800)[0]
            pairs = _pairs([worker.node for worker in workers])
            timed = ray.get([one.pairs.remote(pairs) for one in members], timeout=3600)
        except GetTimeoutError:
            raise StageFailed(
                "the workers do not reach each other: are all ports open between the pods of a "
                "cluster, and is scale.kubernetes.interface the right one?"
            ) from None
        except RayError as error:
            reason = str(getattr(error, "cause", None) or error).strip().splitlines()[-1]
            raise StageFailed(f"the workers cannot work together: {reason}") from None
    finally:
        remove_placement_group(group)
    links = []
    for place, (a, b) in enumerate(pairs):
        seconds = timed[a][place]
        nodes = (workers[a].node, workers[b].node)
        size = _PAIR_MIB[scale.device.value] * _MIB
        links.append(Link((a, b), nodes, size / seconds / 1e9))
    return Report(workers, sizes, links, mismatches(workers), slow(links))


def mismatches(workers: list[Worker]) -> list[str]:
    """Versions in which nodes differ, as sentences."""
    found = []
    for name in sorted({name for worker in workers for name in worker.versions}):
        nodes: dict[str, set[str]] = {}
        for worker in workers:
            nodes.setdefault(worker.versions.get(name, "none"), set()).add(worker.node)
        if len(nodes) > 1:
            told = "; ".join(f"{v} on {', '.join(sorted(n))}" for v, n in sorted(nodes.items()))
            found.append(f"{name} differs between workers: {told}")
    return found


def slow(links: list[Link]) -> list[str]:
    """Links far below the median of their kind (within a node, or between two), as sentences."""
    found = []
    for within in (True, False):
        kind = [link for link in links if link.within_a_node is within]
        if len(kind) < 2:
            continue
        median = statistics.median(link.gbs for link in kind)
        for link in kind:
            if link.gbs < SLOW * median:
                a, b = link.ranks
                found.append(
                    f"the link between worker {a} on {link.nodes[0]} and worker {b} on "
                    f"{link.nodes[1]} has {link.gbs:.2f} GB/s, the median is {median:.2f}"
                )
    return found


def _pairs(nodes: list[str]) -> list[tuple[int, int]]:
    """Each pair of nodes by one worker each, and neighbours within a node."""
    first: dict[str, int] = {}
    for rank, node in enumerate(nodes):
        first.setdefault(node, rank)
    between = list(combinations(first.values(), 2))
    within = [(r - 1, r) for r in range(1, len(nodes)) if nodes[r - 1] == nodes[r]]
    return [*between, *within]


class _Member:
    """A worker; a Ray actor. Calls are made to all members at a time, in the same order."""

    def __init__(self, rank: int, workers: int, device: str) -> None:
        self._rank, self._workers, self._device = rank, workers, device

    def address(self) -> str:
        """Where the others find this one."""
        import ray

        with socket.socket() as probe:
            probe.bind(("", 0))
            port = probe.getsockname()[1]
        host = ray.util.get_node_ip_address()
        return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"

    def join(self, address: str) -> Worker:
        from datetime import timedelta

        import ray
        import torch
        from torch import distributed

        if self._device == "cuda":
            torch.cuda.set_device(0)
        distributed.init_process_group(
            "nccl" if self._device == "cuda" else "gloo",
            init_method=address,
            rank=self._rank,
            world_size=self._workers,
            timeout=timedelta(seconds=_STARTED_WITHIN_S),
        )
        context: Any = ray.get_runtime_context()
        node = f"{ray.util.get_node_ip_address()} ({context.get_node_id()[:8]})"
        return Worker(self._rank, node, _versions(), _locked_mib())

    def sizes(self) -> list[Size]:
        return [Size(mib, self._time(mib, None), self._workers) for mib in _SIZES_MIB[self._device]]

    def pairs(self, pairs: list[tuple[int, int]]) -> list[float]:
        """Seconds of each pair; 0 for those of others."""
        from torch import distributed

        found = []
        for pair in pairs:
            group = distributed.new_group(list(pair))  # by everybody, in the same order
            mine = self._rank in pair
            found.append(self._time(_PAIR_MIB[self._device], group) if mine else 0.0)
            distributed.barrier()
        return found

    def _time(self, mib: int, group: Any) -> float:
        """The median of some all-reduces, after one to warm up."""
        import torch
        from torch import distributed

        data = torch.ones(mib * _MIB // 4, device=self._device)
        taken = []
        for _ in range(1 + _REPEATS):
            distributed.barrier(group=group)
            began = time.perf_counter()
            distributed.all_reduce(data, group=group)
            if self._device == "cuda":
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - began)
            data.fill_(1.0)
        return statistics.median(taken[1:])


def _versions() -> dict[str, str]:
    import platform

    import torch

    found = {"python": platform.python_version()}
    for package in _VERSIONS:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    if image := os.environ.get("BAYLING_IMAGE"):
        found["image"] = image
    if torch.cuda.is_available():
        found["cuda"] = str(torch.version.cuda)
        nccl: Any = torch.cuda.nccl  # has no annotations
        found["nccl"] = ".".join(map(str, nccl.version()))
        found["gpu"] = torch.cuda.get_device_name(0)
        if driver := _driver():
            found["driver"] = driver
    return found


def _driver() -> str | None:
    """The version of NVIDIA's driver, from the kernel's own file."""
    from pathlib import Path

    try:
        words = Path("/proc/driver/nvidia/version").read_text("utf-8").split()
    except OSError:
        return None
    return next((word for word in words if word[:1].isdigit() and word.count(".") >= 1), None)


def _locked_mib() -> float | None:
    import resource

    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    return None if limit == resource.RLIM_INFINITY else limit / _MIB
