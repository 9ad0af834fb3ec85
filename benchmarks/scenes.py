"""What `train.py` measures besides speed: a program that every worker runs to its end.

    python scenes.py losses|checkpoints FOLDER      with RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT

Its answer is a line of JSON on standard output.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from setting import Setting

STEPS = 12
SAVES = 7
LARGER = {"hidden_size": 512, "intermediate_size": 1376, "layers": 12, "heads": 8, "kv_heads": 8}
"""A model whose state takes long enough to write to be measured: 41 M parameters."""


def losses(setting: Setting) -> dict[str, list[float]]:
    """The losses of the first steps in fp32: under ZeRO 0–3 with two workers, else under 2."""
    import torch.distributed as dist

    from bayling.train.config import Precision

    curves = {}
    for stage in (0, 1, 2, 3) if dist.get_world_size() == 2 else (2,):
        trainer = setting.trainer(steps=STEPS, precision=Precision.fp32, zero_stage=stage)
        curves[str(stage)] = [trainer.step(index).losses.mean for index in range(STEPS)]
        del trainer
    return curves


def checkpoints(setting: Setting) -> dict[str, Any]:
    """Seconds that training stands still for a checkpoint.

    `pauses`: for the platform's; `whole`: if it waited until that is written and synced;
    `saves`: for DeepSpeed's own.
    """
    import torch

    from bayling.train import state
    from bayling.train.checkpoint import Progress
    from bayling.train.writer import Writer

    trainer = setting.trainer(model=LARGER)
    for step in range(2):
        trainer.step(step)
    writer = Writer(
        setting.folder / "checkpoints",
        rank=trainer.rank,
        workers=trainer.workers,
        attempt="bench",
        newest=1,
        best=0,
    )
    shapes = state.shapes(trainer.engine)
    theirs = setting.folder / "deepspeed"
    result: dict[str, Any] = {
        "parameters": trainer.parameters,
        "pauses": [],
        "whole": [],
        "saves": [],
    }
    for number in range(SAVES):
        _together()
        writer.pause_s, started = 0.0, time.perf_counter()
        writer.save(trainer.pieces(), Progress(number, trainer.workers, "bench", shapes))
        result["pauses"].append(_slowest(writer.pause_s))
        writer.wait()
        assert writer.failure is None, writer.failure
        result["whole"].append(_slowest(time.perf_counter() - started))
        _together()
        started = time.perf_counter()
        trainer.engine.save_checkpoint(str(theirs), tag=str(number))
        result["saves"].append(_slowest(time.perf_counter() - started))
        if trainer.rank == 0:
            size = sum(path.stat().st_size for path in theirs.rglob("*.pt"))
            result["deepspeed_bytes"] = size
            shutil.rmtree(theirs)
        torch.distributed.barrier()
    return result


def _together() -> None:
    import torch.distributed as dist

    dist.barrier()


def _slowest(seconds: float) -> float:
    import torch
    import torch.distributed as dist

    vector = torch.tensor(seconds, dtype=torch.float64)
    dist.all_reduce(vector, dist.ReduceOp.MAX)
    return float(vector)


SCENES: dict[str, Callable[[Setting], dict[str, Any]]] = {
    "losses": losses,
    "checkpoints": checkpoints,
}


def main() -> None:
    import torch.distributed as dist

    from bayling.scale import Device
    from bayling.train import setup

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    setup.prepare_process(Device.cpu, 1)
    dist.init_process_group("gloo")
    answers.write(json.dumps(SCENES[sys.argv[1]](Setting.read(Path(sys.argv[2])))) + "\n")
    answers.flush()
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
