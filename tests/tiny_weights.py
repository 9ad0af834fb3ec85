"""Folders of base weights in the forms they come in, of a few thousand parameters."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from tiny_tokenizers import llama2
from transformers import LlamaConfig, LlamaForCausalLM

VOCABULARY = 480


def report(what: str, done: float, of: float) -> None:
    """Progress that nobody looks at."""


def tiny_llama(seed: int = 0, *, rows: int = VOCABULARY, tie: bool = False) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=rows,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=64,
            tie_word_embeddings=tie,
            initializer_range=0.3,
        )
    )


def safetensors_folder(
    folder: Path,
    *,
    seed: int = 0,
    rows: int = VOCABULARY,
    dtype: torch.dtype = torch.float16,
    shard: str = "20KB",
    tie: bool = False,
) -> Path:
    """What a hub has today: several safetensors with an index, and tokenizer.json."""
    llama2(folder).save_pretrained(folder)
    tiny_llama(seed, rows=rows, tie=tie).to(dtype).save_pretrained(folder, max_shard_size=shard)
    for name in ("tokenizer.model", "tokenizer.vocab"):
        (folder / name).unlink(missing_ok=True)
    return folder


def pickled_folder(
    folder: Path,
    *,
    shards: int = 2,
    dtype: torch.dtype = torch.float16,
    frequencies: bool = True,
    tie: bool = False,
    legacy: bool = False,
) -> dict[str, torch.Tensor]:
    """What LLaMA came as in 2023: pickles, rotary frequencies and only tokenizer.model.

    Returns its tensors, without the frequencies.
    """
    llama2(folder)
    (folder / "tokenizer.vocab").unlink()
    model = tiny_llama(tie=tie).to(dtype)
    model.config.save_pretrained(folder)
    state: dict[str, torch.Tensor] = dict(model.state_dict())
    extra = {
        f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": torch.ones(4) for layer in range(2)
    }
    whole = {**state, **(extra if frequencies else {})}
    options: dict[str, Any] = {"_use_new_zipfile_serialization": not legacy}
    if shards == 1:
        torch.save(whole, folder / "pytorch_model.bin", **options)
        return state
    keys = list(whole)
    weight_map = {}
    for number in range(shards):
        file = f"pytorch_model-{number + 1:05d}-of-{shards:05d}.bin"
        mine = keys[number::shards]
        torch.save({key: whole[key] for key in mine}, folder / file, **options)
        weight_map |= dict.fromkeys(mine, file)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index), "utf-8")
    return state


class Evil:
    """Unpickled by anything but `weights_only`, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)
