"""Which packed sequences make up which step, and how they are dealt to workers.

The order is a pure function of (seed, epoch, step). It does not know the number of workers,
so a run that was resumed, or goes on with more or fewer workers, sees the same batches.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bayling.errors import UserError

_ARRAYS = ("input_ids", "labels", "position_ids", "groups")
_GROUPS = "groups.json"


class PackedTokens:
    """The data stage's shards as one list of sequences, read from the page cache."""

    def __init__(self, folder: Path) -> None:
        shards = sorted(path for path in folder.glob("shard-*") if path.is_dir())
        if not shards:
            raise UserError(f"{folder} holds no packed tokens: run the data stage first")

        def arrays(name: str) -> list[np.ndarray]:
            # Plain arrays over the mapped files: rows of a `memmap` cost several times as much.
            maps = (np.load(shard / f"{name}.npy", mmap_mode="r") for shard in shards)
            return [np.asarray(one) for one in maps]

        self._arrays = {name: arrays(name) for name in _ARRAYS}
        self._shards = shards
        self.groups: list[str] = json.loads((folder / _GROUPS).read_text("utf-8"))
        """Names of the groups of conversations (task/language family), by index."""
        self.lengths = np.concatenate(arrays("lengths"))
        """Tokens of each sequence that are not padding."""
        self.supervised = np.concatenate(arrays("supervised"))
        """Tokens of each sequence that the model is trained to write."""
        self._starts = np.cumsum([0, *(len(shard) for shard in self._arrays["input_ids"])])
        self.sequence_length = int(self._arrays["input_ids"][0].shape[1])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def supervised_share(self) -> float:
        """The part of all positions that the model is trained to write."""
        return float(self.supervised.sum()) / (len(self) * self.sequence_length)

    def batch(self, sequences: np.ndarray) -> dict[str, torch.Tensor]:
        """`input_ids`, `labels`, `position_ids` and `groups`, each (sequences, sequence_length),
        int64."""
        shards, rows = self._places(sequences)

        def gather(arrays: list[np.ndarray]) -> torch.Tensor:
            picked = [arrays[shard][row] for shard, row in zip(shards, rows, strict=True)]
            return torch.from_numpy(np.stack(picked, dtype=np.int64, casting="unsafe"))

        return {name: gather(arrays) for name, arrays in self._arrays.items()}

    def conversations(self, sequences: np.ndarray) -> list[str]:
        """Ids of the conversations in these sequences, for a report about a batch."""
        ids = []
        for shard, row in zip(*self._places(sequences), strict=True):
            with (self._shards[shard] / "conversations.tsv").open(encoding="utf-8") as file:
                for line in file:
                    sequence, _, name = line.rstrip("\n").partition("\t")
                    if sequence == str(row):
                        ids.append(name)
        return ids

    def _places(self, sequences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shards = np.searchsorted(self._starts, sequences, side="right") - 1
        return shards, sequences - self._starts[shards]


@dataclass(frozen=True)
class Order:
    """The sequences of every step: each epoch a new permutation, steps cut across epochs."""

    sequences: int
    global_batch: int
    seed: int

    def steps(self, epochs: float) -> int:
        """How many steps it takes to see the data `epochs` times, at least 1."""
        return max(1, round(epochs * self.sequences / self.global_batch))

    def step(self, step: int) -> np.ndarray:
        """Indices of the sequences of step `step`, counted from 0; shape (global_batch,)."""
        first = step * self.global_batch
        places = np.arange(first, first + self.global_batch)
        epochs, within = np.divmod(places, self.sequences)
        result = np.empty_like(places)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            result[chosen] = self._permutation(int(epoch))[within[chosen]]
        return result

    def _permutation(self, epoch: int) -> np.ndarray:
        cached = _PERMUTATIONS.get((self, epoch))
        if cached is None:
            # Philox is specified bit for bit, so the order outlives a numpy version.
            generator = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
            cached = np.argsort(generator.random(self.sequences), kind="stable")
            while len(_PERMUTATIONS) >= 2:  # a step touches two epochs at most
                _PERMUTATIONS.pop(next(iter(_PERMUTATIONS)))
            _PERMUTATIONS[self, epoch] = cached
        return cached


_PERMUTATIONS: dict[tuple[Order, int], np.ndarray] = {}


def micro_steps(global_batch: int, micro_batch: int, workers: int) -> int:
    """How many micro batches every worker takes through the network in one step."""
    share = -(-global_batch // workers)
    return -(-share // micro_batch)


def deal(sequences: np.ndarray, micro_batch: int, rank: int, workers: int) -> list[np.ndarray]:
    """This worker's micro batches of a step; the same number for every worker.

    Where the batch does not divide, some workers get smaller micro batches, or empty ones.
    """
    count = micro_steps(len(sequences), micro_batch, workers)
    return [np.asarray(part) for part in np.array_split(sequences[rank::workers], count)]
