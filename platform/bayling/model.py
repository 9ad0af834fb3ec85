"""The `model` group of the configuration: the network's shape, its tokenizer and its template."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from bayling.errors import UserError


class Licence(Enum):
    """The terms of the base weights, and so of what is made from them."""

    none = "none"
    """There is no base: the weights are random at first."""
    llama1 = "llama1"
    llama2 = "llama2"
    llama3 = "llama3"
    other = "other"


class TemplateName(Enum):
    bayling = "bayling"
    bayling3 = "bayling3"
    chatml = "chatml"
    own = "own"


@dataclass
class ModelConfig:
    """A LLaMA: either a folder with weights and tokenizer, or one made from these sizes."""

    name: str = "tiny"
    base: str | None = None
    """A local folder with config, tokenizer and safetensors. Without one the model starts
    from random weights and the data stage trains its tokenizer. With one, its own config
    says how the network looks; the sizes below serve to plan before it is there."""
    source: str | None = None
    """Where `base` comes from when it is not there yet: `hf://OWNER/NAME`, a bucket's address
    (`s3://`, `gs://`) or a folder."""
    revision: str | None = None
    """The commit of a hub's repository; only with one is a download the same tomorrow."""
    licence: Licence = Licence.none
    template: TemplateName = TemplateName.bayling
    context_length: int = 512
    """The longest prompt and answer together that the model is built and served for."""
    vocab_size: int = 2048
    hidden_size: int = 256
    intermediate_size: int = 688
    layers: int = 4
    heads: int = 4
    kv_heads: int = 4
    tie_embeddings: bool = True
    rope_theta: float = 10000.0
    initializer_range: float = 0.02
    """Standard deviation of the random weights."""

    def validate(self) -> None:
        if self.base is None and self.source is not None:
            raise UserError(
                f"model.source={self.source} needs a place to lie: set model.base to a folder"
            )
        if self.licence is Licence.llama3 and not self.name.lower().startswith("llama-3"):
            raise UserError(
                f"model.name={self.name}: the Meta Llama 3 licence wants the name of a model "
                f"made from it to begin with 'Llama-3': call it llama-3-{self.name}"
            )
        if self.base is None and self.template is TemplateName.own:
            raise UserError(
                "model.template=own takes the template from the base model's tokenizer: "
                "name one with model.base, or choose bayling, bayling3 or chatml"
            )
        if self.hidden_size % self.heads:
            raise UserError(
                f"model.hidden_size={self.hidden_size} cannot be split over "
                f"model.heads={self.heads}: choose a multiple"
            )
        if (self.hidden_size // self.heads) % 2:
            raise UserError(
                f"model.hidden_size / model.heads is {self.hidden_size // self.heads}: "
                "rotary positions need an even number"
            )
        if self.heads % self.kv_heads:
            raise UserError(
                f"model.heads={self.heads} is not a multiple of model.kv_heads={self.kv_heads}"
            )
        if self.vocab_size < 300:
            raise UserError(
                f"model.vocab_size={self.vocab_size} leaves no room beside the 256 bytes "
                "and the special tokens: use at least 300"
            )
        for key in ("context_length", "layers", "intermediate_size", "kv_heads"):
            if getattr(self, key) < 1:
                raise UserError(f"model.{key} must be at least 1, not {getattr(self, key)}")
