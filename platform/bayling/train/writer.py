"""Checkpoints are written by a thread: training stops only while its state is copied.

The copy goes to memory that is allocated once and, for a GPU, pinned. There is one write at a
time: a checkpoint that is due while the last is still being written waits for it. What cannot be
written (a full disk) is dropped and counted, and training goes on.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from bayling.train import checkpoint
from bayling.train.checkpoint import Progress
from bayling.train.state import Piece

_POLL_S = 0.05
_SIGN_OF_LIFE_S = 1.0


class Writer:
    """One worker's side of all checkpoints of an attempt to train."""

    def __init__(
        self, root: Path, *, rank: int, workers: int, attempt: str, newest: int, best: int
    ) -> None:
        self._root, self._rank, self._workers, self._attempt = root, rank, workers, attempt
        self._newest, self._best = newest, best
        self._memory: dict[tuple[str, str], torch.Tensor] = {}
        self._thread: threading.Thread | None = None
        self._given_up = threading.Event()
        self._part_done = threading.Event()
        self._folder: Path | None = None
        self.failure: str | None = None
        """Why the last write of this worker failed; None when it did not."""
        self.pause_s = 0.0
        """How long training stood still for checkpoints."""
        self.write_s = 0.0
        """How long writing the last one took, beside training."""
        self.written = 0
        """Complete checkpoints, as far as the worker that publishes them knows."""

    def save(self, pieces: Iterable[Piece], progress: Progress) -> None:
        """Copy the state and begin to write it. Every worker must call it."""
        started = time.perf_counter()
        self.wait()
        copies = [self._copy(piece) for piece in pieces]
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._given_up.clear()
        self._part_done.clear()
        self._folder = checkpoint.unfinished(self._root, progress.step, self._attempt)
        self.failure = None
        self._thread = threading.Thread(
            target=self._write, args=(copies, progress), daemon=True, name="checkpoint"
        )
        self._thread.start()
        self.pause_s += time.perf_counter() - started

    def wait(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Until the last write has ended, well or not.

        Args:
            meanwhile: called about once a second, as a sign of life.
        """
        if self._thread is not None:
            while self._thread.is_alive():
                meanwhile()
                self._thread.join(_SIGN_OF_LIFE_S)
            self._thread = None

    def wait_for_part(self, meanwhile: Callable[[], None] = lambda: None) -> bool:
        """Until this worker's part of the last checkpoint is written, or failed to be; which of
        them. Unlike `wait`, it never waits for other workers."""
        if self._thread is not None:
            while not self._part_done.wait(_SIGN_OF_LIFE_S):
                meanwhile()
        return self.failure is None

    def give_up(self) -> None:
        """Another worker could not write its part: do not wait for it, and remove one's own."""
        self._given_up.set()
        if self._folder is not None and self._part_done.is_set():
            # Once it is published it has another name.
            shutil.rmtree(self._folder, ignore_errors=True)

    def _copy(self, piece: Piece) -> tuple[str, int, dict[str, torch.Tensor]]:
        copies = {}
        for key, tensor in piece.tensors.items():
            place = self._memory.get((piece.name, key))
            if place is None or place.shape != tensor.shape:
                place = torch.empty_like(
                    tensor, device="cpu", pin_memory=tensor.device.type == "cuda"
                )
                self._memory[piece.name, key] = place
            place.copy_(tensor.detach(), non_blocking=True)
            copies[key] = place
        return piece.name, piece.start, copies

    def _write(
        self, pieces: list[tuple[str, int, dict[str, torch.Tensor]]], progress: Progress
    ) -> None:
        started = time.perf_counter()
        folder = checkpoint.unfinished(self._root, progress.step, self._attempt)
        try:
            checkpoint.write_shard(folder, self._rank, pieces)
            self._part_done.set()
            if self._given_up.is_set():
                shutil.rmtree(folder, ignore_errors=True)
            elif self._rank == 0 and self._all_written(folder):
                checkpoint.publish(folder, progress)
                self.written += 1
                self._retain()
        except Exception as error:  # safetensors has errors of its own beside OSError
            self.failure = f"{type(error).__name__}: {error}"
            shutil.rmtree(folder, ignore_errors=True)
        self._part_done.set()
        self.write_s = time.perf_counter() - started

    def _all_written(self, folder: Path) -> bool:
        while not checkpoint.is_written(folder, self._workers):
            if self._given_up.wait(_POLL_S):
                shutil.rmtree(folder, ignore_errors=True)
                return False
        return True

    def _retain(self) -> None:
        there = checkpoint.complete(self._root)
        keep = checkpoint.retained(there, self._newest, self._best)
        for one in there:
            if one.folder not in keep:
                # Renamed first: a half-removed folder must not look like a checkpoint.
                doomed = one.folder.with_name("." + one.folder.name)
                one.folder.rename(doomed)
                shutil.rmtree(doomed, ignore_errors=True)
