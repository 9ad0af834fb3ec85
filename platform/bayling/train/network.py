"""The network: a LLaMA from sizes or from a folder, and its loss on packed sequences.

Imports without Ray, so that benchmarks can run the trainer's own step.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.integrations import is_deepspeed_zero3_enabled

from bayling.errors import UserError
from bayling.model import ModelConfig
from bayling.train import attention
from bayling.train.activations import LOGITS_AT_ONCE

IGNORED = -100


def build(
    config: ModelConfig,
    tokenizer: PreTrainedTokenizerFast,
    seed: int,
    stop_ids: list[int],
    *,
    dtype: torch.dtype = torch.float32,
    implementation: str = "sdpa",
    device: torch.device | None = None,
) -> PreTrainedModel:
    """The model before training: the base's weights, or random ones from `seed`.

    Args:
        dtype: of the base's weights, and on a GPU of random ones. On a CPU those are made in
            fp32, the same whatever the precision of training.
        implementation: of attention, a name that transformers knows or `attention.PACKED`.
        device: where the base's weights are read to, a tensor at a time. Below DeepSpeed's
            ZeRO-3 (transformers is told by an `HfDeepSpeedConfig`) each process keeps its part.
            Random ones are drawn there if it is a GPU: 8 billion take minutes on a CPU, and
            32 GB of main memory.

    Raises:
        UserError: the base's folder cannot be loaded, or its embedding is smaller than the
            tokenizer's vocabulary.
    """
    if config.base is not None:
        return _load(config.base, tokenizer, dtype, implementation, device)
    torch.manual_seed(seed)
    shape = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        max_position_embeddings=config.context_length,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        initializer_range=config.initializer_range,
        tie_word_embeddings=config.tie_embeddings,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=stop_ids if len(stop_ids) > 1 else stop_ids[0],
        # Without a padding id: it would be the end token's, whose embedding torch then
        # keeps at zero. Packed training pads with nothing that is looked at.
        pad_token_id=None,
        attn_implementation=implementation,
    )
    if device is None or device.type != "cuda":
        return LlamaForCausalLM(shape)
    with device:
        return AutoModelForCausalLM.from_config(shape, dtype=dtype)


def _load(
    folder: str,
    tokenizer: PreTrainedTokenizerFast,
    dtype: torch.dtype,
    implementation: str,
    device: torch.device | None,
) -> PreTrainedModel:
    # A check that needs no weights, before gigabytes are read.
    try:
        rows = json.loads((Path(folder) / "config.json").read_text("utf-8")).get("vocab_size", 0)
    except (OSError, ValueError) as error:
        raise UserError(f"model.base={folder}: no usable model: {error}") from None
    if len(tokenizer) > rows:
        raise UserError(
            f"model.base={folder}: the tokenizer has {len(tokenizer)} tokens, the embedding "
            f"{rows} rows: take the tokenizer the model was made with"
        )
    try:
        return AutoModelForCausalLM.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=dtype,
            attn_implementation=implementation,
            device_map=None if is_deepspeed_zero3_enabled() else device,
        )
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"model.base={folder}: no usable model: {reason}") from None


class PackedLoss(nn.Module):
    """A causal LM with its loss on packed sequences."""

    def __init__(self, model: PreTrainedModel, groups: int = 1) -> None:
        super().__init__()
        self.model = model
        self.groups = groups
        self.by_group = torch.zeros(2, groups, dtype=torch.float64)
        """Of the last forward pass: the loss and the supervised tokens of every group, (2, groups),
        on the CPU or, before anyone looked, on the device."""

    def forward(
        self,
        input_ids: torch.Tensor,
        labels: torch.Tensor,
        position_ids: torch.Tensor,
        groups: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The cross entropy summed over supervised tokens; all arguments (batch, length).

        Attention stays inside a conversation because `position_ids` restart at 0 with each and
        no mask and no cache is given: with a cache transformers would let it cross silently.
        """
        more: dict[str, torch.Tensor] = {}
        if self.model.config._attn_implementation == attention.PACKED:
            more["boundaries"] = attention.boundaries(position_ids)
        hidden = self.model.base_model(
            input_ids=input_ids, position_ids=position_ids, use_cache=False, **more
        ).last_hidden_state
        targets = labels[:, 1:]
        wanted = targets != IGNORED
        losses = self._losses(hidden[:, :-1][wanted], targets[wanted])
        with torch.no_grad():
            table = torch.zeros(2, self.groups, device=losses.device)
            if groups is not None:
                index = groups[:, 1:][wanted]
                table[0].index_add_(0, index, losses.detach())
                table[1].index_add_(0, index, torch.ones_like(losses))
            self.by_group = table
        return losses.sum()

    @property
    def head(self) -> nn.Parameter:
        """The weights that make logits, (vocabulary, hidden)."""
        weight: nn.Parameter = self.model.get_output_embeddings().weight
        return weight

    def _losses(self, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The loss of every supervised token, shape (tokens,).

        Logits are made only where there is something to learn, and a slice at a time where they
        would be the largest tensor of all: 4,096 tokens of a vocabulary of 128 k are 2 GiB, and
        the same again for their gradient. A slice's are computed again in the backward pass.
        """
        head = self.head

        def slice_losses(states: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
            logits = functional.linear(states, head).float()
            return functional.cross_entropy(logits, wanted, reduction="none")

        rows = max(1, LOGITS_AT_ONCE // self.model.config.vocab_size)
        if len(targets) <= rows:
            return slice_losses(hidden, targets)
        parts = [
            checkpoint(slice_losses, states, wanted, use_reentrant=False)
            for states, wanted in zip(
                torch.split(hidden, rows), torch.split(targets, rows), strict=True
            )
        ]
        return torch.cat(parts)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Weight decay for matrices; none for norms, biases and embeddings.

    One group where there is none at all: each costs a few collectives a step.
    """
    if not weight_decay:
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return [{"params": trained, "weight_decay": 0.0}]
    embeddings = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters()
    }
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        # Under ZeRO-3 a parameter is empty until it is used; its own shape is kept aside.
        dimensions = len(getattr(parameter, "ds_shape", parameter.shape))
        matrix = dimensions >= 2 and id(parameter) not in embeddings
        (decayed if matrix else plain).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]


def parameter_count(model: nn.Module) -> int:
    """All parameters, tied ones once; under ZeRO-3 their full sizes."""
    return sum(int(getattr(p, "ds_numel", p.numel())) for p in model.parameters())


def exact_buffers(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of the model's buffers, to be put back after a cast of the whole model.

    Rotary frequencies rounded to bf16 are off by up to 0.4 %; the exported model computes
    them exactly, so training must too.
    """
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def restore_buffers(model: nn.Module, buffers: dict[str, torch.Tensor]) -> None:
    """Put back what `exact_buffers` copied, on the device the model is on by now."""
    for name, exact in buffers.items():
        owner, _, attribute = name.rpartition(".")
        module = model.get_submodule(owner)
        setattr(module, attribute, exact.to(getattr(module, attribute).device))
