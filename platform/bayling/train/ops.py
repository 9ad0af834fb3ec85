"""DeepSpeed's compiled parts, built once a machine by whoever comes first.

DeepSpeed compiles on first use, and torch guards the build by a file that stays behind when the
builder is killed: every later process then waits for it without end. Here workers queue up at a
lock that the kernel lets go of with the process, and clear away what a dead builder left.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bayling.errors import UserError
from bayling.train.config import Offload
from bayling.train.layout import Layout

_ABANDONED_S = 180.0
"""A build takes half a minute; one of another program is given this long."""


def build(layout: Layout) -> None:
    """Have the ops that this layout needs, compiled and loaded.

    Raises:
        UserError: this machine lacks what offload to nvme reads and writes with.
    """
    from deepspeed.accelerator import get_accelerator

    names = ["ShareMemCommBuilder"] if get_accelerator().device_name() == "cpu" else []
    if layout.offload_optimizer is not Offload.none:
        names.append("CPUAdamBuilder")
    if Offload.nvme in (layout.offload_optimizer, layout.offload_parameters):
        names.append("AsyncIOBuilder")
    for name in names:
        builder = get_accelerator().create_op_builder(name)
        if name == "AsyncIOBuilder" and not builder.is_compatible(verbose=False):
            raise UserError(
                "offload to nvme needs the library libaio with its headers on every node: "
                "apt-get install libaio-dev, or train.offload_optimizer=cpu"
            )
        with _alone(_folder(builder.name)):
            builder.load(verbose=False)


def _folder(name: str) -> Path:
    from torch.utils.cpp_extension import _get_build_directory

    return Path(_get_build_directory(name, verbose=False))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".queue").open("w") as queue:
        fcntl.flock(queue, fcntl.LOCK_EX)
        _clear_away(folder / "lock")
        yield


def _clear_away(left_behind: Path) -> None:
    """Nobody of ours builds now: what is there is of a process that died, or of another program."""
    while True:
        try:
            age = time.time() - left_behind.stat().st_mtime
        except FileNotFoundError:
            return
        if age > _ABANDONED_S:
            left_behind.unlink(missing_ok=True)
            return
        time.sleep(min(1.0, _ABANDONED_S - age + 0.1))
