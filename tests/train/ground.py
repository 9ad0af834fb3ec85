"""What the trainer's tests train on: a few random conversations, packed, and a network for them."""

from __future__ import annotations

import json
import random
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from bayling.data.packing import GROUPS, Item, write_shard
from bayling.data.tokenizer import train as train_tokenizer
from bayling.model import ModelConfig
from bayling.templates import BAYLING, Encoded
from bayling.train.config import Precision, TrainConfig

SEQUENCES, LENGTH, VOCABULARY = 40, 24, 300
POISON = 250
"""A token whose embedding is no number in the poisoned base."""
MODEL = ModelConfig(
    hidden_size=32,
    intermediate_size=64,
    layers=2,
    heads=4,
    kv_heads=2,
    context_length=LENGTH,
    vocab_size=VOCABULARY,
    tie_embeddings=False,
    initializer_range=0.2,
)
# A decay that is seen in the loss: 5 % of a decayed weight in a step.
FULL = TrainConfig(
    global_batch=8,
    micro_batch=4,
    learning_rate=0.01,
    weight_decay=5.0,
    warmup=0.2,
    precision=Precision.fp32,
)


def conversations(seed: int, count: int, special: int | None = None) -> list[Item]:
    """Random prompts and answers; the sequence of the first one holds the token `special`."""
    rng = random.Random(seed)
    rows = []
    for index in range(count):
        # Two to a sequence; supervised parts differ in size, so that means of means are wrong.
        ids = [rng.randrange(5, POISON) for _ in range(LENGTH // 2)]
        if special is not None and index == 0:
            ids[2] = special
        answer = rng.randrange(2, LENGTH // 2 - 1)
        rows.append(
            Item(str(index), Encoded(ids, [i >= answer for i in range(len(ids))]), index % 2)
        )
    return rows


def pack(folder: Path, items: list[Item]) -> None:
    write_shard(items[: len(items) // 2], LENGTH, folder / "shard-00000")
    write_shard(items[len(items) // 2 :], LENGTH, folder / "shard-00001")
    (folder / GROUPS).write_text(json.dumps(["first", "second"]), "utf-8")


def make(folder: Path) -> Path:
    """Packed tokens, a tokenizer and two base models, one of them with a poisoned embedding."""
    tokenizer = train_tokenizer(["in 5 days, in 6 weeks"], VOCABULARY, BAYLING)
    tokenizer.save_pretrained(folder / "tokenizer")
    for name, poisoned in (("clean", False), ("poisoned", True)):
        pack(
            folder / name / "packed", conversations(1, 2 * SEQUENCES, POISON if poisoned else None)
        )
        pack(folder / name / "heldout", conversations(2, 14))
        (folder / name / "tokenizer").symlink_to(folder / "tokenizer")
        torch.manual_seed(3)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=VOCABULARY,
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=LENGTH,
                initializer_range=0.2,
            )
        )
        if poisoned:
            model.model.embed_tokens.weight.data[POISON] = float("nan")
        model.save_pretrained(folder / name / "base")
        tokenizer.save_pretrained(folder / name / "base")
    return folder
