"""LoRA (arXiv 2106.09685) through peft: adapters in the network, alone, and merged into it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bayling.errors import UserError
from bayling.stage import write_json
from bayling.train.config import LoraConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_ADAPTER = "default"
Reader = Callable[[str], torch.Tensor]
"""The name of a trained parameter → the whole of it, fp32."""


def insert(model: PreTrainedModel, lora: LoraConfig) -> None:
    """Put adapters into the network, in place; everything else is frozen.

    Raises:
        UserError: the network has no layer of these names.
    """
    from peft import inject_adapter_in_model

    config = _peft_config(lora)
    try:
        inject_adapter_in_model(config, model, adapter_name=_ADAPTER)
    except ValueError as error:
        raise UserError(
            f"train.lora.targets={','.join(lora.targets)}: {str(error).splitlines()[0]}"
        ) from None
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)


def _peft_config(lora: LoraConfig) -> Any:
    from peft import LoraConfig as PeftConfig

    return PeftConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=sorted(lora.targets),
        task_type="CAUSAL_LM",
        bias="none",
    )


def write(folder: Path, names: Iterable[str], read: Reader, lora: LoraConfig, base: str) -> None:
    """The adapters alone, as peft and vLLM load them beside the base model.

    Args:
        names: of the trained parameters, as the network calls them.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"base_model.model.{name.replace(f'.{_ADAPTER}.', '.')}": read(name).to(torch.bfloat16)
        for name in names
    }
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = _peft_config(lora)
    config.base_model_name_or_path = base
    config.inference_mode = True
    config.save_pretrained(folder)
    # peft writes sets in any order: the same adapters should be the same bytes.
    path = folder / "adapter_config.json"
    written = json.loads(path.read_text("utf-8"))
    written["target_modules"] = sorted(written["target_modules"])
    write_json(path, written)


def merged(name: str, weight: torch.Tensor, lora: LoraConfig, read: Reader | None) -> torch.Tensor:
    """A weight of the base with its adapter added, in the weight's own dtype: W + BA·alpha/rank.

    Args:
        name: of the weight in the base, such as `model.layers.0.self_attn.q_proj.weight`.
        read: reads a trained parameter; None where nothing was trained yet.
    """
    layer = name.removesuffix(".weight")
    if read is None or not name.endswith(".weight") or layer.split(".")[-1] not in lora.targets:
        return weight
    down = read(f"{layer}.lora_A.{_ADAPTER}.weight")
    up = read(f"{layer}.lora_B.{_ADAPTER}.weight")
    return (weight.float() + (lora.alpha / lora.rank) * (up @ down)).to(weight.dtype)
