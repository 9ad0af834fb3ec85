from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from bayling.config import compose
from bayling.errors import UserError
from bayling.model import ModelConfig
from bayling.shape import Shape

pytestmark = pytest.mark.unit

PUBLISHED = {
    "llama-7b": 6_738_415_616,
    "llama-13b": 13_015_864_320,
    "llama-2-7b-chat": 6_738_415_616,
    "llama-2-13b-chat": 13_015_864_320,
    "llama-3-8b-instruct": 8_030_261_248,
}


def transformers_model(shape: Shape) -> LlamaForCausalLM:
    """transformers' own network of these sizes, without memory for its weights."""
    with torch.device("meta"):
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=shape.vocab,
                hidden_size=shape.hidden,
                intermediate_size=shape.intermediate,
                num_hidden_layers=shape.layers,
                num_attention_heads=shape.heads,
                num_key_value_heads=shape.kv_heads,
                head_dim=shape.head_dim,
                tie_word_embeddings=shape.tied,
            )
        )


@pytest.mark.parametrize("model", [*PUBLISHED, "tiny"])
def test_the_count_is_that_of_the_network(model: str) -> None:
    shape = Shape.of(compose([f"model={model}"]).model)
    network = transformers_model(shape)
    assert shape.parameters == sum(p.numel() for p in network.parameters())
    assert shape.parameters == PUBLISHED.get(model, shape.parameters)
    assert shape.per_layer == sum(
        p.numel() for p in network.model.layers[0].parameters() if p.ndim == 2
    )
    assert shape.largest == max(p.numel() for p in network.parameters())


def test_tied_embeddings_count_once() -> None:
    untied = Shape.of(ModelConfig(tie_embeddings=False))
    tied = Shape.of(ModelConfig(tie_embeddings=True))
    assert untied.parameters - tied.parameters == untied.vocab * untied.hidden
    assert tied.head == 0


def test_adapters_beside_every_layer_are_those_of_the_paper() -> None:
    shape = Shape.of(compose(["model=llama-7b"]).model)
    # Two of the attention's projections at rank 8: 32 layers · 2 · 8 · (4096 + 4096).
    assert shape.adapters(8, ["q_proj", "v_proj"]) == 4_194_304


def test_an_unknown_target_is_refused_with_those_there_are() -> None:
    with pytest.raises(UserError, match=r"query_key_value, which is no linear layer .*q_proj"):
        Shape.of(ModelConfig()).adapters(8, ["query_key_value"])


def test_a_base_folder_says_how_its_network_looks(tmp_path: Path) -> None:
    LlamaConfig(
        vocab_size=128, hidden_size=64, intermediate_size=96, num_hidden_layers=3,
        num_attention_heads=8, num_key_value_heads=2, tie_word_embeddings=True,
    ).save_pretrained(tmp_path)  # fmt: skip
    shape = Shape.of(ModelConfig(base=str(tmp_path)))
    assert shape == Shape(128, 64, 96, 3, 8, 2, 8, True, stored=True)
    assert shape.parameters == sum(p.numel() for p in transformers_model(shape).parameters())


def test_a_base_that_is_not_there_yet_is_planned_from_its_keys(tmp_path: Path) -> None:
    config = compose(["model=llama-7b", f"models_dir={tmp_path}"]).model
    assert Shape.of(config).parameters == PUBLISHED["llama-7b"]


def test_a_folder_without_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no config\.json"):
        Shape.of(ModelConfig(base=str(tmp_path)))


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"model_type": "gpt2"}, "of model_type gpt2: only llama and mistral"),
        ({"model_type": "llama", "hidden_size": 8}, "lacks a size of the network"),
        ([], "of model_type None"),
    ],
)
def test_another_network_is_refused(tmp_path: Path, config: object, sentence: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=sentence):
        Shape.of(ModelConfig(base=str(tmp_path)))


def test_a_broken_config_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="is no JSON"):
        Shape.of(ModelConfig(base=str(tmp_path)))
