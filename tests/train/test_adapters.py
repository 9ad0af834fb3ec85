from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from bayling.errors import UserError
from bayling.train import adapters
from bayling.train.config import LoraConfig

pytestmark = pytest.mark.unit

LORA = LoraConfig(rank=4, alpha=16.0, targets=["v_proj", "q_proj", "down_proj"])


def base() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=90,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            initializer_range=0.2,
        )
    ).to(torch.bfloat16)


@pytest.fixture
def trained() -> LlamaForCausalLM:
    """A network whose adapters learnt something."""
    network = base()
    adapters.insert(network, LORA)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in network.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) / 4
    return network


def parameters(network: LlamaForCausalLM) -> dict[str, torch.Tensor]:
    return {n: p.detach().float() for n, p in network.named_parameters() if p.requires_grad}


def test_adapters_stand_beside_the_named_layers_and_all_else_is_frozen(
    trained: LlamaForCausalLM,
) -> None:
    names = list(parameters(trained))
    assert len(names) == 2 * 2 * len(LORA.targets)
    assert all(any(target in name for target in LORA.targets) for name in names)
    frozen = [name for name, p in trained.named_parameters() if not p.requires_grad]
    assert any("embed_tokens" in name for name in frozen)
    assert any("q_proj.base_layer" in name for name in frozen)


def test_untrained_adapters_change_nothing() -> None:
    network, ids = base(), torch.arange(3, 30)[None]
    with torch.no_grad():
        before = network(input_ids=ids).logits
        adapters.insert(network, LORA)
        assert torch.equal(network(input_ids=ids).logits, before)


def test_layers_that_do_not_exist_are_refused_in_one_sentence() -> None:
    with pytest.raises(UserError, match=r"train\.lora\.targets=no_proj") as refused:
        adapters.insert(base(), LoraConfig(rank=4, targets=["no_proj"]))
    assert "\n" not in str(refused.value)


def test_a_weight_is_merged_as_the_paper_says(trained: LlamaForCausalLM) -> None:
    """arXiv 2106.09685, section 4.1: W + B A · alpha / rank."""
    learnt = parameters(trained)
    weight = base().model.layers[1].self_attn.q_proj.weight.detach()
    name = "model.layers.1.self_attn.q_proj"
    merged = adapters.merged(f"{name}.weight", weight, LORA, learnt.__getitem__)
    a, b = (learnt[f"{name}.lora_{letter}.default.weight"] for letter in "AB")
    assert merged.dtype == torch.bfloat16
    assert torch.equal(merged, (weight.float() + 4.0 * (b @ a)).bfloat16())


@pytest.mark.parametrize(
    "name", ["model.layers.0.self_attn.k_proj.weight", "model.embed_tokens.weight"]
)
def test_weights_without_an_adapter_stay(trained: LlamaForCausalLM, name: str) -> None:
    weight = base().state_dict()[name]
    assert adapters.merged(name, weight, LORA, parameters(trained).__getitem__) is weight
    q = "model.layers.0.self_attn.q_proj.weight"
    assert adapters.merged(q, weight, LORA, None) is weight


@torch.no_grad()
def test_the_adapter_alone_is_what_peft_loads_beside_the_base_and_what_merging_gives(
    trained: LlamaForCausalLM, tmp_path: Path
) -> None:
    learnt = parameters(trained)
    base().save_pretrained(tmp_path / "base")
    adapters.write(tmp_path / "adapter", learnt, learnt.__getitem__, LORA, str(tmp_path / "base"))
    loaded = PeftModel.from_pretrained(
        LlamaForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32),
        tmp_path / "adapter",
    )
    merged = base()
    for name, weight in merged.state_dict().items():
        weight.copy_(adapters.merged(name, weight, LORA, learnt.__getitem__))
    ids = torch.arange(3, 60)[None]
    beside = loaded(input_ids=ids).logits
    inside = merged.float()(input_ids=ids).logits
    plain = base().float()(input_ids=ids).logits
    # What bf16 rounds of the adapters on one side, of the merged weights on the other.
    apart = (beside - inside).norm() / (inside - plain).norm()
    assert apart < 0.03
    assert (inside - plain).norm() > 0.1 * plain.norm()


def test_the_same_adapters_are_the_same_bytes(trained: LlamaForCausalLM, tmp_path: Path) -> None:
    learnt = parameters(trained)
    for name in ("a", "b"):
        adapters.write(tmp_path / name, learnt, learnt.__getitem__, LORA, "meta-llama/base")
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "meta-llama/base"
    assert config["target_modules"] == sorted(LORA.targets)
    tensors = load_file(tmp_path / "a" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
