"""Attention that stays inside a conversation, without a mask.

transformers makes a block-diagonal mask for packed sequences, and a dense mask rules out the
flash kernel: attention then costs the square of the sequence instead of the sum of the squares
of its conversations. This module registers an attention of its own, `packed`, which is told
where conversations begin: on a GPU it is torch's variable-length flash attention (FlashAttention-2,
arXiv 2307.08691), elsewhere one call a conversation.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface

from bayling.train.activations import MASKED_UP_TO

PACKED = "packed"


def choose(device: torch.device, dtype: torch.dtype, sequence_length: int) -> str:
    """The attention that is fastest on packed sequences; a name that transformers knows."""
    if device.type == "cuda":
        # The flash kernel wants half precision and an Ampere GPU or a newer one.
        flash = dtype != torch.float32 and torch.cuda.get_device_capability(device) >= (8, 0)
        return PACKED if flash else "sdpa"
    # In bf16 the fused CPU kernel's backward pass takes longer than plain matrix products.
    return "eager" if sequence_length <= MASKED_UP_TO else PACKED


def boundaries(position_ids: torch.Tensor) -> torch.Tensor:
    """Where conversations begin in a batch laid end to end, and its length: int32, (n + 1,).

    `position_ids` (batch, length) restart at 0 with each conversation.
    """
    flat = position_ids.reshape(-1)
    starts = torch.nonzero(flat == 0).reshape(-1)
    end = torch.tensor([flat.numel()], device=flat.device)
    return torch.cat([starts, end]).to(torch.int32)


def _forward(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    boundaries: torch.Tensor,
    **rest: Any,
) -> tuple[torch.Tensor, None]:
    """Query (batch, heads, length, size), key and value with their own number of heads; returns
    (batch, length, heads, size)."""
    batch, heads, length, size = query.shape
    q, k, v = (
        part.transpose(1, 2).reshape(-1, part.shape[1], size) for part in (query, key, value)
    )
    attend = _flash if query.device.type == "cuda" else _one_by_one
    return attend(q, k, v, boundaries, length, scaling).view(batch, length, heads, size), None


def _flash(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    boundaries: torch.Tensor,
    longest: int,
    scaling: float,
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    result = varlen_attn(
        query,
        key,
        value,
        boundaries,
        boundaries,
        longest,
        longest,
        scale=scaling,
        window_size=(-1, 0),  # causal
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(result, torch.Tensor)  # a pair only with return_aux
    return result


def _one_by_one(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    boundaries: torch.Tensor,
    longest: int,
    scaling: float,
) -> torch.Tensor:
    sizes = boundaries.diff().tolist()
    parts = []
    split = (torch.split(part, sizes) for part in (query, key, value))
    for q, k, v in zip(*split, strict=True):
        part = functional.scaled_dot_product_attention(
            q.transpose(0, 1)[None],
            k.transpose(0, 1)[None],
            v.transpose(0, 1)[None],
            is_causal=True,
            scale=scaling,
            enable_gqa=q.shape[1] != k.shape[1],
        )
        parts.append(part[0].transpose(0, 1))
    return torch.cat(parts)


AttentionInterface.register(PACKED, _forward)
