"""LoRA adapters in folders, as PEFT writes them; looked at before an engine is started."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bayling.errors import UserError

CONFIG = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Those that vLLM has kernels for; a smaller one is run as the next larger."""


def check_adapters(adapters: Mapping[str, str]) -> None:
    """Raise UserError for an adapter that is not there, or that no engine could run."""
    for name, folder in adapters.items():
        if not (Path(folder) / _WEIGHTS).is_file():
            raise UserError(
                f"the adapter {name!r} is not there: {folder} has no {_WEIGHTS}; weights in other "
                "formats are not loaded"
            )
        rank = _rank(name, folder)
        if rank > _RANKS[-1]:
            raise UserError(
                f"the adapter {name!r} in {folder} has rank {rank}, and {_RANKS[-1]} is the most "
                "that can be served: merge it into the model instead"
            )


def largest_rank(adapters: Mapping[str, str]) -> int:
    """The rank that has room for all of them, as vLLM knows ranks."""
    rank = max(_rank(name, folder) for name, folder in adapters.items())
    return next(size for size in _RANKS if size >= rank)


def _rank(name: str, folder: str) -> int:
    path = Path(folder) / CONFIG
    try:
        config: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return max(int(config["r"]), *map(int, (config.get("rank_pattern") or {0: 0}).values()))
    except FileNotFoundError:
        raise UserError(f"the adapter {name!r} is not there: {folder} has no {CONFIG}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} cannot be read: {error!r}") from None
