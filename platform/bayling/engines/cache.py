"""Keys and values of sequences of different lengths, one sequence per row.

transformers' own cache keeps all rows equally long and is copied for every token. Here each
row starts at column 0 and has its own length, a new token is written in place, a new
sequence goes below the last row, and a finished one leaves by having the last row moved into
its place. Columns beyond a row's length hold leftovers: the attention mask must hide them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.cache_utils import Cache, CacheLayerMixin
from transformers.integrations.sdpa_attention import sdpa_attention_forward

ATTENTION = "bayling_rows"
"""The attention implementation that a model needs to work well with `RowCache`."""

_COLUMNS = 64
"""Room is made for this many columns at a time."""


def _attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention; returns [rows, queries, heads, size]."""
    rows, heads, queries, size = query.shape
    if query.device.type != "cpu" or queries > 1 or attention_mask is None:
        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
        return output, None
    # For one query per row torch's CPU kernel takes 2 to 5 times as long as two matrix
    # products over the whole cache, which lies in one piece (bfloat16, 8 to 64 rows).
    kv_heads, columns = key.shape[1], key.shape[2]
    grouped = query.reshape(rows * kv_heads, heads // kv_heads, size)
    scores = torch.bmm(grouped, key.reshape(-1, columns, size).transpose(1, 2))
    scores = scores.view(rows, kv_heads, -1, columns) * (scaling or size**-0.5) + attention_mask
    weights = torch.softmax(scores, -1, dtype=torch.float32).to(query.dtype)
    output = torch.bmm(weights.view(rows * kv_heads, -1, columns), value.reshape(-1, columns, size))
    return output.view(rows, 1, heads, size), None


AttentionInterface.register(ATTENTION, _attend)


@dataclass(frozen=True)
class Rest:
    """The new tokens of prompts whose beginnings are known.

    A pass has them padded on the right: token `from_columns[i]` of its row `from_rows[i]` goes to
    `columns[i]` of the cache's row `rows[i]`, and nothing else is kept.
    """

    beginnings: list[Tensor | None]
    """Of each prompt: [layers, 2, key-value heads, tokens, head size], or nothing known."""
    rows: Tensor
    columns: Tensor
    from_rows: Tensor
    from_columns: Tensor


@dataclass
class _Target:
    """Where the forward pass that comes next writes."""

    first_row: int = 0
    end_row: int = 0
    width: int = 0
    columns: int = 0
    """How many columns there is room for, in every row."""
    most_tokens: int = 2**62
    """How many the store may have room for, in all rows."""
    positions: Tensor | None = None
    """The column of each row's one new token; None when prompts are written."""
    rest: Rest | None = None
    """Where not all of the prompts is new."""


class _RowLayer(CacheLayerMixin):  # type: ignore[misc]
    """One attention layer's share; all layers look at the same target."""

    keys: Tensor | None
    values: Tensor | None

    def __init__(self, number: int, target: _Target) -> None:
        super().__init__()
        self._number = number
        self._target = target

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.keys = key_states.new_empty(0, key_states.shape[1], 0, key_states.shape[3])
        self.values = value_states.new_empty(0, value_states.shape[1], 0, value_states.shape[3])
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Store the new states; returns all that the queries of this pass may look at."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        target = self._target
        assert self.keys is not None and self.values is not None
        self.keys = _with_room(self.keys, target)
        self.values = _with_room(self.values, target)
        rows = slice(target.first_row, target.end_row)
        if target.rest is not None:
            for kind, (store, states) in enumerate(
                ((self.keys, key_states), (self.values, value_states))
            ):
                self._write(store, states, target.rest, kind)
            return self.keys[rows, :, : target.width], self.values[rows, :, : target.width]
        if target.positions is None:
            self.keys[rows, :, : target.width] = key_states
            self.values[rows, :, : target.width] = value_states
            return key_states, value_states
        index = torch.arange(target.end_row, device=key_states.device)
        self.keys[index, :, target.positions] = key_states[:, :, 0]
        self.values[index, :, target.positions] = value_states[:, :, 0]
        return self.keys[: target.end_row], self.values[: target.end_row]

    def _write(self, store: Tensor, states: Tensor, rest: Rest, kind: int) -> None:
        """Put beginnings and new tokens together; `kind` is 0 for keys and 1 for values."""
        for row, beginning in enumerate(rest.beginnings, self._target.first_row):
            if beginning is not None:
                known = beginning[self._number, kind]
                store[row, :, : known.shape[1]] = known
        store[rest.rows, :, rest.columns] = states[rest.from_rows, :, rest.from_columns]

    def move(self, source: list[int], destination: list[int], width: int) -> None:
        if self.keys is not None and self.values is not None:
            self.keys[destination, :, :width] = self.keys[source, :, :width]
            self.values[destination, :, :width] = self.values[source, :, :width]

    # transformers asks for the next three to build a mask, which it does for prompts only:
    # they start at column 0 and see nothing but themselves.
    def get_seq_length(self) -> int:
        return 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return query_length, 0

    def get_max_length(self) -> int:
        return -1

    def reset(self) -> None:
        self.keys = self.values = None
        self.is_initialized = False


def _with_room(store: Tensor, target: _Target) -> Tensor:
    """`store`, or a copy of it with at least the target's rows and exactly its columns."""
    rows, columns = target.end_row, target.columns
    has_rows, heads, has_columns, size = store.shape
    if rows <= has_rows and columns == has_columns:
        return store
    # Twice as many, so that not every arrival makes a copy, but not beyond what there may be.
    spare = min(2 * has_rows if rows > has_rows else has_rows, target.most_tokens // columns)
    new_rows = max(rows, spare)
    # Zeros, because a masked leftover still takes part as 0 × value, and 0 × NaN is NaN.
    resized = store.new_zeros(new_rows, heads, columns, size)
    kept = min(has_columns, columns)
    both = min(has_rows, new_rows)
    resized[:both, :, :kept] = store[:both, :, :kept]
    return resized


class RowCache(Cache):  # type: ignore[misc]
    """The cache of all layers. Say what comes next, then run the model's forward pass."""

    def __init__(self, layers: int, most_tokens: int) -> None:
        self._target = _Target(most_tokens=most_tokens)
        self._rows = [_RowLayer(number, self._target) for number in range(layers)]
        super().__init__(layers=list(self._rows))

    def has_room(self, rows: int, width: int) -> bool:
        """Whether so many rows may become so wide."""
        return rows * _rounded(width) <= max(self._target.most_tokens, _rounded(width))

    def used(self, rows: int) -> float:
        """The share of its room that the first `rows` rows take, 0 to 1."""
        return min(1.0, rows * self._target.columns / self._target.most_tokens)

    def expect_prompts(self, first_row: int, end_row: int, width: int, widest: int) -> None:
        """The next pass brings prompts of `width` columns for the rows from `first_row` on.

        Args:
            widest: the columns that any row uses, those before `first_row` included.
        """
        target = self._target
        target.first_row, target.end_row, target.width = first_row, end_row, width
        target.columns = max(target.columns, _rounded(widest))
        self._keep_within(widest)
        target.positions = target.rest = None

    def expect_rest(
        self, first_row: int, end_row: int, width: int, widest: int, rest: Rest
    ) -> None:
        """The next pass brings what is new of prompts; its queries will see `width` columns.

        Args:
            width: the columns of the longest of the prompts.
            widest: as in `expect_prompts`.
        """
        self.expect_prompts(first_row, end_row, width, widest)
        self._target.rest = rest

    def expect_tokens(self, positions: Tensor, width: int) -> int:
        """The next pass brings one token for each of the first rows.

        Args:
            positions: the column that each row's token goes to.
            width: the columns that any row uses, the new ones included.

        Returns:
            How many columns the queries will see, and the attention mask must have.
        """
        target = self._target
        target.first_row, target.end_row, target.width = 0, len(positions), width
        # Every token costs as much as there are columns: when a long row has left, give
        # its columns up, but not for every small change.
        if not _rounded(width) <= target.columns <= 2 * _rounded(width):
            target.columns = _rounded(width)
        self._keep_within(width)
        target.positions, target.rest = positions, None
        return target.columns

    def _keep_within(self, width: int) -> None:
        """Give up columns that nobody uses where there is no room for them in every row."""
        target = self._target
        if target.end_row * target.columns > target.most_tokens:
            target.columns = _rounded(width)

    def copy(self, row: int, width: int) -> Tensor:
        """The first columns of a row: [layers, 2, key-value heads, width, head size]."""
        return torch.stack(
            [
                torch.stack([layer.keys[row, :, :width], layer.values[row, :, :width]])
                for layer in self._rows
                if layer.keys is not None and layer.values is not None
            ]
        )

    def move(self, source: list[int], destination: list[int], width: int) -> None:
        """Copy the first `width` columns of some rows over others."""
        for layer in self._rows:
            layer.move(source, destination, width)

    def clear(self) -> None:
        """Give the memory back."""
        self._target.columns = 0
        for layer in self._rows:
            layer.reset()


def _rounded(width: int) -> int:
    return -(-width // _COLUMNS) * _COLUMNS
