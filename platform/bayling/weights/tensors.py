"""The tensors of a model folder, one at a time, and shards written as they come.

So a model is rewritten in the memory of about one shard, however large it is.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from bayling.errors import UserError
from bayling.stage import write_json
from bayling.weights import folder as folders

SHARD_BYTES = 2 * 2**30
EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
_FREQUENCIES = "rotary_emb.inv_freq"
"""Old checkpoints hold the rotary frequencies in every layer; they follow from the config."""


class Weights:
    """The tensors of a folder by name, in the order of its files.

    Without `files`, those of the folder's model. `dropped` counts rotary frequencies, which are
    left out.

    Raises:
        UserError: the folder is incomplete, or a file is no weights or is not safe to load.
    """

    def __init__(self, folder: Path, files: list[Path] | None = None) -> None:
        self.folder = folder
        self.dropped = 0
        self._where: dict[str, Path] = {}
        self._open: dict[Path, Any] = {}
        for path in folders.shards(folder) if files is None else files:
            for name in self._file(path).keys():  # noqa: SIM118 (a safetensors file is no mapping)
                if name.endswith(_FREQUENCIES):
                    self.dropped += 1
                else:
                    self._where[name] = path
        self._leave_tied_head_out()

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, name: str) -> bool:
        return name in self._where

    def __getitem__(self, name: str) -> torch.Tensor:
        path = self._where[name]
        file = self._file(path)
        tensor: torch.Tensor
        try:
            tensor = file[name] if isinstance(file, dict) else file.get_tensor(name)
        except SafetensorError as error:
            raise UserError(f"{path} cannot be read ({error}): fetch it again") from None
        return tensor

    def shape(self, name: str) -> tuple[int, ...]:
        """The tensor's shape, without reading it where that can be had."""
        file = self._file(self._where[name])
        if isinstance(file, dict):
            return tuple(file[name].shape)
        return tuple(file.get_slice(name).get_shape())

    def _leave_tied_head_out(self) -> None:
        """A head that the config ties to the embedding is the same tensor a second time."""
        tied = (self.folder / folders.CONFIG).exists() and folders.model_config(self.folder).get(
            "tie_word_embeddings"
        )
        if (
            tied
            and {EMBEDDING, HEAD} <= self._where.keys()
            and torch.equal(self[EMBEDDING], self[HEAD])
        ):
            del self._where[HEAD]

    def _file(self, path: Path) -> Any:
        if path not in self._open:
            mapped = path.suffix == ".safetensors" or zipfile.is_zipfile(path)
            if not mapped:  # of those that are read in whole, one is kept
                for other in [p for p in self._open if isinstance(self._open[p], _Whole)]:
                    del self._open[other]
            self._open[path] = (
                _safetensors(path) if mapped and path.suffix != ".bin" else (_pickled(path, mapped))
            )
        return self._open[path]


class _Whole(dict[str, torch.Tensor]):
    """The tensors of a file that cannot be mapped."""


def _safetensors(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is no safetensors file ({error}): fetch it again") from None


def _pickled(path: Path, mapped: bool) -> dict[str, torch.Tensor]:
    try:
        table = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped or None)
    except pickle.UnpicklingError as error:
        named = re.search(
            r"GLOBAL ([\w.]+)|Unsupported (?:class|operand|global) ([\w.]+)", str(error)
        )
        what = next((part for part in named.groups() if part), "") if named else ""
        raise UserError(
            f"{path} is refused: it is a pickle that wants to run code"
            f"{f' ({what})' if what else ''}, not only tensors; take safetensors from a source "
            "that you trust"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} cannot be read ({reason[:150]}): fetch it again") from None
    if not isinstance(table, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in table.items()
    ):
        raise UserError(f"{path} holds something else than a table of tensors by name")
    return table if mapped else _Whole(table)


class ShardWriter:
    """Writes tensors into safetensors files of at most `shard_bytes`, with their index."""

    def __init__(self, folder: Path, stem: str = "model", shard_bytes: int = SHARD_BYTES) -> None:
        self._folder = folder
        self._stem = stem
        self._limit = shard_bytes
        self._held: dict[str, torch.Tensor] = {}
        self._bytes = 0
        self._parts: list[list[str]] = []
        self.total_bytes = 0

    def add(self, name: str, tensor: torch.Tensor) -> None:
        size = tensor.numel() * tensor.element_size()
        if self._held and self._bytes + size > self._limit:
            self._flush()
        # A copy of its own: safetensors refuses tensors that share memory or have gaps.
        self._held[name] = tensor.detach().clone(memory_format=torch.contiguous_format)
        self._bytes += size
        self.total_bytes += size

    def finish(self) -> int:
        """Write what is left and the index; returns the number of files."""
        if self._held:
            self._flush()
        count = len(self._parts)
        if count == 1:
            self._part(0).rename(self._folder / f"{self._stem}.safetensors")
        elif count:
            weight_map: dict[str, str] = {}
            for number, names in enumerate(self._parts):
                file = f"{self._stem}-{number + 1:05d}-of-{count:05d}.safetensors"
                self._part(number).rename(self._folder / file)
                weight_map |= dict.fromkeys(names, file)
            write_json(
                self._folder / f"{self._stem}.safetensors.index.json",
                {"metadata": {"total_size": self.total_bytes}, "weight_map": weight_map},
            )
        return count

    def _flush(self) -> None:
        save_file(self._held, self._part(len(self._parts)), metadata={"format": "pt"})
        self._parts.append(list(self._held))
        self._held, self._bytes = {}, 0

    def _part(self, number: int) -> Path:
        return self._folder / f".{self._stem}.{number}.part"
