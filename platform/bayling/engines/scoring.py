"""How likely texts are: one plain forward pass, no cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from bayling.engines.protocol import Scored
from bayling.engines.sampling import scored

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_LOGITS = 2**26
"""The most logits of one pass, padding included, unless a single text has more: 128 MiB in
bfloat16."""
_POSITIONS = 512
"""Positions whose logits are turned into log-probabilities, which are float32, at a time."""


def fitting(lengths: Sequence[int], vocab_size: int) -> int:
    """How many of the texts, from the first on, one pass takes; at least one."""
    longest = 0
    for count, length in enumerate(lengths):
        longest = max(longest, length)
        if count and longest * (count + 1) * vocab_size > _LOGITS:
            return count
    return len(lengths)


def score_texts(
    model: PreTrainedModel, texts: Sequence[Sequence[int]], tops: Sequence[int]
) -> list[list[Scored]]:
    """For each text the scores of all its tokens but the first.

    Args:
        tops: how many of the likeliest tokens each text's tokens are to come with.
    """
    width = max(len(text) for text in texts)
    # Padding on the right is never looked at by what stands before it.
    ids = torch.tensor([[*text, *[0] * (width - len(text))] for text in texts], device=model.device)
    logits = model(input_ids=ids, use_cache=False).logits
    result = []
    for row, (text, top) in enumerate(zip(texts, tops, strict=True)):
        scores: list[Scored] = []
        for start in range(0, len(text) - 1, _POSITIONS):
            end = min(start + _POSITIONS, len(text) - 1)
            scores += scored(
                logits[row, start:end], ids[row, start + 1 : end + 1], [top] * (end - start)
            )
        result.append(scores)
    return result
