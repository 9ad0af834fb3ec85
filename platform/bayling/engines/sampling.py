"""The next token of each row of a batch, every row by its own rules."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import torch
from torch import Tensor

from bayling.engines.protocol import Sampling, Scored

# Below this a softmax at temperature T is the arg max, and dividing by T would overflow.
_GREEDY_BELOW = 1e-4


def generator(sampling: Sampling) -> Random | None:
    """What a request's tokens are drawn with, from where it goes on; None if nothing is drawn."""
    if sampling.temperature < _GREEDY_BELOW:
        return None
    rng = Random(sampling.seed)
    for _ in range(sampling.drawn):
        rng.random()
    return rng


def scored(logits: Tensor, tokens: Tensor, top: Sequence[int]) -> list[Scored]:
    """The log-probability of a token in each row, and the likeliest tokens beside it.

    Args:
        logits: [rows, vocabulary]; any float type.
        tokens: [rows].
        top: how many of the likeliest each row is to have.
    """
    logprobs = torch.log_softmax(logits.float(), -1)
    own = logprobs.gather(-1, tokens[:, None])[:, 0].tolist()
    if not any(top):
        return [Scored(logprob) for logprob in own]
    values, ids = logprobs.topk(min(max(top), logprobs.shape[-1]), -1)
    rows = zip(own, ids.tolist(), values.tolist(), top, strict=True)
    return [
        Scored(logprob, tuple(zip(best[:most], likely[:most], strict=True)))
        for logprob, best, likely, most in rows
    ]


def next_tokens(
    logits: Tensor, drawn: Sequence[int], temperature: Tensor, top_p: Tensor, rngs: Sequence[Random]
) -> Tensor:
    """The chosen token of each row; int64 of shape [rows].

    A drawn row takes one number from its own generator and depends on nothing else than its
    logits, so that it draws the same tokens in whatever company.

    Args:
        logits: [rows, vocabulary]; any float type.
        drawn: the rows that sample, ascending; the others take the likeliest token.
        temperature: of the drawn rows.
        top_p: of the drawn rows.
        rngs: of the drawn rows.
    """
    tokens = _likeliest(logits)
    if not drawn:
        return tokens
    rows = torch.tensor(drawn, device=logits.device)
    probabilities = torch.softmax(logits[rows].float() / temperature[:, None], -1)
    nucleus = (top_p < 1).nonzero()[:, 0]
    if len(nucleus):
        probabilities[nucleus] = _nucleus(probabilities[nucleus], top_p[nucleus])
    # Double, because a float sum over a large vocabulary loses its unlikely tokens.
    cumulative = probabilities.double().cumsum(-1)
    draws = torch.tensor([rng.random() for rng in rngs], dtype=torch.double, device=logits.device)
    picked = torch.searchsorted(cumulative, draws[:, None] * cumulative[:, -1:], right=True)
    tokens[rows] = picked[:, 0].clamp(max=logits.shape[-1] - 1)
    return tokens


def _likeliest(logits: Tensor) -> Tensor:
    """The likeliest token of each row."""
    if logits.device.type != "cpu":
        return logits.argmax(-1)
    # Torch's takes ten to twenty times as long there: with 32,000 tokens, a twentieth of a step of
    # a model of 125 million parameters.
    return torch.from_numpy(logits.float().numpy().argmax(-1))


def _nucleus(probabilities: Tensor, top_p: Tensor) -> Tensor:
    """The probabilities with 0 for every token outside the nucleus; not normalised."""
    ordered, index = probabilities.sort(-1, descending=True)
    # A token stays if those before it do not fill top_p yet: so the likeliest always does.
    outside = ordered.cumsum(-1) - ordered >= top_p[:, None]
    return torch.zeros_like(probabilities).scatter(-1, index, ordered.masked_fill(outside, 0))
