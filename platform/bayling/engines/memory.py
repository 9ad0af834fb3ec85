"""How many tokens of keys and values there is room for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from bayling.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

_OF_FREE_GPU = 0.8
"""Of what is free once the weights are loaded; the rest is for the activations of a prefill."""
_OF_FREE_MAIN = 0.4
"""Main memory is shared with other replicas, and with everything else on the machine."""


def bytes_per_token(config: PreTrainedConfig, itemsize: int) -> int:
    """What one token's keys and values take, in all layers.

    Args:
        config: the text model's.
        itemsize: bytes of a number.
    """
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * size * itemsize)


def cache_tokens(model: PreTrainedModel, context_length: int, gib: float | None) -> int:
    """The tokens that the cache may hold in all.

    Args:
        gib: how much memory it may take; a share of what is free now without it.

    Raises:
        UserError: not even one request of the full context fits.
    """
    each = bytes_per_token(model.config.get_text_config(), model.dtype.itemsize)
    if gib is None:
        room = _free(model.device) * (_OF_FREE_MAIN if model.device.type == "cpu" else _OF_FREE_GPU)
    else:
        room = gib * 2**30
    check_room(each, context_length, room, gib)
    return int(room // each)


def check_room(each: int, context_length: int, room: float, gib: float | None) -> None:
    """Raise UserError where not even one request of the full context fits.

    Args:
        each: what one token's keys and values take.
        room: bytes that they may take in all.
        gib: what somebody has set that to.
    """
    if room >= each * context_length:
        return
    way_out = "free memory, or serve a smaller context"
    raise UserError(
        f"a context of {context_length} tokens takes {each * context_length / 2**30:.2f} GiB of "
        f"keys and values, and there is room for {room / 2**30:.2f}: "
        + (way_out if gib is None else "raise serve.kv_cache_gib")
    )


def _free(device: torch.device) -> int:
    """Bytes of the device's memory that nobody uses."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    return int(psutil.virtual_memory().available)
