"""The optimizer's state and the weights in main memory or on a disk, as on a GPU that is too small.

DeepSpeed does the same on a CPU. What it compiles for this takes a minute or three the first time.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gang
import ground
import numpy as np
import pytest
import scenes

from bayling.train.config import Offload, Precision, TrainConfig

pytestmark = [pytest.mark.drill, pytest.mark.timeout(1200)]

STEPS, SAVED = 6, 3
# Large enough that DeepSpeed does move it: it keeps what is below 1 MiB where it is.
MODEL = replace(ground.MODEL, hidden_size=256, intermediate_size=688)
TO_MEMORY = {
    Precision.fp32: [(1, Offload.cpu, Offload.none), (3, Offload.cpu, Offload.cpu)],
    Precision.bf16: [(2, Offload.cpu, Offload.none), (3, Offload.cpu, Offload.none)],
}
TO_DISK = [(3, Offload.nvme, Offload.nvme)]


def _check(folder: Path, places: list[tuple[int, Offload, Offload]], precision: Precision) -> None:
    """The losses are those of training without offload, and a resumed run differs in no bit."""
    made = ground.make(folder)
    plain = replace(ground.FULL, precision=precision, learning_rate=2e-3, weight_decay=0.1)
    common = {"model": MODEL, "folder": made / "clean", "steps": STEPS}

    def scene(config: TrainConfig, **more: object) -> gang.Scene:
        return scenes.train, {"config": config, **common, **more}

    cast = []
    for index, (stage, optimizer, parameters) in enumerate(places):
        here = replace(plain, zero_stage=stage)
        away = replace(
            here,
            offload_optimizer=optimizer,
            offload_parameters=parameters,
            nvme_path=str(folder / f"disk-{index}"),
        )
        root = folder / f"saved-{index}"
        cast += [scene(here), scene(away, save={SAVED: root}), scene(away, resume=root)]
    results = gang.play(2, cast)
    for index, place in enumerate(places):
        usual, whole, resumed = results[3 * index : 3 * index + 3]
        close = 1e-5 if precision is Precision.fp32 else 5e-3
        for step, loss in usual["losses"].items():
            assert whole["losses"][step] == pytest.approx(loss, rel=close), place
        assert resumed["losses"].items() <= whole["losses"].items(), place
        np.testing.assert_equal(resumed["weights"], whole["weights"], str(place))


@pytest.mark.parametrize("precision", TO_MEMORY)
def test_offload_to_main_memory_changes_nothing(tmp_path: Path, precision: Precision) -> None:
    _check(tmp_path, TO_MEMORY[precision], precision)


def test_offload_to_a_disk_changes_nothing(tmp_path: Path) -> None:
    from deepspeed.ops.op_builder.cpu import AsyncIOBuilder

    if not AsyncIOBuilder().is_compatible(verbose=False):
        pytest.skip("libaio is not installed: apt-get install libaio-dev")
    _check(tmp_path, TO_DISK, Precision.bf16)
    for index in range(len(TO_DISK)):
        swapped = list((tmp_path / f"disk-{index}").rglob("*exp_avg*.swp"))
        assert swapped, "nothing was moved to the disk"
