"""A few worker processes joined by `torch.distributed`, without a cluster: one launch, many scenes.

Starting a worker takes seconds (torch and DeepSpeed), a scene of a tiny model a fraction of one:
tests put all scenes that need the same number of workers into one launch.
"""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.multiprocessing as multiprocessing

Scene = tuple[Callable[..., Any], dict[str, Any]]


def play(workers: int, scenes: list[Scene]) -> list[Any]:
    """Run every scene (function, keyword arguments) in each of `workers` processes, in order.

    Returns what the functions returned on rank 0. An exception in any worker is raised here.
    """
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(_worker, (workers, folder, scenes), nprocs=workers)
        return pickle.loads((Path(folder) / "results").read_bytes())


def _worker(rank: int, workers: int, folder: str, scenes: list[Scene]) -> None:
    os.environ |= {
        "LOCAL_RANK": str(rank),
        "RANK": str(rank),
        "WORLD_SIZE": str(workers),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "0",
    }
    import torch.distributed as dist

    from bayling.scale import Device
    from bayling.train.setup import prepare_process

    prepare_process(Device.cpu, 1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=workers
    )
    results = [function(**arguments) for function, arguments in scenes]
    if rank == 0:
        (Path(folder) / "results").write_bytes(pickle.dumps(results))
    dist.barrier()
    dist.destroy_process_group()
