"""Makes a folder that this platform loads from one in an older form.

`pytorch_model*.bin` becomes safetensors, read with `weights_only`: a pickle never runs here.
A tokenizer that is SentencePiece's only gets its `tokenizer.json`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bayling.errors import UserError
from bayling.stage import Report
from bayling.weights import folder as folders
from bayling.weights.tensors import SHARD_BYTES, ShardWriter, Weights
from bayling.weights.tokenizer import FAST, write_fast


@dataclass(frozen=True)
class Converted:
    """What a conversion did."""

    tensors: int
    dropped: int
    """Rotary frequencies that old checkpoints hold and nobody reads."""
    files: int
    bytes: int
    tokenizer: bool
    """Whether `tokenizer.json` was made."""


def convert(
    folder: Path, target: Path, *, shard_bytes: int = SHARD_BYTES, report: Report
) -> Converted:
    """Write `target`, complete or not at all. Names, shapes and dtypes stay as they are.

    Tensors that share memory are written out each, unless the config ties them.

    Raises:
        UserError: the folder lacks something, a pickle wants to run code, the tokenizer does not
            come out the same, or `target` is there already.
    """
    folders.check(folder)
    if folders.shards(folder)[0].suffix == ".safetensors" and (folder / FAST).exists():
        raise UserError(f"{folder} has safetensors and {FAST}: there is nothing to convert")
    with made(target) as aside:
        report("tokenizer", 0, 0)
        copy_beside(folder, aside)
        tokenizer = not (folder / FAST).exists()
        if tokenizer:
            write_fast(folder, aside)
        weights = Weights(folder)
        writer = ShardWriter(aside, shard_bytes=shard_bytes)
        for number, name in enumerate(weights):
            report(name, number, len(weights))
            writer.add(name, weights[name])
        files = writer.finish()
    return Converted(len(weights), weights.dropped, files, writer.total_bytes, tokenizer)


def copy_beside(folder: Path, target: Path) -> None:
    """Copy what belongs to a model beside its weights: config, tokenizer, licence."""
    for name in folders.wanted(path.name for path in folder.iterdir()):
        if not folders.are_weights(name):
            shutil.copyfile(folder / name, target / name)


@contextmanager
def made(target: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `target` when the block ends well.

    Raises:
        UserError: `target` is there already, or cannot be written.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} is there already: choose another folder, or remove it")
    aside = target.with_name(f".{target.name}.partial")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
    except OSError as error:
        raise UserError(
            f"cannot write to {target.parent} ({error.strerror}): choose a folder that you own"
        ) from None
    try:
        yield aside
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    if target.exists():
        target.rmdir()
    aside.rename(target)
