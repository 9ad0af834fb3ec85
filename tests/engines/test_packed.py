from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import LlamaForCausalLM

from bayling.engines.loading import load_model
from bayling.engines.packed import PackedLinear, pack

needs_bf16 = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="a CPU without bfloat16"
)


@needs_bf16
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 7, 32, 300])
def test_a_packed_layer_computes_the_same_to_the_last_bit(rows: int, bias: bool) -> None:
    torch.manual_seed(rows)
    linear = nn.Linear(96, 1965, bias=bias).bfloat16()
    states = torch.randn(rows, 2, 96).bfloat16()
    with torch.inference_mode():
        expected = linear(states)
        assert PackedLinear(linear)(states).equal(expected)


@needs_bf16
def test_a_model_is_packed_where_that_makes_it_faster_and_answers_the_same(
    model_folder: Path,
) -> None:
    plain = LlamaForCausalLM.from_pretrained(model_folder, dtype=torch.bfloat16).eval()
    packed = load_model(model_folder, "cpu", "bfloat16")
    kinds = {type(module) for module in packed.modules()}
    assert PackedLinear in kinds and nn.Linear not in kinds
    ids = torch.tensor([[5, 17, 300, 44, 9]])
    with torch.inference_mode():
        assert packed(ids).logits.equal(plain(ids).logits)


@pytest.mark.parametrize("rows", [1, 7, 32, 300])
def test_in_single_precision_large_layers_are_packed_and_compute_the_same(rows: int) -> None:
    torch.manual_seed(rows)
    plain = nn.Sequential(nn.Linear(768, 96), nn.Linear(96, 6000, bias=False))
    states = torch.randn(rows, 2, 768)
    with torch.inference_mode():
        expected = plain(states)
        pack(plain)
        assert [type(layer) for layer in plain] == [nn.Linear, PackedLinear]
        torch.testing.assert_close(plain(states), expected, rtol=1e-5, atol=1e-5)


def test_what_only_derives_from_a_linear_layer_is_left_alone() -> None:
    class Scaled(nn.Linear):
        def forward(self, states: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(states)

    model = nn.Sequential(Scaled(8, 8)).bfloat16()
    pack(model)
    assert type(model[0]) is Scaled
