"""A batch of sequences that grow together, one token a step, and come and go at any step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bayling.engines.cache import RowCache
from bayling.engines.protocol import Sampling, Scored
from bayling.engines.sampling import generator, next_tokens, scored

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Step:
    """What one row made in one step."""

    token: int
    stopped: bool
    """The token is one that ends the answer."""
    full: bool
    """It was the last one that the request allowed."""
    score: Scored | None = None
    """Where the request asked for it."""


class Batch:
    """The rows of a model's decoding batch.

    The first `size` rows are in use. Every tensor below has an entry for each row that can be.
    """

    def __init__(self, model: PreTrainedModel, max_rows: int, cache_tokens: int) -> None:
        self.size = 0
        self._model = model
        self._cache = RowCache(model.config.get_text_config().num_hidden_layers, cache_tokens)
        self._rngs: list[Random | None] = []

        def whole(width: int = 1) -> Tensor:
            shape = (max_rows, width) if width > 1 else (max_rows,)
            return torch.zeros(shape, dtype=torch.long, device=model.device)

        self._lengths = whole()
        """Tokens of the row that are in the cache."""
        self._last = whole()
        """The token that was chosen last and is not in the cache yet."""
        self._left = whole()
        """How many more tokens the row may make."""
        self._stops = whole(2)
        """Ids that end the row's answer, filled up with -1."""
        self._temperature = torch.zeros(max_rows, device=model.device)
        self._top_p = torch.ones(max_rows, device=model.device)
        self._host_lengths: list[int] = []
        self._logprobs: list[int | None] = []
        """Whether the row's tokens are scored, and with how many alternatives."""

    def has_room(self, rows: int, width: int) -> bool:
        """Whether the cache may hold so many rows of so many tokens."""
        return self._cache.has_room(rows, width)

    def cache_used(self) -> float:
        """The share of the cache's room that is taken, 0 to 1. Of any thread."""
        return self._cache.used(self.size)

    def add(self, prompts: Sequence[Sequence[int]], samplings: Sequence[Sampling]) -> list[Step]:
        """Take prompts in as new rows; returns the first token of each."""
        first, end = self.size, self.size + len(prompts)
        lengths = [len(prompt) for prompt in prompts]
        width = max(lengths)
        # Padding stands on the right: a causal model never looks at what comes later, so the
        # prompts need no mask, and each starts at column 0 of its row.
        ids = torch.tensor([[*prompt, *[0] * (width - len(prompt))] for prompt in prompts])
        device = self._model.device
        lengths_here = torch.tensor(lengths, device=device)
        # Logits are wanted at the last token of each prompt only; over a whole prompt and a
        # large vocabulary they would be the largest tensor of all.
        wanted, which = torch.unique(lengths_here - 1, return_inverse=True)
        self._cache.expect_prompts(first, end, width, max([width, *self._host_lengths]))
        logits = self._model(
            input_ids=ids.to(device),
            position_ids=torch.arange(width, device=device)[None],
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=wanted,
        ).logits
        logits = logits[torch.arange(len(prompts), device=device), which]

        rows = slice(first, end)
        self._lengths[rows] = lengths_here
        self._left[rows] = torch.tensor([s.max_new_tokens for s in samplings], device=device)
        self._temperature[rows] = torch.tensor([s.temperature for s in samplings], device=device)
        self._top_p[rows] = torch.tensor([s.top_p for s in samplings], device=device)
        self._set_stops(first, samplings)
        rngs = [generator(sampling) for sampling in samplings]
        logprobs = [sampling.logprobs for sampling in samplings]
        steps = self._choose(rows, rngs, logprobs, logits)
        self._rngs += rngs
        self._logprobs += logprobs
        self._host_lengths += lengths
        self.size = end
        return steps

    def step(self) -> list[Step]:
        """One more token for every row."""
        size = self.size
        positions = self._lengths[:size]
        columns = self._cache.expect_tokens(positions, max(self._host_lengths) + 1)
        hidden = torch.arange(columns, device=positions.device)[None] > positions[:, None]
        mask = torch.zeros(hidden.shape, dtype=self._model.dtype, device=positions.device)
        mask.masked_fill_(hidden, float("-inf"))
        logits = self._model(
            input_ids=self._last[:size, None],
            position_ids=positions[:, None],
            attention_mask=mask[:, None, None],
            past_key_values=self._cache,
            use_cache=True,
        ).logits[:, -1]
        self._lengths[:size] += 1
        self._host_lengths = [length + 1 for length in self._host_lengths]
        return self._choose(slice(0, size), self._rngs, self._logprobs, logits)

    def remove(self, rows: Sequence[int]) -> list[int]:
        """Take rows out. The last ones move into the gaps.

        Returns:
            For each row that is left, the row it was before.
        """
        gone = set(rows)
        size = self.size - len(gone)
        gaps = [row for row in sorted(gone) if row < size]
        movers = [row for row in range(size, self.size) if row not in gone]
        if movers:
            self._cache.move(movers, gaps, max(self._host_lengths))
            for state in (
                self._lengths,
                self._last,
                self._left,
                self._stops,
                self._temperature,
                self._top_p,
            ):
                state[gaps] = state[movers]
        was = list(range(size))
        for gap, mover in zip(gaps, movers, strict=True):
            was[gap] = mover
        self._rngs = [self._rngs[row] for row in was]
        self._logprobs = [self._logprobs[row] for row in was]
        self._host_lengths = [self._host_lengths[row] for row in was]
        self.size = size
        if not size:
            self._cache.clear()
        return was

    def clear(self) -> None:
        """Take out all rows, and whatever a failed step left in the cache."""
        self.size = 0
        self._rngs, self._logprobs, self._host_lengths = [], [], []
        self._cache.clear()

    def _set_stops(self, first: int, samplings: Sequence[Sampling]) -> None:
        most = max(len(sampling.stop_ids) for sampling in samplings)
        if most > self._stops.shape[1]:
            wider = self._stops.new_full((len(self._stops), most), -1)
            wider[:, : self._stops.shape[1]] = self._stops
            self._stops = wider
        width = self._stops.shape[1]
        filled = [[*s.stop_ids, *[-1] * (width - len(s.stop_ids))] for s in samplings]
        self._stops[first : first + len(samplings)] = torch.tensor(
            filled, device=self._stops.device
        )

    def _choose(
        self,
        rows: slice,
        rngs: Sequence[Random | None],
        logprobs: Sequence[int | None],
        logits: Tensor,
    ) -> list[Step]:
        """Choose and note down the next token of some rows."""
        drawn = [row for row, rng in enumerate(rngs) if rng is not None]
        tokens = next_tokens(
            logits,
            drawn,
            self._temperature[rows][drawn],
            self._top_p[rows][drawn],
            [rng for rng in rngs if rng is not None],
        )
        self._last[rows] = tokens
        self._left[rows] -= 1
        stopped = (tokens[:, None] == self._stops[rows]).any(1)
        # One transfer for all three: on a GPU each would wait for the device.
        made = torch.stack([tokens, stopped.long(), (self._left[rows] <= 0).long()]).tolist()
        scores: list[Scored | None] = [None] * len(rngs)
        wanted = [row for row, top in enumerate(logprobs) if top is not None]
        if wanted:
            most = [top for top in logprobs if top is not None]
            for row, score in zip(
                wanted, scored(logits[wanted], tokens[wanted], most), strict=True
            ):
                scores[row] = score
        return [
            Step(token, bool(stop), bool(full), score)
            for token, stop, full, score in zip(*made, scores, strict=True)
        ]
