"""Whether a folder holds a model that an engine can load; asked before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from bayling.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_INDEX = "model.safetensors.index.json"


def check_model_folder(folder: Path) -> None:
    """Look for a configuration and for all weights. Reads no weights.

    Raises:
        UserError: something is missing; the message names the file.
    """
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} holds no model: there is no config.json in it")
    if not any(folder.glob("*.safetensors")):
        raise UserError(f"{folder} holds no model: there is no .safetensors file in it")
    index = folder / _INDEX
    if not index.is_file():
        return
    try:
        files = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{index} cannot be read: {error!r}") from None
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"{folder} is not whole: {len(missing)} of its {len(files)} files of weights are "
            f"missing, such as {missing[0]}; copy or export the model again"
        )


def check_context(folder: Path, context_length: int, config: PreTrainedConfig) -> None:
    """Raise UserError for a context that is longer than the model was made for."""
    if context_length > config.max_position_embeddings:
        raise UserError(
            f"the model in {folder} was made for {config.max_position_embeddings} positions: a "
            f"context length of {context_length} is beyond them"
        )
