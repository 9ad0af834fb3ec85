"""A batch whose loss is no number or jumps: the run stops and names it, and goes on without it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from disturbed import Training, in_fp32
from running import Recorder
from safetensors.torch import load_file, save_file
from tiny_model import make_model

from bayling.config import compose
from bayling.errors import StageFailed
from bayling.pipeline import Pipeline
from bayling.train.batches import Order, PackedTokens

pytestmark = [pytest.mark.drill, pytest.mark.timeout(1200)]

STEPS, EVERY, LOG = 60, 10, 5


@dataclass(frozen=True)
class Poisoned:
    """A training in which the loss of some batches is no number, or far too large."""

    overrides: list[str]
    steps: list[int]
    """From 1."""
    conversations: set[str]
    """Those of the sequences with the token."""


def _poisoned(folder: Path, poison: Callable[[dict[str, torch.Tensor], int], None]) -> Poisoned:
    """A training whose base cannot deal with a token that occurs in few sequences."""
    base = make_model(folder / "base")
    overrides = [
        *in_fp32(STEPS, EVERY, LOG),
        f"output_dir={folder / 'out'}",
        f"model.base={base}",
        "model.context_length=256",
        "data.conversations=1800",  # one epoch for all steps: a token can be met late
        "train.learning_rate=1e-3",
    ]
    pipeline = Pipeline(compose(overrides), Recorder())
    pipeline.run_stage("data")
    packed = PackedTokens(pipeline.folder("data") / "packed")
    batch = packed.batch(np.arange(len(packed)))
    ids, labels = batch["input_ids"].numpy(), batch["labels"].numpy()
    rows_of = {token: np.flatnonzero((ids == token).any(1)) for token in np.unique(ids)}
    order = Order(len(packed), pipeline.config.train.global_batch, pipeline.config.seed)
    batches = [order.step(step) for step in range(STEPS)]
    met = {
        token: [step + 1 for step, batch in enumerate(batches) if np.isin(rows, batch).any()]
        for token, rows in rows_of.items()
        if (labels[rows] == token).any(1).all()  # read and written in the same sequences
    }
    # One that is met late, when there are losses to compare with, and seldom.
    token = max(met, key=lambda token: (len(met[token]) < 10, met[token][:1]))
    steps, rows = met[token], rows_of[token]
    assert 2 * EVERY < steps[0] < STEPS
    path = base / "model.safetensors"
    tensors = load_file(path)
    poison(tensors, int(token))
    save_file(tensors, path, metadata={"format": "pt"})
    return Poisoned(overrides, steps, set(packed.conversations(rows)))


def _no_number(tensors: dict[str, torch.Tensor], token: int) -> None:
    tensors["model.embed_tokens.weight"][token] = float("nan")


def _never_expected(tensors: dict[str, torch.Tensor], token: int) -> None:
    """One dimension of the network is the same everywhere, and makes the token very unlikely."""
    tensors["model.embed_tokens.weight"][:, 0] = 5
    for name, tensor in tensors.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            tensor[0] = 0
    tensors["lm_head.weight"][:, 0] = 0
    tensors["lm_head.weight"][token, 0] = -1e6


@pytest.fixture(scope="module")
def poisoned(nodes: Any, tmp_path_factory: pytest.TempPathFactory) -> Poisoned:
    return _poisoned(tmp_path_factory.mktemp("poisoned"), _no_number)


@pytest.fixture(scope="module")
def spiking(nodes: Any, tmp_path_factory: pytest.TempPathFactory) -> Poisoned:
    return _poisoned(tmp_path_factory.mktemp("spiking"), _never_expected)


@pytest.mark.parametrize(
    ("which", "trouble"), [("poisoned", r"the loss is nan"), ("spiking", "times its recent mean")]
)
def test_a_bad_batch_stops_the_run_and_the_same_command_goes_on_without_it(
    request: pytest.FixtureRequest, which: str, trouble: str
) -> None:
    """It is named; the advice that comes with it is taken; nothing begins anew."""
    bad: Poisoned = request.getfixturevalue(which)
    training = Training(bad.overrides).start()
    error = training.failed()
    assert isinstance(error, StageFailed)
    assert f"training was stopped at step {bad.steps[0]}: " in str(error)
    assert trouble in str(error)
    assert "train.on_bad_step=rollback" in str(error)
    assert training.run().info.status == "FAILED"
    lines = (training.folder / "events.jsonl").read_text("utf-8").splitlines()
    [event] = [json.loads(line) for line in lines]
    assert bad.conversations & set(event["conversations"])
    assert training.live().totals.restarts == 0, "a second try of the same step is pointless"
    before = training.curve()

    again = Training([*bad.overrides, "train.on_bad_step=rollback"])
    assert again.folder == training.folder
    again.start().finish()
    assert again.run().info.status == "FINISHED"
    logged = [step for step in range(LOG, STEPS + 1, LOG) if step not in bad.steps]
    assert list(again.curve()) == logged
    assert before.items() <= again.curve().items()
    left_out = json.loads((again.folder / "left-out.json").read_text("utf-8"))
    assert [step + 1 for step in left_out] == bad.steps
    assert all(math.isfinite(loss) and loss < 50 for loss in again.curve().values())
    [goes_on] = [text for text in again.events() if text.startswith("an earlier command ended")]
    assert "goes on from step" in goes_on
    assert any("train.on_bad_step=rollback instead of stop" in text for text in again.events())
