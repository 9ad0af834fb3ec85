"""Packed tokens: several conversations in one sequence of fixed length, memory-mapped.

A shard is three arrays of one shape (sequences, length), `input_ids` uint32, `labels` int32
(-100 where the model is not trained to write) and `position_ids` uint16, which restart at 0
with each conversation; `groups` uint8, which group of conversations (task and language family)
each token belongs to; `lengths` and `supervised`, how many tokens of each sequence are not
padding and how many the model is trained to write; and a table of (sequence, conversation id).
Attention does not cross conversations (the restart is what the model's mask is made from), so a
packed sequence gives each conversation the logits it would have alone.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bayling.templates import Encoded

IGNORED = -100
ARRAYS = {
    "input_ids": np.uint32,
    "labels": np.int32,
    "position_ids": np.uint16,
    "groups": np.uint8,
}
MOST_GROUPS = 256
GROUPS = "groups.json"
"""Beside the shards: the names of the groups, by index."""


@dataclass(frozen=True)
class Item:
    """A conversation on its way into a shard."""

    id: str
    encoded: Encoded
    group: int = 0
    """An index below `MOST_GROUPS`."""


@dataclass
class Packed:
    """How full a shard is."""

    sequences: int
    tokens: int
    supervised: int


def fill(lengths: list[int], capacity: int) -> list[list[int]]:
    """Indices of items, grouped so that each group's lengths sum to at most `capacity`.

    Each group takes the longest item that is left, and of the others those that fill it best: a
    subset-sum over a bit set. Best-fit decreasing leaves every gap that is shorter than the
    shortest item, and conversations have a shortest length.
    """
    left: dict[int, deque[int]] = {}
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        left.setdefault(lengths[index], deque()).append(index)
    groups = []
    while left:
        group = []
        for length in _fullest({length: len(items) for length, items in left.items()}, capacity):
            group.append(left[length].popleft())
            if not left[length]:
                del left[length]
        groups.append(group)
    return groups


def _fullest(counts: dict[int, int], capacity: int) -> list[int]:
    """The first of these lengths, which come longest first, and those that fill up the rest."""
    longest = next(iter(counts))
    reached = 1 << longest  # bit n: a sum of n is possible
    mask = (2 << capacity) - 1
    taken = []
    for length, count in counts.items():
        for _ in range(count - (length == longest)):
            more = (reached | reached << length) & mask
            if more == reached or reached >> capacity:
                break
            taken.append((length, reached))
            reached = more
    total = reached.bit_length() - 1
    chosen = [longest]
    for length, before in reversed(taken):
        if not before >> total & 1:
            chosen.append(length)
            total -= length
    return chosen


def write_shard(conversations: list[Item], length: int, folder: Path) -> Packed:
    """Pack conversations, each at most `length` long, and write the arrays.

    Raises:
        ValueError: a conversation is longer than a sequence.
    """
    lengths = [len(item.encoded.ids) for item in conversations]
    if lengths and max(lengths) > length:
        raise ValueError(f"a conversation of {max(lengths)} tokens is longer than {length}")
    # In the order of their first conversation: filling sorts them by length, and training
    # would meet all long conversations together.
    groups = sorted((sorted(group) for group in fill(lengths, length)), key=lambda g: g[0])
    # In memory, and written as a whole: to reach into a file's pages for every conversation takes
    # several times as long.
    shape = (len(groups), length)
    arrays = {name: np.zeros(shape, kind) for name, kind in ARRAYS.items()}
    arrays["labels"].fill(IGNORED)
    lengths_used = np.zeros(len(groups), dtype=np.uint32)
    supervised = np.zeros(len(groups), dtype=np.uint32)
    places = np.arange(length)
    names: list[str] = []
    for row, group in enumerate(groups):
        start = 0
        for index in group:
            item = conversations[index]
            ids = np.array(item.encoded.ids, np.int32)
            wanted = np.array(item.encoded.supervised, np.bool_)
            end = start + len(ids)
            arrays["input_ids"][row, start:end] = ids
            np.copyto(arrays["labels"][row, start:end], ids, where=wanted)
            arrays["position_ids"][row, start:end] = places[: len(ids)]
            arrays["groups"][row, start:end] = item.group
            supervised[row] += np.count_nonzero(wanted)
            names.append(f"{row}\t{item.id}")
            start = end
        lengths_used[row] = start
        # What is left over is a conversation of its own, so that nothing attends to it.
        arrays["position_ids"][row, start:] = places[: length - start]
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    np.save(folder / "lengths.npy", lengths_used)
    np.save(folder / "supervised.npy", supervised)
    (folder / "conversations.tsv").write_text("\n".join(names) + "\n", "utf-8")
    return Packed(len(groups), int(lengths_used.sum()), int(supervised.sum()))
