"""Checkpoints of a model of two parameters, cut up as any number of workers would."""

from __future__ import annotations

from pathlib import Path

import torch

from bayling.train import checkpoint
from bayling.train.checkpoint import Checkpoint, Progress
from bayling.train.state import KEYS, Piece

SHAPES = {"embed.weight": [5, 4], "norm.weight": [7]}


def whole(name: str, key: str) -> torch.Tensor:
    """What is to be read: other numbers for every parameter, weight and moment."""
    size = torch.Size(SHAPES[name]).numel()
    return torch.arange(size, dtype=torch.float32) + 100 * KEYS.index(key) + 1000 * len(name)


def pieces(rank: int, workers: int) -> list[Piece]:
    """A worker's part: of each parameter a run of numbers, of uneven lengths, maybe none."""
    made = []
    for name in SHAPES:
        size = whole(name, KEYS[0]).numel()
        length = -(-size // workers)
        start, stop = min(size, rank * length), min(size, (rank + 1) * length)
        if start < stop:
            made.append(Piece(name, start, {key: whole(name, key)[start:stop] for key in KEYS}))
    return made


def progress(step: int, workers: int, heldout: float | None = None) -> Progress:
    return Progress(step, workers, "config", SHAPES, heldout=heldout, losses=[2.0, 1.5])


def write_part(root: Path, step: int, rank: int, workers: int) -> Path:
    folder = checkpoint.unfinished(root, step, "attempt")
    parts = [(piece.name, piece.start, piece.tensors) for piece in pieces(rank, workers)]
    checkpoint.write_shard(folder, rank, parts)
    return folder


def write(root: Path, step: int, workers: int, heldout: float | None = None) -> Checkpoint:
    """A complete checkpoint."""
    for rank in range(workers):
        folder = write_part(root, step, rank, workers)
    return checkpoint.publish(folder, progress(step, workers, heldout))
