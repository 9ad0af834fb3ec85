"""Base weights are read in parts where ZeRO keeps them in parts."""

from __future__ import annotations

from pathlib import Path

import gang
import ground
import scenes
from transformers import LlamaConfig, LlamaForCausalLM

from bayling.model import ModelConfig


def test_under_zero_3_no_worker_holds_a_copy_of_the_whole(tmp_path: Path) -> None:
    made = ground.make(tmp_path)
    base = tmp_path / "base"
    network = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=ground.VOCABULARY,
            hidden_size=512,
            intermediate_size=1376,
            num_hidden_layers=12,
            num_attention_heads=8,
        )
    )
    # In another precision than it is trained in: what is not converted stays in the mapped file.
    network.bfloat16().save_pretrained(base, max_shard_size="10MB")
    assert len(list(base.glob("model-*.safetensors"))) > 3
    whole = sum(parameter.numel() * 4 for parameter in network.parameters())
    del network
    model = ModelConfig(base=str(base))
    common = {"model": model, "tokenizer": made / "tokenizer"}
    # The first scene also pays for what is imported on the way.
    cast = [(scenes.loading, {**common, "stage": stage}) for stage in (3, 3, 2)]
    _, split, replicated = gang.play(2, cast)
    assert all(grown > 0.9 * whole for grown in replicated), "or else nothing is measured"
    assert all(grown < 0.75 * whole for grown in split), (split, whole)
