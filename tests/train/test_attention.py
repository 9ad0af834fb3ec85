from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from bayling.train import attention
from bayling.train.attention import PACKED, boundaries, choose
from bayling.train.network import IGNORED, PackedLoss

pytestmark = pytest.mark.unit

CPU = torch.device("cpu")
# Three sequences of 24: several conversations, one that fills it, and one with padding behind it.
LENGTHS = [[5, 12, 7], [24], [1, 20, 3]]
POSITIONS = torch.tensor([[i for n in row for i in range(n)] for row in LENGTHS])


def model(implementation: str, kv_heads: int) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=90,
            hidden_size=48,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=6,
            num_key_value_heads=kv_heads,
            max_position_embeddings=24,
            initializer_range=0.3,
            attn_implementation=implementation,
        )
    )


def test_boundaries_are_where_positions_restart() -> None:
    found = boundaries(POSITIONS)
    assert found.dtype == torch.int32
    assert found.tolist() == [0, 5, 17, 24, 48, 49, 69, 72]


def masked(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """By hand, in double precision: softmax over the own conversation's earlier tokens."""
    conversation = torch.cumsum(POSITIONS == 0, dim=1)
    own = conversation[:, :, None] == conversation[:, None, :]
    allowed = own & torch.ones(24, 24, dtype=torch.bool).tril()
    repeat = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(repeat, dim=1) for part in (key, value))
    scores = query @ key.transpose(2, 3) * 0.3
    weights = scores.masked_fill(~allowed[:, None], float("-inf")).softmax(-1)
    return (weights @ value).transpose(1, 2)


@pytest.mark.parametrize("kv_heads", [6, 2, 1])
def test_it_is_the_masked_attention_with_its_gradients(kv_heads: int) -> None:
    generator = torch.Generator().manual_seed(kv_heads)
    shapes = [(3, 6, 24, 8), (3, kv_heads, 24, 8), (3, kv_heads, 24, 8)]
    inputs = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    weight = torch.randn(3, 24, 6, 8, generator=generator, dtype=torch.float64)
    results = []
    for attend in (
        masked,
        lambda q, k, v: attention._forward(
            torch.nn.Module(), q, k, v, None, scaling=0.3, boundaries=boundaries(POSITIONS)
        )[0],
    ):
        parts = [part.clone().requires_grad_() for part in inputs]
        out = attend(*parts)
        (out * weight).sum().backward()
        results.append([out.detach(), *(part.grad for part in parts)])
    for ours, expected in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("kv_heads", [6, 2])
@pytest.mark.parametrize("reference", ["eager", "sdpa"])
def test_a_network_has_the_same_loss_and_gradients_as_with_a_dense_mask(
    kv_heads: int, reference: str
) -> None:
    ids = torch.randint(3, 90, (3, 24), generator=torch.Generator().manual_seed(1))
    labels = torch.where(POSITIONS > 1, ids, IGNORED)
    losses, gradients = [], []
    for implementation in (reference, PACKED):
        network = model(implementation, kv_heads)
        loss = PackedLoss(network)(ids, labels, POSITIONS)
        loss.backward()
        losses.append(loss.detach())
        gradients.append([parameter.grad for parameter in network.parameters()])
    torch.testing.assert_close(losses[0], losses[1])
    for ours, expected in zip(gradients[1], gradients[0], strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_a_conversation_does_not_see_its_neighbours() -> None:
    network = model(PACKED, 2)
    ids = torch.randint(3, 90, (3, 24), generator=torch.Generator().manual_seed(1))
    other = ids.clone()
    other[0, :5] = 7
    other[0, 17:] = 8

    def hidden(tokens: torch.Tensor) -> torch.Tensor:
        made = network.base_model(
            input_ids=tokens,
            position_ids=POSITIONS,
            use_cache=False,
            boundaries=boundaries(POSITIONS),
        )
        return made.last_hidden_state

    before, after = hidden(ids), hidden(other)
    assert torch.equal(before[0, 5:17], after[0, 5:17])
    assert torch.equal(before[1:], after[1:])
    assert not torch.equal(before[0, 17:], after[0, 17:])


def test_a_cpu_takes_plain_products_for_short_sequences_only() -> None:
    assert choose(CPU, torch.bfloat16, 128) == "eager"
    assert choose(CPU, torch.float32, 2048) == PACKED
