"""A batch of sequences that grow together, one token a step, and come and go at any step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bayling.engines.cache import Rest, RowCache
from bayling.engines.prefixes import PrefixCache
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

    Args:
        cache_tokens: how many tokens' keys and values there is room for in the rows.
        kept_tokens: … and for what has left them, to be gone on from.
    """

    def __init__(
        self, model: PreTrainedModel, max_rows: int, cache_tokens: int, kept_tokens: int
    ) -> None:
        self.size = 0
        self._model = model
        self._cache = RowCache(model.config.get_text_config().num_hidden_layers, cache_tokens)
        self._prefixes = PrefixCache(kept_tokens)
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
        self._tokens: list[list[int]] = []
        """All tokens of each row; the last one is not in the cache yet."""
        self._logprobs: list[int | None] = []
        """Whether the row's tokens are scored, and with how many alternatives."""

    def has_room(self, rows: int, width: int) -> bool:
        """Whether the cache may hold so many rows of so many tokens."""
        return self._cache.has_room(rows, width)

    def cache_used(self) -> float:
        """The share of the cache's room that is taken, 0 to 1. Of any thread."""
        return self._cache.used(self.size)

    def known(self, prompt: Sequence[int]) -> int:
        """How many tokens of a prompt's beginning need not be read."""
        beginning = self._prefixes.find(prompt)
        return 0 if beginning is None else beginning.shape[3]

    def add(self, prompts: Sequence[Sequence[int]], samplings: Sequence[Sampling]) -> list[Step]:
        """Take prompts in as new rows; returns the first token of each.

        Prompts that are known and prompts that are new are best brought apart.
        """
        first, end = self.size, self.size + len(prompts)
        device = self._model.device
        beginnings = [self._prefixes.find(prompt) for prompt in prompts]
        if any(beginning is not None for beginning in beginnings):
            logits = self._read_rest(prompts, beginnings)
        else:
            logits = self._read(prompts)

        rows = slice(first, end)
        self._lengths[rows] = torch.tensor([len(prompt) for prompt in prompts], device=device)
        self._left[rows] = torch.tensor([s.max_new_tokens for s in samplings], device=device)
        self._temperature[rows] = torch.tensor([s.temperature for s in samplings], device=device)
        self._top_p[rows] = torch.tensor([s.top_p for s in samplings], device=device)
        self._set_stops(first, samplings)
        rngs = [generator(sampling) for sampling in samplings]
        logprobs = [sampling.logprobs for sampling in samplings]
        steps = self._choose(rows, rngs, logprobs, logits)
        self._rngs += rngs
        self._logprobs += logprobs
        self._tokens += [[*prompt, step.token] for prompt, step in zip(prompts, steps, strict=True)]
        self.size = end
        return steps

    def step(self) -> list[Step]:
        """One more token for every row."""
        size = self.size
        positions = self._lengths[:size]
        columns = self._cache.expect_tokens(positions, self._widest() + 1)
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
        steps = self._choose(slice(0, size), self._rngs, self._logprobs, logits)
        for tokens, step in zip(self._tokens, steps, strict=True):
            tokens.append(step.token)
        return steps

    def remove(self, rows: Sequence[int]) -> list[int]:
        """Take rows out. The last ones move into the gaps, what the others were is kept.

        Returns:
            For each row that is left, the row it was before.
        """
        gone = set(rows)
        for row in rows:
            self._prefixes.keep(self._tokens[row][:-1], partial(self._cache.copy, row))
        size = self.size - len(gone)
        gaps = [row for row in sorted(gone) if row < size]
        movers = [row for row in range(size, self.size) if row not in gone]
        if movers:
            self._cache.move(movers, gaps, self._widest())
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
        self._tokens = [self._tokens[row] for row in was]
        self.size = size
        if not size:
            self._cache.clear()
        return was

    def clear(self) -> None:
        """Take out all rows, and whatever a failed step left in the cache."""
        self.size = 0
        self._rngs, self._logprobs, self._tokens = [], [], []
        self._cache.clear()
        self._prefixes.clear()

    def _widest(self) -> int:
        """The columns of the cache that any row uses."""
        return max((len(tokens) - 1 for tokens in self._tokens), default=0)

    def _read(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Read prompts from their beginnings; returns the logits after each."""
        lengths = [len(prompt) for prompt in prompts]
        width = max(lengths)
        device = self._model.device
        # Padding stands on the right: a causal model never looks at what comes later, so the
        # prompts need no mask, and each starts at column 0 of its row.
        ids = torch.tensor([[*prompt, *[0] * (width - len(prompt))] for prompt in prompts])
        end = self.size + len(prompts)
        self._cache.expect_prompts(self.size, end, width, max(width, self._widest()))
        return self._logits(ids, torch.arange(width, device=device)[None], lengths)

    def _read_rest(
        self, prompts: Sequence[Sequence[int]], beginnings: list[Tensor | None]
    ) -> Tensor:
        """Read what comes after known beginnings; returns the logits after each prompt."""
        known = [0 if beginning is None else beginning.shape[3] for beginning in beginnings]
        rests = [prompt[start:] for prompt, start in zip(prompts, known, strict=True)]
        lengths = [len(rest) for rest in rests]
        width, seen = max(lengths), max(map(len, prompts))
        device = self._model.device
        ids = torch.tensor([[*rest, *[0] * (width - len(rest))] for rest in rests])
        columns = torch.tensor(known)[:, None] + torch.arange(width)[None]
        rows, within = (torch.arange(width)[None] < torch.tensor(lengths)[:, None]).nonzero(
            as_tuple=True
        )
        rest = Rest(
            beginnings,
            (rows + self.size).to(device),
            columns[rows, within].to(device),
            rows.to(device),
            within.to(device),
        )
        end = self.size + len(prompts)
        self._cache.expect_rest(self.size, end, seen, max(seen, self._widest()), rest)
        # Padding has no place of its own: it stands at the end and sees everything.
        positions = columns.clamp(max=seen - 1).to(device)
        hidden = torch.arange(seen, device=device)[None, None] > positions[:, :, None]
        mask = torch.zeros(hidden.shape, dtype=self._model.dtype, device=device)
        mask.masked_fill_(hidden, float("-inf"))
        return self._logits(ids, positions, lengths, mask[:, None])

    def _logits(
        self, ids: Tensor, positions: Tensor, lengths: Sequence[int], mask: Tensor | None = None
    ) -> Tensor:
        """The logits at the last token of each row."""
        device = self._model.device
        # Over all tokens and a large vocabulary they would be the largest tensor of all.
        wanted, which = torch.unique(torch.tensor(lengths, device=device) - 1, return_inverse=True)
        logits: Tensor = self._model(
            input_ids=ids.to(device),
            position_ids=positions,
            attention_mask=mask,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=wanted,
        ).logits
        return logits[torch.arange(len(lengths), device=device), which]

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
