"""`bayling doctor`: what is missing on this machine, and how to get it."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import socket
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PACKAGES = ("ray", "torch", "transformers", "deepspeed", "mlflow", "hydra-core", "sacrebleu")
_MEMORY_GIB = 8
_DISK_GIB = 8


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `remedy` is empty where all is well."""

    what: str
    found: str
    remedy: str = ""


def examine() -> int:
    """Print the findings; returns 0 when nothing is missing, else 1."""
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None)
    missing = 0
    for finding in findings():
        mark = "[red]✗[/]" if finding.remedy else "[green]✓[/]"
        missing += bool(finding.remedy)
        table.add_row(mark, finding.what, finding.found, finding.remedy)
    console = Console(highlight=False)
    console.print(table)
    console.print("nothing is missing" if not missing else f"{missing} to put right")
    return 1 if missing else 0


def findings() -> Iterator[Finding]:
    """Everything that the stages need from a machine, one by one."""
    version = ".".join(map(str, sys.version_info[:3]))
    old = sys.version_info < (3, 11)
    yield Finding("Python", version, "install Python 3.11 or newer" if old else "")
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    there = headers.exists()
    yield Finding(
        "Python headers",
        str(headers.parent) if there else "missing",
        "" if there else "install them (Debian: python3-dev): DeepSpeed compiles a small op",
    )
    for tool, why in (("g++", "DeepSpeed compiles a small op"), ("make", "runs the Makefile")):
        path = shutil.which(tool)
        yield Finding(tool, path or "missing", "" if path else f"install it (Debian): {why}")
    yield from _packages()
    yield from _machine()
    yield _port(8000, "serve.port")


def _packages() -> Iterator[Finding]:
    for name in _PACKAGES:
        try:
            yield Finding(name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, "missing", "pip install 'bayling-platform[all]'")


def _machine() -> Iterator[Finding]:
    yield Finding("CPU cores", str(os.cpu_count()))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    small = memory < _MEMORY_GIB
    yield Finding("memory", f"{memory:.0f} GiB", f"{_MEMORY_GIB} GiB are needed" if small else "")
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    little = free < _DISK_GIB
    yield Finding("free disk", f"{free:.0f} GiB", f"{_DISK_GIB} GiB are needed" if little else "")
    shared = Path("/dev/shm")
    if shared.exists():
        size = shutil.disk_usage(shared).free / 2**30
        tight = size < 1
        yield Finding(
            "shared memory",
            f"{size:.1f} GiB",
            "Ray needs 1 GiB in /dev/shm (docker: --shm-size=2g)" if tight else "",
        )
    yield _gpu()


def _gpu() -> Finding:
    try:
        import torch
    except ImportError:
        return Finding("GPU", "unknown: torch is missing")
    if not torch.cuda.is_available():
        return Finding("GPU", "none: use scale=laptop")
    return Finding("GPU", f"{torch.cuda.device_count()} × {torch.cuda.get_device_name(0)}")


def _port(port: int, key: str) -> Finding:
    with socket.socket() as probe:
        taken = probe.connect_ex(("127.0.0.1", port)) == 0
    return Finding(
        f"port {port}",
        "taken" if taken else "free",
        f"serve elsewhere: {key}=8001" if taken else "",
    )
