"""Base models as the recipes take them, with the same architecture and a thousandth of the size."""

from __future__ import annotations

from pathlib import Path

import tiny_tokenizers
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from bayling.config import Config


def make(config: Config, folder: Path) -> Path:
    """A sharded safetensors folder with the vocabulary, template and kind of attention of a recipe.

    LLaMA 1 and 2 have 32,000 tokens and as many key heads as query heads; Llama 3 has 128,256
    tokens, grouped-query attention and, from 3.1 on, scaled rotary positions.
    """
    model = config.model
    third = model.template.value == "bayling3"
    tokenizer = tiny_tokenizers.llama3() if third else tiny_tokenizers.llama2(folder / "spm")
    scaled = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 128,
        "rope_theta": model.rope_theta,
    }
    torch.manual_seed(0)
    network = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=model.vocab_size,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4 * model.kv_heads // model.heads,
            max_position_embeddings=model.context_length,
            rms_norm_eps=1e-5,
            rope_parameters=scaled if third else {"rope_type": "default", "rope_theta": 1e4},
            tie_word_embeddings=False,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    ).to(torch.bfloat16)
    base = folder / "base"
    network.save_pretrained(base, max_shard_size="4MB")
    tokenizer.save_pretrained(base)
    assert len(list(base.glob("model-*.safetensors"))) > 1
    return base
