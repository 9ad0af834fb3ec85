"""A LLaMA's sizes, and how many parameters they come to: what a plan needs to know of a model.

Plain Python, so that a plan needs neither torch nor weights. The counts are those of
transformers' `LlamaForCausalLM` (and of Mistral's, which has the same matrices).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bayling.errors import UserError
from bayling.model import ModelConfig

LLAMA_LIKE = ("llama", "mistral")
"""The values of `model_type` whose networks consist of exactly the matrices counted here."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder with gated feed-forward layers and rotary positions."""

    vocab: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    tied: bool
    """Whether the output projection is the embedding itself."""
    stored: bool = False
    """Whether the weights are read from a folder; random ones are made in memory."""

    @staticmethod
    def of(model: ModelConfig) -> Shape:
        """The shape of `model`: what its base folder says, or its keys while there is none.

        Raises:
            UserError: the folder is there but has no config.json, or one of another kind of
                network.
        """
        if model.base is not None and Path(model.base).expanduser().exists():
            return _read(Path(model.base).expanduser())
        return Shape(
            vocab=model.vocab_size,
            hidden=model.hidden_size,
            intermediate=model.intermediate_size,
            layers=model.layers,
            heads=model.heads,
            kv_heads=model.kv_heads,
            head_dim=model.hidden_size // model.heads,
            tied=model.tie_embeddings,
            stored=model.base is not None,
        )

    @property
    def attention(self) -> int:
        """Width of all query heads together."""
        return self.heads * self.head_dim

    @property
    def key_value(self) -> int:
        """Width of all key heads together, and of all value heads."""
        return self.kv_heads * self.head_dim

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """A layer's linear projections by name: (inputs, outputs)."""
        return {
            "q_proj": (self.hidden, self.attention),
            "k_proj": (self.hidden, self.key_value),
            "v_proj": (self.hidden, self.key_value),
            "o_proj": (self.attention, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }

    @property
    def embedding(self) -> int:
        """Parameters of the embedding."""
        return self.vocab * self.hidden

    @property
    def head(self) -> int:
        """Parameters of the output projection; 0 where it is the embedding."""
        return 0 if self.tied else self.vocab * self.hidden

    @property
    def per_layer(self) -> int:
        """Parameters of one layer's linear projections, without its norms."""
        return sum(inputs * outputs for inputs, outputs in self.linears.values())

    @property
    def norms(self) -> int:
        """Parameters of all norms: two a layer and a last one."""
        return (2 * self.layers + 1) * self.hidden

    @property
    def parameters(self) -> int:
        """All parameters, tied ones once."""
        return self.embedding + self.head + self.layers * self.per_layer + self.norms

    @property
    def largest(self) -> int:
        """Parameters of the largest single tensor."""
        return max(self.embedding, *(inputs * outputs for inputs, outputs in self.linears.values()))

    def adapters(self, rank: int, targets: list[str]) -> int:
        """Parameters of low-rank adapters beside `targets` (LoRA, arXiv 2106.09685).

        Raises:
            UserError: a target is not one of `linears`.
        """
        for target in targets:
            if target not in self.linears:
                raise UserError(
                    f"train.lora.targets names {target}, which is no linear layer of the model: "
                    f"it can be {', '.join(self.linears)}"
                )
        sizes = (self.linears[target] for target in dict.fromkeys(targets))
        return self.layers * sum(rank * (inputs + outputs) for inputs, outputs in sizes)


def _read(folder: Path) -> Shape:
    """The shape that a model folder's config.json describes."""
    try:
        raw: Any = json.loads((folder / "config.json").read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"model.base={folder} has no config.json, so it is no model: fetch it again, or "
            "point model.base elsewhere"
        ) from None
    except ValueError as error:
        raise UserError(f"{folder / 'config.json'} is no JSON ({error})") from None
    kind = raw.get("model_type") if isinstance(raw, dict) else None
    if kind not in LLAMA_LIKE:
        raise UserError(
            f"model.base={folder} is of model_type {kind}: only {' and '.join(LLAMA_LIKE)} "
            "networks can be trained here"
        )
    try:
        heads = int(raw["num_attention_heads"])
        return Shape(
            vocab=int(raw["vocab_size"]),
            hidden=int(raw["hidden_size"]),
            intermediate=int(raw["intermediate_size"]),
            layers=int(raw["num_hidden_layers"]),
            heads=heads,
            kv_heads=int(raw.get("num_key_value_heads") or heads),
            head_dim=int(raw.get("head_dim") or raw["hidden_size"] // heads),
            tied=bool(raw.get("tie_word_embeddings", False)),
            stored=True,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / 'config.json'} lacks a size of the network: {error}") from None
