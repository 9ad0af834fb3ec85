from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from bayling import accelerators
from bayling.config import compose
from bayling.scale import Device
from bayling.shape import Shape
from bayling.train.activations import Activations
from bayling.train.config import LoraConfig, Offload, Precision, TrainConfig
from bayling.train.layout import GIB
from bayling.train.memory import Batch, Memory, Placement, estimate, phases, states, trainable
from bayling.train.network import IGNORED, PackedLoss

pytestmark = pytest.mark.unit

LLAMA_7B = Shape.of(compose(["model=llama-7b"]).model)
FULL = TrainConfig()
LORA = TrainConfig(lora=LoraConfig(rank=64))
BATCH = Batch(1, 2048)


def on_gpu(
    train: TrainConfig = FULL,
    place: Placement = Placement(2),  # noqa: B008 - frozen
    batch: Batch = BATCH,
    workers: int = 8,
) -> Memory:
    return estimate(train, LLAMA_7B, place, batch, workers, Device.cuda)


@pytest.mark.parametrize("precision", [Precision.bf16, Precision.fp16])
@pytest.mark.parametrize(
    ("stage", "bytes_a_parameter"),
    [(0, 16), (1, 4 + 12 / 64), (2, 2 + 14 / 64), (3, 16 / 64)],
)
def test_model_states_are_those_of_the_zero_paper(
    precision: Precision, stage: int, bytes_a_parameter: float
) -> None:
    # arXiv 1910.02054, figure 1: K = 12, 64 workers.
    sizes = states(TrainConfig(precision=precision), LLAMA_7B, Placement(stage), 64)
    assert sum(sizes) / LLAMA_7B.parameters == pytest.approx(bytes_a_parameter, rel=1e-6)


def test_a_7b_does_not_fit_one_80_gb_gpu_without_offload() -> None:
    memory = accelerators.spec("A100-80GB").memory_gib * GIB
    for stage in range(4):
        assert on_gpu(place=Placement(stage), workers=1).total > memory
    assert on_gpu(place=Placement(3, Offload.cpu), workers=1).total < memory


def test_adapters_have_the_only_gradients_and_states() -> None:
    weights, gradients, optimizer = states(LORA, LLAMA_7B, Placement(2), 1)
    learnt = trainable(LORA, LLAMA_7B)
    assert learnt == 159_907_840
    assert weights == 2 * (LLAMA_7B.parameters + learnt)
    assert (gradients, optimizer) == (2 * learnt, 12 * learnt)


@pytest.mark.parametrize("device", list(Device))
@pytest.mark.parametrize("stage", range(4))
@pytest.mark.parametrize("train", [FULL, LORA], ids=["all weights", "adapters"])
def test_more_workers_never_take_more_each(train: TrainConfig, stage: int, device: Device) -> None:
    batch = Batch(2, 512, micro_steps=2)
    totals = [
        estimate(train, LLAMA_7B, Placement(stage), batch, workers, device).total
        for workers in (2, 4, 8, 64)
    ]
    assert totals == sorted(totals, reverse=True)


@pytest.mark.parametrize("device", list(Device))
@pytest.mark.parametrize("larger", [Batch(2, 1024), Batch(1, 2048), Batch(1, 1024, 2)])
def test_a_larger_batch_never_takes_less(device: Device, larger: Batch) -> None:
    for stage in range(4):
        for train in (FULL, LORA, TrainConfig(gradient_checkpointing=True)):
            small, large = (
                estimate(train, LLAMA_7B, Placement(stage), batch, 4, device).total
                for batch in (Batch(1, 1024), larger)
            )
            assert large >= small


def test_checkpointing_takes_less_activations_and_nothing_else() -> None:
    usual, saving = (
        phases(train, LLAMA_7B, Placement(2), BATCH, 8, Device.cuda)
        for train in (FULL, replace(FULL, gradient_checkpointing=True))
    )
    for before, after in zip(usual, saving, strict=True):
        assert replace(before, activations=0) == replace(after, activations=0)
    assert saving[1].activations < usual[1].activations / 4


def test_offload_moves_the_optimizer_from_the_gpu_to_the_node() -> None:
    here, away = on_gpu(), on_gpu(place=Placement(2, Offload.cpu))
    assert away.total < here.total
    assert away.optimizer == 0
    # fp32 weights, moments and gradients of an eighth of the parameters.
    assert phases(FULL, LLAMA_7B, Placement(2, Offload.cpu), BATCH, 1, Device.cuda)[1].host > (
        16 * LLAMA_7B.parameters
    )
    disk = on_gpu(place=Placement(3, Offload.nvme, Offload.nvme))
    assert disk.disk >= 12 * LLAMA_7B.parameters // 8
    assert disk.host < on_gpu(place=Placement(3, Offload.cpu), workers=1).host


def test_on_a_cpu_offload_changes_nothing() -> None:
    cpu = [
        estimate(FULL, LLAMA_7B, place, BATCH, 2, Device.cpu)
        for place in (Placement(3), Placement(3, Offload.cpu, Offload.cpu))
    ]
    assert cpu[0] == cpu[1]


class Kept:
    """Bytes that autograd keeps for a backward pass, each storage once, weights apart."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.weights = {p.untyped_storage().data_ptr() for p in module.parameters()}
        self.sizes: dict[int, int] = {}

    def pack(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if tensor.is_floating_point() and storage.data_ptr() not in self.weights:
            self.sizes[storage.data_ptr()] = storage.nbytes()
        return tensor


@pytest.mark.parametrize("precision", [Precision.bf16, Precision.fp32])
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_activations_are_what_autograd_keeps(precision: Precision, kv_heads: int) -> None:
    shape = Shape(512, 64, 160, 3, 4, kv_heads, 16, False)
    dtype = torch.bfloat16 if precision is Precision.bf16 else torch.float32
    network = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=512,
            hidden_size=64,
            intermediate_size=160,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=kv_heads,
            attn_implementation="eager",
        )
    ).to(dtype)
    ids = torch.randint(512, (3, 64))
    labels = ids.clone()
    labels[:, :32] = IGNORED
    positions = torch.arange(32).repeat(2).expand(3, 64)
    module = PackedLoss(network)
    kept = Kept(module)
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor):
        module(ids, labels, positions)
    train = TrainConfig(precision=precision)
    plan = Activations(train, shape, Batch(3, 64, supervised=0.5), exact=True)
    # Of the loss, the log-probabilities are kept and the hidden states they came from; the plan's
    # `loss` is for the moment when two gradients of that size lie beside them.
    head = plan.loss / 3 + plan.supervised * shape.hidden * plan.size
    small = 0.02  # rotary tables and row sums, which the plan leaves out
    assert sum(kept.sizes.values()) == pytest.approx(
        shape.layers * plan.layer + plan.norm + head, rel=small
    )


def test_glibc_can_be_told_to_give_memory_back() -> None:
    # In a process of its own: it cannot be undone.
    code = "from bayling.train.allocator import give_back; print(give_back())"
    answered = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answered.stdout.strip() in ("True", "False")
