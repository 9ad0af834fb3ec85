from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from tiny_model import make_model
from torch import nn
from transformers import AutoModelForCausalLM, LlamaForCausalLM, PreTrainedTokenizerFast

from bayling.data.tokenizer import train
from bayling.errors import UserError
from bayling.model import ModelConfig
from bayling.model_folder import load_tokenizer
from bayling.templates import BAYLING
from bayling.train import network
from bayling.train.network import IGNORED, PackedLoss

pytestmark = pytest.mark.unit

SIZES = ModelConfig(
    hidden_size=32, intermediate_size=64, layers=2, heads=4, kv_heads=2, context_length=64
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train(["in 5 days"], 300, BAYLING)


@pytest.fixture
def model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    return network.build(SIZES, tokenizer, 1, [1])


def test_a_model_from_sizes_has_them(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    config = model.config
    assert (config.hidden_size, config.num_hidden_layers, config.num_key_value_heads) == (32, 2, 2)
    assert config.vocab_size == len(tokenizer)
    assert config.max_position_embeddings == 64
    assert config.eos_token_id == 1
    assert config.rope_parameters["rope_theta"] == 10000.0
    assert model.dtype == torch.float32
    several = network.build(SIZES, tokenizer, 1, [1, 5])
    assert several.config.eos_token_id == [1, 5]


def test_the_seed_decides_the_weights(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    again = network.build(SIZES, tokenizer, 1, [1])
    other = network.build(SIZES, tokenizer, 2, [1])
    weights = model.model.layers[0].mlp.up_proj.weight
    assert torch.equal(weights, again.model.layers[0].mlp.up_proj.weight)
    assert not torch.equal(weights, other.model.layers[0].mlp.up_proj.weight)


def test_the_loss_is_the_sum_over_supervised_tokens_of_minus_their_log_probability(
    model: LlamaForCausalLM,
) -> None:
    ids = torch.tensor([[5, 6, 7, 8, 9, 10], [11, 12, 13, 14, 15, 16]])
    labels = torch.full_like(ids, IGNORED)
    for row, place in ((0, 2), (0, 5), (1, 1)):
        labels[row, place] = ids[row, place]
    labels[1, 0] = 11  # nothing comes before it, so it cannot be predicted
    loss = PackedLoss(model)(ids, labels, torch.arange(6).expand(2, 6))
    with torch.no_grad():
        scores = model(input_ids=ids, use_cache=False).logits.log_softmax(-1)
    by_hand = -(scores[0, 1, 7] + scores[0, 4, 10] + scores[1, 0, 12])
    torch.testing.assert_close(loss.detach(), by_hand)


def test_an_untrained_model_knows_nothing(model: LlamaForCausalLM) -> None:
    rows = model.config.vocab_size
    ids = torch.arange(3, 33)[None]
    loss = PackedLoss(model)(ids, ids.clone(), torch.arange(30)[None])
    assert loss.item() / 29 == pytest.approx(math.log(rows), rel=0.02)


def test_a_batch_without_supervised_tokens_has_no_loss_and_no_gradient(
    model: LlamaForCausalLM,
) -> None:
    """A worker whose hand is empty takes part in the step all the same."""
    ids = torch.arange(3, 11)[None]
    loss = PackedLoss(model)(ids, torch.full_like(ids, IGNORED), torch.arange(8)[None])
    loss.backward()
    assert loss.item() == 0.0
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(gradient is None or not gradient.any() for gradient in gradients)


def test_micro_batches_add_up_to_the_loss_and_gradient_of_the_whole(
    model: LlamaForCausalLM,
) -> None:
    ids = torch.randint(3, 250, (4, 12), generator=torch.Generator().manual_seed(0))
    labels = torch.where(ids % 3 == 0, ids, IGNORED)
    positions = torch.arange(12).expand(4, 12)
    loss = PackedLoss(model)
    loss(ids, labels, positions).backward()
    whole = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    for rows in (slice(0, 3), slice(3, 4)):
        loss(ids[rows], labels[rows], positions[rows]).backward()
    for parameter, expected in zip(model.parameters(), whole, strict=True):
        torch.testing.assert_close(parameter.grad, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("tied", [True, False])
def test_weight_decay_is_for_matrices_and_not_for_norms_and_embeddings(
    tokenizer: PreTrainedTokenizerFast, tied: bool
) -> None:
    config = ModelConfig(**{**vars(SIZES), "tie_embeddings": tied})
    model = network.build(config, tokenizer, 1, [1])
    decayed, plain = network.parameter_groups(model, 0.1)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    in_decayed = {names[id(parameter)] for parameter in decayed["params"]}
    in_plain = {names[id(parameter)] for parameter in plain["params"]}
    assert in_decayed | in_plain == set(names.values())
    assert not in_decayed & in_plain
    assert all("proj" in name or name == "lm_head.weight" for name in in_decayed)
    assert ("lm_head.weight" in in_decayed) == (not tied)
    assert all("norm" in name or "embed" in name for name in in_plain)


def test_frozen_parameters_are_in_no_group() -> None:
    layer = nn.Linear(2, 2)
    layer.bias.requires_grad_(False)
    decayed, plain = network.parameter_groups(layer, 0.1)
    assert [parameter.shape for parameter in decayed["params"]] == [(2, 2)]
    assert plain["params"] == []


def test_parameters_are_counted_with_tied_ones_once(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    untied = ModelConfig(**{**vars(SIZES), "tie_embeddings": False})
    embedding = 32 * len(tokenizer)
    assert network.parameter_count(model) == sum(p.numel() for p in model.parameters())
    assert (
        network.parameter_count(network.build(untied, tokenizer, 1, [1]))
        == network.parameter_count(model) + embedding
    )


def test_rotary_frequencies_stay_exact_through_a_cast_to_bf16(model: LlamaForCausalLM) -> None:
    frequencies = model.model.rotary_emb.inv_freq.clone()
    exact = network.exact_buffers(model)
    assert any(name.endswith("inv_freq") for name in exact)
    model.bfloat16()
    assert not torch.equal(model.model.rotary_emb.inv_freq.float(), frequencies)  # the problem
    network.restore_buffers(model, exact)
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32
    assert torch.equal(model.model.rotary_emb.inv_freq, frequencies)
    assert model.model.embed_tokens.weight.dtype == torch.bfloat16


def test_a_base_folder_is_loaded_in_fp32_with_its_weights(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "base")
    built = network.build(ModelConfig(base=str(folder)), load_tokenizer(folder), 1, [1])
    assert built.dtype == torch.float32
    expected = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert torch.equal(built.model.norm.weight, expected.model.norm.weight)
    assert torch.equal(built.lm_head.weight, expected.lm_head.weight)


def test_a_vocabulary_larger_than_the_bases_embedding_is_refused(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "base")
    large = load_tokenizer(folder)
    large.add_tokens([f"<new-{number}>" for number in range(500)])
    with pytest.raises(UserError, match=rf"tokenizer has {len(large)} tokens, the embedding \d+"):
        network.build(ModelConfig(base=str(folder)), large, 1, [1])


def test_a_folder_without_a_model_is_refused_by_its_name(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(UserError, match=rf"model\.base={tmp_path}: no usable model"):
        network.build(ModelConfig(base=str(tmp_path)), tokenizer, 1, [1])
