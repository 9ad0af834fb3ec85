from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import ground
import pytest
import torch

from bayling.errors import UserError
from bayling.model import ModelConfig
from bayling.scale import ScaleConfig
from bayling.stage import TrackedRun, read_json, write_json
from bayling.train import fitting, layout
from bayling.train.batches import PackedTokens
from bayling.train.config import Offload, OnBadStep, Precision, TrainConfig
from bayling.train.export import Origin
from bayling.train.failures import OutOfMemory, TooLarge
from bayling.train.fitting import explained_while_loading, smaller
from bayling.train.layout import Layout
from bayling.train.settings import Settings

pytestmark = pytest.mark.unit

OUT = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore about it.")


def settings(folder: Path, micro_batch: int | None = None) -> Settings:
    model = ModelConfig()
    return Settings(
        train=TrainConfig(micro_batch=micro_batch, precision=Precision.fp32),
        model=model,
        scale=ScaleConfig(),
        packed=folder,
        heldout=folder,
        tokenizer=folder,
        folder=folder,
        steps=10,
        seed=1,
        fingerprint="f",
        launch="l",
        tracked=TrackedRun("sqlite:///x.db", "0", "r"),
        origin=Origin(model, [], {}, {}, "d", "r", 10),
    )


def laid_out(micro_batch: int) -> Layout:
    return Layout(2, Offload.none, Offload.none, micro_batch, 1, ())


def events(folder: Path) -> list[str]:
    lines = (folder / "events.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


def test_a_micro_batch_that_was_found_is_halved(tmp_path: Path) -> None:
    for begun in (False, True):
        made = smaller(settings(tmp_path), laid_out(8), OUT, begun)
        assert isinstance(made, TooLarge)
    assert json.loads((tmp_path / fitting.MICRO_BATCH).read_text()) == 4
    said = "out of memory with a micro batch of 8 (CUDA out of memory. Tried to allocate 2 GiB.)"
    assert events(tmp_path) == 2 * [f"{said}: 4 now"]


@pytest.mark.parametrize(
    ("asked", "there", "remedy"),
    [(8, 8, "set a smaller train.micro_batch"), (None, 1, "train.zero_stage=3")],
)
def test_where_there_is_no_smaller_one_the_ways_out_are_named(
    tmp_path: Path, asked: int | None, there: int, remedy: str
) -> None:
    """In the first step another attempt would end alike; later it may have been bad luck."""
    at_once = smaller(settings(tmp_path, asked), laid_out(there), OUT, begun=False)
    later = smaller(settings(tmp_path, asked), laid_out(there), OUT, begun=True)
    assert isinstance(at_once, UserError)
    assert isinstance(later, OutOfMemory)
    for made in (at_once, later):
        assert remedy in str(made)
        assert "\n" not in str(made)
    assert not (tmp_path / fitting.MICRO_BATCH).exists()


@pytest.mark.parametrize(
    "error",
    [
        OUT,
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate "
                     "memory: you tried to allocate 9 bytes."),
    ],
)  # fmt: skip
def test_a_model_that_does_not_load_is_the_users_to_deal_with(error: Exception) -> None:
    with pytest.raises(UserError, match="out of memory while the model was loaded"):  # noqa: SIM117
        with explained_while_loading():
            raise error


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shape"), explained_while_loading():
        raise RuntimeError("shape mismatch")
    assert not fitting.is_out_of_memory(RuntimeError("shape mismatch"))


def test_a_layout_survives_being_written(tmp_path: Path) -> None:
    made = Layout(3, Offload.cpu, Offload.nvme, 4, 2, ("because", "of this"))
    write_json(tmp_path / "layouts.json", {"x": made})
    assert Layout.of(read_json(tmp_path / "layouts.json", {})["x"]) == made


def test_a_layout_is_remembered_as_long_as_nothing_it_hangs_on_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU it follows from the memory that is free just now."""
    packed = PackedTokens(ground.make(tmp_path) / "clean" / "packed")
    monkeypatch.setattr(layout, "free_memory", lambda: 2**35)
    first = settings(tmp_path)
    made = fitting.layout_for(first, packed, 2)
    assert made.micro_batch == 4
    # So little that a new one would be refused.
    monkeypatch.setattr(layout, "free_memory", lambda: 2**20)
    other = replace(first, train=replace(first.train, on_bad_step=OnBadStep.rollback))
    assert fitting.layout_for(other, packed, 2) == made
    with pytest.raises(UserError, match="does not fit"):
        fitting.layout_for(first, packed, 1)
    monkeypatch.setattr(layout, "free_memory", lambda: 2**35)
    write_json(tmp_path / fitting.MICRO_BATCH, 1)
    assert fitting.layout_for(first, packed, 2).micro_batch == 1
    by_hand = replace(first, train=replace(first.train, micro_batch=2))
    assert fitting.layout_for(by_hand, packed, 2).micro_batch == 2
