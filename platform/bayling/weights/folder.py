"""A folder of weights: which files count, what makes it complete, and where they came from."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bayling import __version__
from bayling.errors import UserError
from bayling.stage import write_json

SOURCE = "source.json"
CONFIG = "config.json"
SCHEMA_VERSION = 1
_TOKENIZERS = ("tokenizer.json", "tokenizer.model")
_SAFETENSORS = re.compile(r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?")
_PICKLES = re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin(\.index\.json)?")
_LICENCE = r"(?i:LICENSE|USE_POLICY|NOTICE)[^/]*"
_BESIDE = re.compile(
    r"config\.json|generation_config\.json"
    r"|tokenizer\.json|tokenizer\.model|tokenizer_config\.json|special_tokens_map\.json"
    r"|added_tokens\.json|chat_template\.(jinja|json)"
    r"|delta\.json|exact(-\d+-of-\d+)?\.safetensors(\.index\.json)?"
    rf"|{_LICENCE}"
)
_CHUNK = 4 * 2**20


def wanted(names: Iterable[str]) -> list[str]:
    """Of all the files of a source, those that a base model needs, sorted.

    Pickles are taken only where there are no safetensors; folders inside never.
    """
    names = list(names)
    weights = [name for name in names if _SAFETENSORS.fullmatch(name)]
    weights = weights or [name for name in names if _PICKLES.fullmatch(name)]
    return sorted([*weights, *(name for name in names if _BESIDE.fullmatch(name))])


def licence_files(folder: Path) -> list[Path]:
    """The files of a model folder that its licence wants to be passed on with every copy."""
    there = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in there if path.is_file() and re.fullmatch(_LICENCE, path.name)]


def are_weights(name: str) -> bool:
    return bool(_SAFETENSORS.fullmatch(name) or _PICKLES.fullmatch(name))


def shards(folder: Path) -> list[Path]:
    """The files that hold the tensors, in the order of their index.

    Raises:
        UserError: there are none, or the index names one that is not there.
    """
    for file in ("model.safetensors", "pytorch_model.bin"):
        if found := indexed(folder, file):
            return found
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    if any(folder.glob("consolidated.*.pth")):
        raise UserError(
            f"{folder} is in Meta's original layout: convert it with transformers' "
            "convert_llama_weights_to_hf first, or fetch the hub's own conversion"
        )
    if any(folder.glob("model-*.safetensors")) or any(folder.glob("pytorch_model-*.bin")):
        raise UserError(f"{folder} is incomplete: its shards have no index file beside them")
    raise UserError(
        f"{folder} holds no weights: neither model*.safetensors nor pytorch_model*.bin is there"
    )


def indexed(folder: Path, file: str) -> list[Path]:
    """The shards that stand for a file, or the file itself; empty where there are neither.

    Raises:
        UserError: the index names one that is not there.
    """
    index = folder / f"{file}.index.json"
    if index.exists():
        found = [folder / name for name in sorted(set(weight_map(index).values()))]
        for path in found:
            if not path.exists():
                raise UserError(f"{folder} is incomplete: {path.name} is missing")
        return found
    return [folder / file] if (folder / file).exists() else []


def weight_map(index: Path) -> dict[str, str]:
    """Tensor → file of an index.

    Raises:
        UserError: it is no index, or it names files elsewhere.
    """
    try:
        table = json.loads(index.read_text("utf-8"))["weight_map"]
        named = {str(tensor): str(file) for tensor, file in table.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{index} is not an index of shards: fetch it again") from None
    for file in named.values():
        if Path(file).name != file:
            raise UserError(f"{index} names a file outside its folder: {file}")
    return named


def check(folder: Path) -> None:
    """See that config, tokenizer and every shard are there.

    Raises:
        UserError: what is missing.
    """
    shards(folder)
    if not (folder / CONFIG).exists():
        raise UserError(f"{folder} has no {CONFIG}: put the one that belongs to the weights there")
    if not any((folder / name).exists() for name in _TOKENIZERS):
        raise UserError(
            f"{folder} has no tokenizer: put the tokenizer.json or tokenizer.model that the "
            "model was made with there"
        )


def model_config(folder: Path) -> dict[str, Any]:
    """The model's config.json.

    Raises:
        UserError: it is missing or is no JSON object.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{folder} has no {CONFIG}: put the one that belongs to the weights there"
        ) from None
    except ValueError as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise UserError(f"{path} is no model's configuration")
    return config


@dataclass(frozen=True)
class File:
    """What one file holds."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Source:
    """Where a folder's weights came from; its `source.json`."""

    source: str
    """The address it was first brought from."""
    revision: str | None
    """The commit, where the source has such."""
    asked: str | None
    """The branch or tag that stood for that commit when it was fetched."""
    via: str | None
    """The copy it was taken from, when that was not the source itself."""
    licence: str | None
    files: dict[str, File]
    """Every file in the folder, but this record."""
    downloaded: dict[str, File] = field(default_factory=dict)
    """The files as they came, where they were converted afterwards."""
    code_version: str = __version__
    schema_version: int = SCHEMA_VERSION

    def write(self, folder: Path) -> None:
        write_json(folder / SOURCE, self)

    @staticmethod
    def read(folder: Path) -> Source | None:
        """The folder's record; None where there is none.

        Raises:
            UserError: there is one, but not of this version.
        """
        path = folder / SOURCE
        if not path.exists():
            return None
        return Source.parse(path.read_text("utf-8"), str(path))

    @staticmethod
    def parse(text: str, where: str) -> Source:
        """The record that a file's text holds.

        Raises:
            UserError: it is no record of this version.
        """
        try:
            raw = json.loads(text)
            for part in ("files", "downloaded"):
                raw[part] = {_plain(name): File(**item) for name, item in raw[part].items()}
            source = Source(**raw)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{where} is no record of a download ({error}): remove it") from None
        if source.schema_version != SCHEMA_VERSION:
            raise UserError(
                f"{where} has schema version {source.schema_version}, this code reads "
                f"{SCHEMA_VERSION}: fetch the weights again"
            )
        return source

    def is_from(self, address: str) -> bool:
        return address in (self.source, self.via)

    def lost(self, folder: Path) -> str | None:
        """The first file that is missing or has another size; None where all are there."""
        for name, file in self.files.items():
            path = folder / name
            if not path.exists():
                return f"{name} is missing"
            if path.stat().st_size != file.size:
                return f"{name} has {path.stat().st_size:,} bytes instead of {file.size:,}"
        return None


def _plain(name: str) -> str:
    if Path(name).name != name:
        raise ValueError(f"it names a file outside its folder: {name}")
    return name


def digest(path: Path, grew: Callable[[int], None] = lambda read: None) -> File:
    """Size and sha256 of a file; `grew` is told of every chunk's bytes."""
    hashed = hashlib.sha256()
    size = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            hashed.update(chunk)
            size += len(chunk)
            grew(len(chunk))
    return File(size, hashed.hexdigest())


def git_digest(path: Path) -> str:
    """The id that git gives to a file of this content."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
