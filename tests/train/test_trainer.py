"""The trainer computes the same whatever the number of workers and the ZeRO stage, goes on as if
nothing had happened, and leaves out a step that would do harm.

Every number of workers is launched once and plays all its scenes; a test looks at what came out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gang
import numpy as np
import pytest
import scenes
import torch
from ground import FULL, MODEL, POISON, SEQUENCES, make
from transformers import LlamaForCausalLM

from bayling.model import ModelConfig
from bayling.train.batches import Order, PackedTokens, micro_steps
from bayling.train.checkpoint import complete
from bayling.train.config import LoraConfig, OnBadStep, Precision, TrainConfig
from bayling.train.schedule import learning_rate

STEPS, SAVED, STAGES = 6, 3, range(4)
FP32, BF16 = Precision.fp32, Precision.bf16
LORA = LoraConfig(rank=4, alpha=16.0, dropout=0.0)
WITH_LORA = replace(FULL, lora=LORA, weight_decay=0.5)
KINDS = {"all weights": FULL, "adapters": WITH_LORA}
CASES = [(kind, stage) for kind in KINDS for stage in STAGES]
DROPPING = [(0, FP32), (2, BF16), (3, FP32)]
BATCHES = [(6, 1, 0), (6, 1, 2), (6, 3, 2), (1, 1, 3)]
"""Global batch, micro batch, ZeRO stage."""


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("ground"))


def model_of(kind: str, ground: Path) -> ModelConfig:
    return replace(MODEL, base=str(ground / "clean" / "base")) if kind == "adapters" else MODEL


def at(kind: str, stage: int, precision: Precision = FP32) -> TrainConfig:
    config = replace(KINDS[kind], zero_stage=stage, precision=precision)
    # Steps so large that they make rounding errors of bf16 large, too.
    return replace(config, learning_rate=2e-3, weight_decay=0.1) if precision is BF16 else config


class Plan:
    """The scenes of every number of workers, and what came of them, by name."""

    def __init__(self, ground: Path, saves: Path) -> None:
        self.ground, self.saves = ground, saves
        self.results: dict[Any, Any] = {}
        self._scenes: dict[Any, gang.Scene] = {}

    def root(self, way: str, kind: str, stage: int, precision: Precision) -> Path:
        """Where the checkpoints of a run lie."""
        return self.saves / f"{way} {kind} {stage} {precision.value}"

    def add(self, name: Any, config: TrainConfig, model: ModelConfig, **more: Any) -> None:
        arguments = {"config": config, "model": model, "folder": self.ground / "clean"}
        self._scenes[name] = (scenes.train, {**arguments, "steps": STEPS, **more})

    def add_scene(self, name: Any, function: Any, **arguments: Any) -> None:
        self._scenes[name] = (function, arguments)

    def play(self, workers: int) -> None:
        played = gang.play(workers, list(self._scenes.values()))
        names = [(workers, name) for name in self._scenes]
        self.results |= dict(zip(names, played, strict=True))
        self._scenes = {}


@pytest.fixture(scope="module")
def played(ground: Path, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Everything, in five launches."""
    plan = Plan(ground, tmp_path_factory.mktemp("saves"))
    _undisturbed(plan, save=("growing", 2))
    _batches(plan)
    plan.add("tied", at("all weights", 2), replace(MODEL, tie_embeddings=True))
    _signals(plan)
    plan.play(1)

    _undisturbed(plan, save=("resumed", SAVED))
    _batches(plan)
    plan.add("tied", at("all weights", 2), replace(MODEL, tie_embeddings=True))
    _signals(plan)
    _resize(plan, "growing", resume_until=4)
    _resumed(plan)
    _others(plan)
    _bad_steps(plan)
    plan.play(2)

    _undisturbed(plan, save=("shrinking", 2), precisions=(FP32,))
    _batches(plan)
    _resize(plan, "growing", resume_until=STEPS)
    plan.play(4)

    _undisturbed(plan, save=None, precisions=(FP32,))
    _batches(plan)
    _resize(plan, "shrinking", resume_until=4)
    plan.play(3)

    _resize(plan, "shrinking", resume_until=STEPS)
    plan.play(1)
    return plan


def _undisturbed(
    plan: Plan, *, save: tuple[str, int] | None, precisions: Iterable[Precision] = (FP32, BF16)
) -> None:
    """From the start to the end, with a checkpoint on the way that others go on from."""
    for kind, stage in CASES:
        for precision in precisions:
            config = at(kind, stage, precision)
            more: dict[str, Any] = {}
            if save is not None:
                more["save"] = {save[1]: plan.root(save[0], kind, stage, precision)}
            model = model_of(kind, plan.ground)
            plan.add(("whole", kind, stage, precision), config, model, **more)


def _resize(plan: Plan, way: str, *, resume_until: int) -> None:
    for kind, stage in CASES:
        root = plan.root(way, kind, stage, FP32)
        more: dict[str, Any] = {"resume": root, "stop": resume_until}
        if resume_until < STEPS:
            more["save"] = {resume_until: root}
        plan.add((way, kind, stage), at(kind, stage), model_of(kind, plan.ground), **more)


def _resumed(plan: Plan) -> None:
    for kind, stage in CASES:
        for precision in (FP32, BF16):
            root = plan.root("resumed", kind, stage, precision)
            model = model_of(kind, plan.ground)
            name = ("resumed", kind, stage, precision)
            plan.add(name, at(kind, stage, precision), model, resume=root)
    for stage, precision in DROPPING:
        lora = replace(LORA, dropout=0.3)
        config = replace(WITH_LORA, lora=lora, zero_stage=stage, precision=precision)
        root, model = (
            plan.root("resumed", "dropout", stage, precision),
            model_of("adapters", plan.ground),
        )
        name = ("dropout", stage, precision)
        plan.add(("whole", *name), config, model, save={SAVED: root})
        plan.add(("resumed", *name), config, model, resume=root)


def _batches(plan: Plan) -> None:
    for batch, micro, stage in BATCHES:
        config = replace(FULL, global_batch=batch, micro_batch=micro, zero_stage=stage)
        plan.add(("batch", batch, micro, stage), config, MODEL)


def _others(plan: Plan) -> None:
    for stage in STAGES:
        config = at("all weights", stage)
        plan.add(("measured", stage), config, MODEL, heldout_every=1)
        again = replace(config, gradient_checkpointing=True)
        plan.add(("checkpointing", stage), again, MODEL)


def _signals(plan: Plan) -> None:
    clean = plan.ground / "clean"
    plan.add_scene("signals", scenes.signals, config=FULL, model=MODEL, folder=clean)


def _bad_steps(plan: Plan) -> None:
    folder = plan.ground / "poisoned"
    packed = PackedTokens(folder / "packed")
    [row] = np.flatnonzero(
        [POISON in ids for ids in packed.batch(np.arange(SEQUENCES))["input_ids"]]
    )
    order = Order(SEQUENCES, FULL.global_batch, 1)
    bad = next(step for step in range(50) if row in order.step(step))
    poisoned = replace(MODEL, base=str(folder / "base"))
    for stage in STAGES:
        for precision in (FP32, BF16):
            config = at("all weights", stage, precision)
            common = {"model": poisoned, "folder": folder, "bad": bad}
            name = (stage, precision)
            plan.add_scene(("nan", *name), scenes.bad_step, config=config, **common)
            common |= {"model": MODEL, "folder": plan.ground / "clean", "bad": 4}
            common["prepare"] = scenes.expect_less
            plan.add_scene(("spike", *name), scenes.bad_step, config=config, **common)
            saved = plan.saves / f"skipping {stage} {precision.value}"
            apart = {"model": MODEL, "folder": plan.ground / "clean", "root": saved}
            plan.add_scene(("skipping", *name), scenes.skipping, config=config, **apart)
            if stage in (0, 2):
                told = replace(config, on_bad_step=OnBadStep.report)
                plan.add_scene(("reported", *name), scenes.bad_step, config=told, **common)


def same(weights: dict[str, np.ndarray], others: dict[str, np.ndarray]) -> bool:
    """Whether no bit differs."""
    assert weights.keys() == others.keys()
    return all(weights[name].tobytes() == others[name].tobytes() for name in weights)


def difference(losses: dict[int, float], others: dict[int, float]) -> float:
    """The largest, over the steps that `losses` has."""
    assert losses
    return max(abs(loss - others[step]) for step, loss in losses.items())


def test_it_learns(played: Plan) -> None:
    """Or else all that follows would be the same for a network that stands still."""
    for kind, stage in CASES:
        for precision in (FP32, BF16):
            losses = played.results[2, ("whole", kind, stage, precision)]["losses"]
            assert list(losses) == list(range(1, STEPS + 1))
            assert difference(losses, dict.fromkeys(losses, losses[1])) > 0.02


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("workers", [1, 2])
def test_every_zero_stage_computes_the_same(played: Plan, workers: int, kind: str) -> None:
    first, *others = (played.results[workers, ("whole", kind, stage, FP32)] for stage in STAGES)
    for other in others:
        assert difference(first["losses"], other["losses"]) < 1e-5
        assert difference(first["norms"], other["norms"]) < 1e-4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("workers", [1, 2])
def test_every_zero_stage_computes_the_same_in_bf16(played: Plan, workers: int, kind: str) -> None:
    """But for rounding: ZeRO-0 and 1 add micro batches up in bf16, 2 and 3 in fp32, and what
    ZeRO-3 loads from a folder has DeepSpeed's own backward pass."""
    first, *others = (played.results[workers, ("whole", kind, stage, BF16)] for stage in STAGES)
    for other in others:
        assert other["losses"] == pytest.approx(first["losses"], rel=1e-3)
        assert other["norms"] == pytest.approx(first["norms"], rel=1e-2)
        if workers == 2 and kind == "all weights":  # neither applies
            assert difference(first["losses"], other["losses"]) < 1e-5


@pytest.mark.parametrize(("kind", "stage"), CASES)
def test_every_number_of_workers_computes_the_same(played: Plan, kind: str, stage: int) -> None:
    name = ("whole", kind, stage, FP32)
    alone = played.results[1, name]
    for workers in (2, 3, 4):
        other = played.results[workers, name]
        assert difference(alone["losses"], other["losses"]) < 1e-4
        assert difference(alone["norms"], other["norms"]) < 1e-3
        assert other["heldout"] == pytest.approx(alone["heldout"], abs=1e-4)
        assert other["rates"] == alone["rates"]
        for step, table in alone["by_group"].items():
            np.testing.assert_allclose(other["by_group"][step], table, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_every_number_of_workers_computes_the_same_in_bf16(played: Plan, kind: str) -> None:
    for stage in STAGES:
        alone, two = (
            played.results[workers, ("whole", kind, stage, BF16)]["losses"] for workers in (1, 2)
        )
        assert difference(alone, two) < 2e-2


@pytest.mark.parametrize(
    ("kind", "stage", "precision"),
    [
        *((*case, precision) for case in CASES for precision in (FP32, BF16)),
        *(("dropout", *case) for case in DROPPING),
    ],
)
def test_a_resumed_run_goes_on_bit_for_bit(
    played: Plan, kind: str, stage: int, precision: Precision
) -> None:
    whole = played.results[2, ("whole", kind, stage, precision)]
    resumed = played.results[2, ("resumed", kind, stage, precision)]
    assert list(resumed["losses"]) == list(range(SAVED + 1, STEPS + 1))
    assert resumed["losses"].items() <= whole["losses"].items()
    assert resumed["norms"].items() <= whole["norms"].items()
    assert same(resumed["weights"], whole["weights"])
    assert resumed["heldout"] == whole["heldout"]


def test_dropout_drops_something(played: Plan) -> None:
    usual = played.results[2, ("whole", "adapters", 3, FP32)]["losses"]
    dropped = played.results[2, ("whole", "dropout", 3, FP32)]["losses"]
    assert difference(usual, dropped) > 1e-3


@pytest.mark.parametrize(("kind", "stage"), CASES)
@pytest.mark.parametrize(("way", "sizes"), [("growing", (1, 2, 4)), ("shrinking", (4, 3, 1))])
def test_a_run_goes_on_with_more_or_fewer_workers_as_if_nothing_had_happened(
    played: Plan, way: str, sizes: tuple[int, int, int], kind: str, stage: int
) -> None:
    whole = played.results[1, ("whole", kind, stage, FP32)]
    first, *rest = sizes
    losses = dict(list(played.results[first, ("whole", kind, stage, FP32)]["losses"].items())[:2])
    for workers in rest:
        last = played.results[workers, (way, kind, stage)]
        losses |= last["losses"]
    assert list(losses) == list(range(1, STEPS + 1))
    assert difference(losses, whole["losses"]) < 1e-3
    # Weights that take part in the decay would be a fifth smaller otherwise.
    for name, weight in last["weights"].items():
        np.testing.assert_allclose(weight, whole["weights"][name], atol=5e-3, err_msg=name)


@pytest.mark.parametrize("stage", STAGES)
def test_a_checkpoint_holds_what_is_trained_and_every_worker_wrote_a_part(
    played: Plan, stage: int
) -> None:
    found = complete(played.root("shrinking", "adapters", stage, FP32))[0]
    assert found.progress.step == 4
    assert found.progress.workers == 3
    assert all("lora_" in name for name in found.progress.shapes)
    assert len(found.progress.shapes) == 2 * 2 * len(LORA.targets)
    assert len(list(found.folder.glob("worker-*.safetensors"))) == 3
    whole = complete(played.root("shrinking", "all weights", stage, FP32))[0]
    trained = played.results[1, ("whole", "all weights", stage, FP32)]["weights"]
    assert {name: tuple(s) for name, s in whole.progress.shapes.items()} == {
        name: weight.shape for name, weight in trained.items()
    }


@pytest.mark.parametrize("precision", [FP32, BF16])
@pytest.mark.parametrize("stage", STAGES)
def test_what_adapters_stand_beside_is_the_base_to_the_bit(
    played: Plan, ground: Path, stage: int, precision: Precision
) -> None:
    dtype = torch.float32 if precision is FP32 else torch.bfloat16
    base = LlamaForCausalLM.from_pretrained(ground / "clean" / "base", dtype=dtype)
    frozen = {name: value.float().numpy() for name, value in base.state_dict().items()}
    trained = played.results[2, ("whole", "adapters", stage, precision)]["weights"]
    there = {
        name.replace(".base_layer.", "."): weight
        for name, weight in trained.items()
        if "lora_" not in name
    }
    assert same(there, frozen)
    ups = [weight for name, weight in trained.items() if "lora_B" in name]
    assert all(np.abs(weight).max() > 0 for weight in ups), "adapters are trained"


@pytest.mark.parametrize(("batch", "micro", "stage"), BATCHES)
def test_batches_that_do_not_divide_and_micro_batches_change_nothing(
    played: Plan, batch: int, micro: int, stage: int
) -> None:
    usual = played.results[1, ("batch", batch, *((1, 0) if batch > 1 else (1, 3)))]
    for workers in (1, 2, 3, 4):
        other = played.results[workers, ("batch", batch, micro, stage)]
        assert other["micro_steps"] == micro_steps(batch, micro, workers)
        assert difference(usual["losses"], other["losses"]) < 1e-4
        assert difference(usual["norms"], other["norms"]) < 1e-3


def test_each_step_has_the_learning_rate_of_the_schedule(played: Plan) -> None:
    for kind, stage in CASES:
        rates = played.results[2, ("whole", kind, stage, FP32)]["rates"]
        assert rates == {step + 1: learning_rate(step, STEPS, FULL) for step in range(STEPS)}


@pytest.mark.parametrize("stage", STAGES)
def test_measuring_the_heldout_loss_does_not_change_training(played: Plan, stage: int) -> None:
    whole = played.results[2, ("whole", "all weights", stage, FP32)]
    measured = played.results[2, ("measured", stage)]
    assert measured["losses"] == whole["losses"]
    assert same(measured["weights"], whole["weights"])


@pytest.mark.parametrize("stage", STAGES)
def test_gradient_checkpointing_changes_nothing(played: Plan, stage: int) -> None:
    whole = played.results[2, ("whole", "all weights", stage, FP32)]
    again = played.results[2, ("checkpointing", stage)]
    assert difference(whole["losses"], again["losses"]) < 1e-5
    assert difference(whole["norms"], again["norms"]) < 1e-4


def test_tied_embeddings_are_trained_once(played: Plan) -> None:
    alone, two = (played.results[workers, "tied"] for workers in (1, 2))
    assert difference(alone["losses"], two["losses"]) < 1e-4
    assert "lm_head.weight" not in alone["weights"]


def test_signals_are_the_sums_over_the_workers(played: Plan) -> None:
    assert played.results[1, "signals"] == [1.0, 0.0]
    assert played.results[2, "signals"] == [2.0, 1.0]


@pytest.fixture(params=[(stage, precision) for stage in STAGES for precision in (FP32, BF16)])
def kept_out(played: Plan, request: pytest.FixtureRequest) -> Iterator[tuple[Plan, Any]]:
    yield played, request.param


def test_a_batch_with_a_nan_is_left_out(kept_out: tuple[Plan, Any]) -> None:
    played, name = kept_out
    came = played.results[2, ("nan", *name)]
    assert came["outcome"].trouble == "the loss is nan"
    assert not came["outcome"].applied
    assert same(came["before"], came["after"])
    assert came["following"].trouble is None
    assert came["following"].applied
    assert np.isfinite(came["following"].norm)
    assert not same(came["after"], came["at_the_end"])
    for weight in (value for key, value in came["at_the_end"].items() if "embed" not in key):
        assert np.isfinite(weight).all()


def test_a_resumed_run_does_not_count_what_was_left_out(kept_out: tuple[Plan, Any]) -> None:
    """Adam's corrections of its means hang on how many steps it took."""
    played, name = kept_out
    came = played.results[2, ("skipping", *name)]
    assert came["applied"] == 2
    assert same(came["whole"], came["resumed"])


def test_a_spike_is_left_out(kept_out: tuple[Plan, Any]) -> None:
    played, name = kept_out
    came = played.results[2, ("spike", *name)]
    assert "times its recent mean" in came["outcome"].trouble
    assert not came["outcome"].applied
    assert same(came["before"], came["after"])
    assert came["following"].trouble is None
    assert came["following"].applied
    assert not same(came["after"], came["at_the_end"])


@pytest.mark.parametrize("precision", [FP32, BF16])
@pytest.mark.parametrize("stage", [0, 2])
def test_a_spike_that_is_only_reported_is_applied(
    played: Plan, stage: int, precision: Precision
) -> None:
    came = played.results[2, ("reported", stage, precision)]
    assert "times its recent mean" in came["outcome"].trouble
    assert came["outcome"].applied
    assert not same(came["before"], came["after"])
