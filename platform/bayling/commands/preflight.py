"""`bayling preflight`: what a cluster's links and software are like, before any weights load."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayling.errors import StageFailed, UserError

if TYPE_CHECKING:
    from bayling.cluster.links import Report
    from bayling.pods import KubernetesConfig

_LITTLE_MIB = 1024


def register(commands: Any) -> None:
    """Add the command to the parsers of `bayling`."""
    text = "GB/s between the workers, versions on each node, and storage that all see"
    added = commands.add_parser(
        "preflight", help=text, description=text[0].upper() + text[1:] + "."
    )
    added.set_defaults(work=_preflight)
    added.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="scale=cluster, scale.workers=16, …"
    )
    added.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")


def _preflight(arguments: argparse.Namespace) -> None:
    from bayling.cluster import links, local
    from bayling.config import compose
    from bayling.stage import write_json
    from bayling.train import placement

    config = compose(arguments.overrides)
    print("starting a worker on each device …", file=sys.stderr, flush=True)
    with local.connected(config.scale):
        report = links.measure(config.scale)
        placement.check_shared("output_dir", Path(config.folder), config.scale)
    _show(report, config.scale.kubernetes)
    if arguments.json is not None:
        figures = {
            "all_reduce": [
                {"mib": s.mib, "algorithm_gbs": s.algorithm_gbs, "bus_gbs": s.bus_gbs}
                for s in report.sizes
            ],
            "links": [{"nodes": link.nodes, "gbs": link.gbs} for link in report.links],
            "workers": report.workers,
            "mismatches": report.mismatches,
            "slow": report.slow,
        }
        try:
            write_json(arguments.json, figures)
        except OSError as error:
            raise UserError(f"cannot write {arguments.json}: {error.strerror}") from None
    print(f"{config.folder} is seen by all nodes")
    found = report.mismatches + report.slow
    if found:
        raise StageFailed("; ".join(found))
    print("nothing is wrong with it")


def _show(report: Report, given: KubernetesConfig) -> None:
    from rich.console import Console
    from rich.table import Table

    from bayling.pods import Network

    console = Console(soft_wrap=True)
    table = Table("all-reduce", "time", "algorithm", "bus", box=None, pad_edge=False)
    for size in report.sizes:
        table.add_row(
            f"{size.mib:g} MiB, {size.workers} workers",
            f"{1000 * size.seconds:.1f} ms",
            f"{size.algorithm_gbs:.2f} GB/s",
            f"{size.bus_gbs:.2f} GB/s",
        )
    console.print(table)
    table = Table("link", "between", "bandwidth", box=None, pad_edge=False)
    for link in report.links:
        where = "one node" if link.within_a_node else " and ".join(link.nodes)
        table.add_row(f"{link.ranks[0]} – {link.ranks[1]}", where, f"{link.gbs:.2f} GB/s")
    if report.links:
        console.print(table)
    table = Table("node", "workers", "software", box=None, pad_edge=False)
    for node in dict.fromkeys(worker.node for worker in report.workers):
        there = [worker for worker in report.workers if worker.node == node]
        software = " · ".join(f"{name} {value}" for name, value in there[0].versions.items())
        table.add_row(node, str(len(there)), software)
    console.print(table)
    locked = [worker.locked_mib for worker in report.workers if worker.locked_mib is not None]
    if given.network is not Network.tcp and locked and min(locked) < _LITTLE_MIB:
        console.print(
            f"memory that may be locked: {min(locked):.0f} MiB, too little for RDMA unless the "
            "processes are root with IPC_LOCK: see docs/kubernetes.md"
        )
