"""A batch whose loss is no number or jumps: the run stops and names it, and goes on without it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
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
class Poison:
    """Batches whose loss is no number, or far too large, because of a token in them."""

    steps: list[int]
    """From 1."""
    conversations: set[str]
    """Those of the sequences with the token."""


@dataclass(frozen=True)
class Poisoned:
    """A training with some of each kind; the first one's are met first."""

    overrides: list[str]
    no_number: Poison
    too_large: Poison


@pytest.fixture(scope="module")
def poisoned(nodes: Any, tmp_path_factory: pytest.TempPathFactory) -> Poisoned:
    """A training whose base cannot deal with two tokens that occur in few sequences."""
    folder = tmp_path_factory.mktemp("poisoned")
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
    # Met late, when there are losses to compare with, and seldom.
    late = [token for token, steps in met.items() if steps and steps[0] > 2 * EVERY]
    seldom = sorted((token for token in late if len(met[token]) < 10), key=lambda t: met[t][0])
    first = seldom[0]
    second = next(token for token in seldom if met[token][0] > met[first][0])
    path = base / "model.safetensors"
    tensors = load_file(path)
    tensors["model.embed_tokens.weight"][first] = float("nan")
    _never_expect(tensors, int(second))
    save_file(tensors, path, metadata={"format": "pt"})
    kinds = [Poison(met[t], set(packed.conversations(rows_of[t]))) for t in (first, second)]
    return Poisoned(overrides, *kinds)


def _never_expect(tensors: dict[str, torch.Tensor], token: int) -> None:
    """One dimension of the network is the same everywhere, and makes the token very unlikely."""
    embeddings = tensors["model.embed_tokens.weight"]
    embeddings[:, 0] = torch.where(embeddings[:, 0].isnan(), embeddings[:, 0], 5)
    for name, tensor in tensors.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            tensor[0] = 0
    tensors["lm_head.weight"][:, 0] = 0
    tensors["lm_head.weight"][token, 0] = -1e6


def test_a_bad_batch_stops_the_run_and_the_same_command_goes_on_without_it(
    poisoned: Poisoned,
) -> None:
    """It is named; the advice that comes with it is taken; nothing begins anew."""
    first = poisoned.no_number.steps[0]
    training = Training(poisoned.overrides).start()
    error = training.failed()
    assert isinstance(error, StageFailed)
    assert f"training was stopped at step {first}: the loss is nan" in str(error)
    assert "train.on_bad_step=rollback" in str(error)
    assert training.run().info.status == "FAILED"
    [event] = _bad_steps(training)
    assert poisoned.no_number.conversations & set(event["conversations"])
    assert training.live().totals.restarts == 0, "a second try of the same step is pointless"
    before = training.curve()

    again = Training([*poisoned.overrides, "train.on_bad_step=rollback"])
    assert again.folder == training.folder
    again.start().finish()
    assert again.run().info.status == "FINISHED"
    bad = sorted({*poisoned.no_number.steps, *poisoned.too_large.steps})
    assert list(again.curve()) == [step for step in range(LOG, STEPS + 1, LOG) if step not in bad]
    assert before.items() <= again.curve().items()
    left_out = json.loads((again.folder / "left-out.json").read_text("utf-8"))
    assert [step + 1 for step in left_out] == bad
    assert all(math.isfinite(loss) and loss < 50 for loss in again.curve().values())
    jumps = [event for event in _bad_steps(again) if "times its recent mean" in event["text"]]
    assert [event["step"] for event in jumps] == [
        step for step in poisoned.too_large.steps if step not in poisoned.no_number.steps
    ]
    for event in jumps:
        assert poisoned.too_large.conversations & set(event["conversations"])
    [goes_on] = [text for text in again.events() if text.startswith("an earlier command ended")]
    assert "goes on from step" in goes_on
    assert any("train.on_bad_step=rollback instead of stop" in text for text in again.events())


def _bad_steps(training: Training) -> list[dict[str, Any]]:
    """The events that name a batch."""
    lines = (training.folder / "events.jsonl").read_text("utf-8").splitlines()
    return [event for event in map(json.loads, lines) if "conversations" in event]
