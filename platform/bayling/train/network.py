"""The network: a LLaMA from sizes or from a folder, and its loss on packed sequences.

Imports without Ray, so that benchmarks can run the trainer's own step.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from bayling.errors import UserError
from bayling.model import ModelConfig
from bayling.stage import write_json

IGNORED = -100


def build(
    config: ModelConfig,
    tokenizer: PreTrainedTokenizerFast,
    seed: int,
    stop_ids: list[int],
    attention: str = "sdpa",
) -> PreTrainedModel:
    """The model before training, in fp32: the base's weights, or random ones from `seed`.

    Raises:
        UserError: the base's folder cannot be loaded, or its embedding is smaller than the
            tokenizer's vocabulary.
    """
    if config.base is not None:
        try:
            model = AutoModelForCausalLM.from_pretrained(
                config.base,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.float32,
                attn_implementation=attention,
            )
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"model.base={config.base}: no usable model: {reason}") from None
        rows = model.get_input_embeddings().weight.shape[0]
        if len(tokenizer) > rows:
            raise UserError(
                f"model.base={config.base}: the tokenizer has {len(tokenizer)} tokens, the "
                f"embedding {rows} rows: take the tokenizer the model was made with"
            )
        return model
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
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
            attn_implementation=attention,
        )
    )


def attention_for(device: torch.device) -> str:
    """The attention that is fastest on packed sequences, which need a block-diagonal mask.

    On a CPU in bf16 the fused kernel's backward pass takes longer than plain matrix products.
    """
    return "eager" if device.type == "cpu" else "sdpa"


class PackedLoss(nn.Module):
    """A causal LM with its loss on packed sequences."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: torch.Tensor, labels: torch.Tensor, position_ids: torch.Tensor
    ) -> torch.Tensor:
        """The cross entropy summed over supervised tokens; all arguments (batch, length).

        Attention stays inside a conversation because `position_ids` restart at 0 with each and
        no mask and no cache is given: with a cache transformers would let it cross silently.
        """
        hidden = self.model.base_model(
            input_ids=input_ids, position_ids=position_ids, use_cache=False
        ).last_hidden_state
        targets = labels[:, 1:]
        wanted = targets != IGNORED
        # Logits only where there is something to learn: with a large vocabulary they are the
        # largest tensor of all.
        logits = self.model.get_output_embeddings()(hidden[:, :-1][wanted]).float()
        return functional.cross_entropy(logits, targets[wanted], reduction="sum")


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Weight decay for matrices; none for norms, biases and embeddings."""
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
        matrix = parameter.ndim >= 2 and id(parameter) not in embeddings
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


def save_folder(
    model: PreTrainedModel, state: dict[str, torch.Tensor] | None, folder: Path
) -> None:
    """Weights as safetensors, in bf16, with the model's config."""
    source = state if state is not None else model.state_dict()
    half = {
        name: tensor.detach().to("cpu", torch.bfloat16) if tensor.is_floating_point() else tensor
        for name, tensor in source.items()
    }
    model.save_pretrained(folder, state_dict=half, safe_serialization=True)
    # It writes down the dtype of the model in memory, not of the weights it was given.
    path = folder / "config.json"
    config = json.loads(path.read_text("utf-8"))
    config["dtype"] = "bfloat16"
    write_json(path, config)
