"""Checkpoints: each worker saves its shard; a checksum beside each tells a damaged file.

Ray Train collects the shards of all workers into one folder of the run's storage and counts
the checkpoint only when all have reported. The shards are DeepSpeed's own files and are read
from the run's private storage only, after their checksums were compared.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bayling.errors import UserError

_TAG = "state"


@dataclass(frozen=True)
class Progress:
    """Where a checkpoint stands."""

    step: int
    """Optimizer steps done."""
    workers: int
    fingerprint: str
    """Of the train stage: configuration, data, seed."""
    seconds: float
    """Time spent in steps so far."""


def save(engine: Any, folder: Path, rank: int, progress: Progress) -> None:
    """This worker's part of a checkpoint, into a folder of its own. Every rank must call it."""
    engine.save_checkpoint(str(folder), tag=_TAG)
    if rank == 0:
        (folder / "progress.json").write_text(json.dumps(asdict(progress)), "utf-8")
    sums = {
        str(path.relative_to(folder)): _sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    (folder / f"checksums-{rank:05d}.json").write_text(json.dumps(sums), "utf-8")


def read_progress(folder: Path, fingerprint: str, workers: int) -> Progress:
    """What a checkpoint is of.

    Raises:
        UserError: it is of another configuration or another number of workers.
    """
    progress = Progress(**json.loads((folder / "progress.json").read_text("utf-8")))
    if progress.fingerprint != fingerprint:
        raise UserError(f"{folder} is a checkpoint of another configuration: remove it")
    if progress.workers != workers:
        raise UserError(
            f"{folder} was written by {progress.workers} workers: go on with "
            f"scale.workers={progress.workers}, or remove it to begin again"
        )
    return progress


def load(engine: Any, folder: Path) -> None:
    """Restore model and optimizer. Every rank must call it.

    Raises:
        UserError: a file is missing or does not have the checksum it was saved with.
    """
    verify(folder)
    path, _ = engine.load_checkpoint(str(folder), tag=_TAG)
    if path is None:
        raise UserError(f"{folder} holds no checkpoint that DeepSpeed can read: remove it")


def verify(folder: Path) -> None:
    """Compare every file of a checkpoint with the checksum it was saved with."""
    lists = sorted(folder.glob("checksums-*.json"))
    if not lists:
        raise UserError(f"{folder} is not a complete checkpoint: remove it")
    for path in lists:
        for name, expected in json.loads(path.read_text("utf-8")).items():
            file = folder / name
            if not file.exists() or _sha256(file) != expected:
                raise UserError(
                    f"{file} is damaged (its checksum differs): remove {folder}, and the "
                    "run goes on from the checkpoint before it"
                )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
