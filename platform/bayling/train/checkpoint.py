"""Checkpoints: written aside while training goes on, checked when read, read by any number of
workers.

A checkpoint is a folder `step-00000100` with one safetensors file a worker, an index of the
pieces in them, a `progress.json` and the checksums of all of these, in a file that `sha256sum -c`
reads. It is written in a hidden folder that is
renamed when every worker's part is on disk: complete or absent. The pieces are named and do not
depend on the number of workers (see `state`), so a run goes on with more or fewer of them without
a conversion, and nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from bayling.errors import UserError
from bayling.train.state import KEYS, WEIGHT

_PROGRESS, _INDEX, _SUMS = "progress.json", "index.json", "SHA256SUMS"
_NAME = "step-{:08d}"


@dataclass(frozen=True)
class Progress:
    """Where a checkpoint stands."""

    step: int
    """Optimizer steps done, those included whose batch was left out."""
    workers: int
    fingerprint: str
    """Of the train stage: configuration, data, seed."""
    shapes: dict[str, list[int]]
    """Every trained parameter's whole shape."""
    heldout: float | None = None
    """The last held-out loss measured; the score that the best are kept by."""
    scaler: dict[str, float] = field(default_factory=dict)
    """The state of fp16's loss scale."""
    losses: list[float] = field(default_factory=list)
    """Of recent steps, by which a spike is told."""
    applied: int | None = None
    """Steps that changed the weights, which is what Adam counts; None: every one did."""
    meter: dict[str, Any] = field(default_factory=dict)
    """Sums that have not become a row of the curve yet."""


class Checkpoint:
    """A complete checkpoint on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: dict[str, Any] = {}

    @property
    def step(self) -> int:
        """Optimizer steps done, as its name says: known even where its files are damaged."""
        return int(self.folder.name.removeprefix("step-"))

    @cached_property
    def progress(self) -> Progress:
        return Progress(**json.loads((self.folder / _PROGRESS).read_text("utf-8")))

    @cached_property
    def _pieces(self) -> dict[str, list[tuple[int, int, str]]]:
        """Name → (start, stop, file) of its pieces, in order."""
        index = json.loads((self.folder / _INDEX).read_text("utf-8"))
        return {
            name: sorted((start, stop, file) for start, stop, file in pieces)
            for name, pieces in index.items()
        }

    @cached_property
    def sums(self) -> dict[str, str]:
        """File → the SHA-256 it had when it was written."""
        lines = (self.folder / _SUMS).read_text("utf-8").splitlines()
        return {name: digest for digest, name in (line.split("  ", 1) for line in lines)}

    def damage(self, rank: int = 0, workers: int = 1) -> str | None:
        """What is wrong with the small files and this worker's share of the large ones; None where
        all is well."""
        try:
            sums = self.sums
        except (OSError, ValueError) as error:
            return f"{self.folder} cannot be read ({error})"
        if not {_INDEX, _PROGRESS} <= sums.keys():
            return f"{self.folder / _SUMS} is damaged: it ends early"
        shards = sorted(sums.keys() - {_INDEX, _PROGRESS})
        for name in (_INDEX, _PROGRESS, *shards[rank::workers]):
            path = self.folder / name
            if not path.exists():
                return f"{path} is missing"
            if sha256(path) != sums[name]:
                return f"{path} is damaged: its checksum differs"
        try:
            self.progress  # noqa: B018 - reading it is the check
            files = {file for pieces in self._pieces.values() for _, _, file in pieces}
        except (OSError, ValueError, TypeError) as error:
            return f"{self.folder} cannot be read ({error})"
        if lacking := files - sums.keys():
            return f"{self.folder / _SUMS} is damaged: it lacks {min(lacking)}"
        return None

    def read(self, name: str, key: str, start: int, stop: int) -> torch.Tensor:
        """A piece of a parameter (`state.KEYS`), flattened, from `start` to before `stop`.

        Raises:
            UserError: the checkpoint does not hold all of it.
        """
        parts = []
        reached = start
        for first, last, file in self._pieces.get(name, ()):
            if last <= reached or first >= stop:
                continue
            if first > reached:
                break
            upto = min(last, stop)
            parts.append(
                self._file(file).get_slice(f"{name}|{key}")[reached - first : upto - first]
            )
            reached = upto
        if reached != stop:
            raise UserError(f"{self.folder} does not hold all of {name}: is it of another model?")
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def weight(self, name: str) -> torch.Tensor:
        """A whole trained parameter in fp32, in its own shape."""
        shape = self.progress.shapes[name]
        size = int(torch.Size(shape).numel())
        return self.read(name, WEIGHT, 0, size).view(shape)

    def _file(self, name: str) -> Any:
        from safetensors import safe_open

        if name not in self._open:
            self._open[name] = safe_open(self.folder / name, framework="pt")
        return self._open[name]


def complete(root: Path) -> list[Checkpoint]:
    """The complete checkpoints below `root`, the newest first."""
    folders = sorted(root.glob("step-" + "[0-9]" * 8), reverse=True)
    return [Checkpoint(folder) for folder in folders]


def clean(root: Path) -> None:
    """Remove what unfinished writes left behind. For one worker, before any of them writes."""
    for folder in root.glob(".step-*"):
        shutil.rmtree(folder, ignore_errors=True)


def set_aside(checkpoint: Checkpoint) -> Path:
    """Rename a damaged checkpoint, so that it is not found again and can be looked at."""
    target = checkpoint.folder.with_name(checkpoint.folder.name + ".damaged")
    shutil.rmtree(target, ignore_errors=True)
    checkpoint.folder.rename(target)
    return target


@contextmanager
def held(checkpoint: Checkpoint) -> Iterator[Checkpoint]:
    """The same checkpoint under links of its own, which a run beside it does not remove.

    Where the storage has no hard links, the checkpoint itself.

    Raises:
        UserError: it was removed while the links were made.
    """
    aside = checkpoint.folder.with_name(f".held-{uuid.uuid4().hex[:8]}")
    linked = aside / checkpoint.folder.name
    try:
        linked.mkdir(parents=True)
        for path in checkpoint.folder.iterdir():
            os.link(path, linked / path.name)
        if not (checkpoint.folder / _SUMS).exists():
            raise FileNotFoundError
    except FileNotFoundError:
        shutil.rmtree(aside, ignore_errors=True)
        raise UserError(
            f"{checkpoint.folder.name} was removed by the run that goes on beside this command: "
            "name a newer one"
        ) from None
    except OSError:
        shutil.rmtree(aside, ignore_errors=True)
        yield checkpoint
        return
    try:
        yield Checkpoint(linked)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def check_fits(progress: Progress, fingerprint: str, shapes: dict[str, list[int]]) -> None:
    """Refuse a checkpoint of another configuration or another model.

    Raises:
        UserError: which of the two, and the way out.
    """
    where = _NAME.format(progress.step)
    if progress.fingerprint != fingerprint:
        raise UserError(
            f"{where} is a checkpoint of another configuration: remove the folder it is in, or "
            "set another output_dir"
        )
    if progress.shapes != shapes:
        names = sorted(set(progress.shapes) | set(shapes))
        odd = next(name for name in names if progress.shapes.get(name) != shapes.get(name))
        raise UserError(
            f"{where} is a checkpoint of another model ({odd} differs): put back the base it was "
            "trained from, or set another output_dir to begin anew"
        )


def retained(checkpoints: list[Checkpoint], newest: int, best: int) -> set[Path]:
    """Which of them stay: the newest, and those with the lowest held-out loss beside them."""
    scores = [(score, -one.step, one) for one in checkpoints if (score := _score(one)) is not None]
    scored = [one for _, _, one in sorted(scores, key=lambda entry: entry[:2])]
    return {one.folder for one in [*checkpoints[:newest], *scored[:best]]}


def _score(checkpoint: Checkpoint) -> float | None:
    try:
        return checkpoint.progress.heldout
    except (OSError, ValueError, TypeError):
        return None  # a damaged one is found when it is needed; writing others goes on


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_shard(
    folder: Path, rank: int, pieces: list[tuple[str, int, dict[str, torch.Tensor]]]
) -> None:
    """One worker's part: a safetensors file and, last, its entry for the index.

    Args:
        pieces: (name, start, tensors by `state.KEYS`), in memory that nobody writes to.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"worker-{rank:05d}.safetensors"
    save_file({f"{n}|{key}": t[key] for n, _, t in pieces for key in KEYS}, path)
    with path.open("rb") as file:
        os.fsync(file.fileno())
    places = {name: [start, start + tensors[WEIGHT].numel()] for name, start, tensors in pieces}
    entry = {"file": path.name, "sha256": sha256(path), "pieces": places}
    aside = folder / f".worker-{rank:05d}.json"
    aside.write_text(json.dumps(entry), "utf-8")
    aside.rename(folder / f"worker-{rank:05d}.json")


def is_written(folder: Path, workers: int) -> bool:
    """Whether every worker's part is there."""
    return all((folder / f"worker-{rank:05d}.json").exists() for rank in range(workers))


def publish(folder: Path, progress: Progress) -> Checkpoint:
    """Join the parts' entries to an index and give the folder its name.

    Raises:
        OSError: the disk is full, or gone.
    """
    sums: dict[str, str] = {}
    pieces: dict[str, list[tuple[int, int, str]]] = {}
    for path in sorted(folder.glob("worker-*.json")):
        entry = json.loads(path.read_text("utf-8"))
        sums[entry["file"]] = entry["sha256"]
        for name, (start, stop) in entry["pieces"].items():
            pieces.setdefault(name, []).append((start, stop, entry["file"]))
        path.unlink()
    _write(folder / _INDEX, json.dumps(pieces))
    _write(folder / _PROGRESS, json.dumps(asdict(progress)))
    sums |= {name: sha256(folder / name) for name in (_INDEX, _PROGRESS)}
    _write(folder / _SUMS, "".join(f"{digest}  {name}\n" for name, digest in sums.items()))
    target = folder.with_name(_NAME.format(progress.step))
    shutil.rmtree(target, ignore_errors=True)  # of steps that were done again
    folder.rename(target)
    return Checkpoint(target)


def unfinished(root: Path, step: int, attempt: str) -> Path:
    """The hidden folder that a checkpoint is written in; `attempt` keeps restarts apart."""
    return root / f".{_NAME.format(step)}.{attempt}"


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
