"""A model folder as a model that is ready to generate, in this process."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer
from transformers.utils.logging import disable_progress_bar

from bayling import accelerators
from bayling.engines.cache import ATTENTION
from bayling.engines.folder import check_model_folder
from bayling.engines.packed import pack
from bayling.errors import UserError


def load_model(folder: str | Path, device: str, dtype: str) -> PreTrainedModel:
    """The causal language model of a local safetensors folder, ready for inference.

    Raises:
        UserError: there is none, or one whose attention the engine cannot cache.
    """
    folder = Path(folder)
    check_model_folder(folder)
    # Its bar would stand between the lines of whoever reports progress here.
    disable_progress_bar()
    try:
        model = AutoModelForCausalLM.from_pretrained(
            str(folder),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=dtype,
            attn_implementation=ATTENTION,
        )
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} does not load as a model: {error}") from error
    layers = DynamicCache(config=model.config).layers
    if any(type(layer) is not DynamicLayer for layer in layers):
        raise UserError(
            f"the engine 'transformers' runs models with full attention in every layer, and "
            f"{model.config.model_type!r} in {folder} has others"
        )
    slow = device == "cpu" and not accelerators.cpu_multiplies_bf16()
    if dtype == "auto" and model.dtype is torch.bfloat16 and slow:
        model = model.float()
    model = model.eval().to(device)
    assert isinstance(model, PreTrainedModel)
    if device == "cpu":
        pack(model)
    return model
