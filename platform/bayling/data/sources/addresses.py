"""Which files an address stands for: one file, those of a folder, or those that fit a glob."""

from __future__ import annotations

import fnmatch
import posixpath
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bayling.data.sources.opening import missing
from bayling.errors import UserError
from bayling.storage import explained, file_system

_PACKED = (".gz", ".zst", ".zstd", ".xz")
_LICENCES = ("licen[cs]e*", "*_licen[cs]e*", "copying*")
_NO_DATA = (
    *_LICENCES,
    "notice*",
    "readme*",
    "*.md",
    "sha256sums",
    # Of Hugging Face `datasets`: read with the data or not at all.
    "dataset_info*.json",
    "dataset_dict.json",
    "state.json",
    "*.lock",
)
_DEPTH = 3
MOST = 100_000
"""Files of one source; more are a mistake in the address."""


def find(address: str) -> tuple[list[str], bool]:
    """The files at an address in the order of their names, and whether it is a folder.

    What is hidden, and what lies beside data without being any (a licence, a README), is left
    out of folders and globs.

    Raises:
        UserError: nothing is there, it cannot be read, or too much fits.
    """
    with explained(address, missing(address)):
        files, path = file_system(address)
        scheme = urlsplit(address).scheme if "://" in address else ""
        if scheme in ("http", "https"):
            if address.endswith("/"):
                found = [name for name in files.find(f"{path}/", maxdepth=1) if name[-1] != "/"]
                return _data(found, address), True
            if not re.search(r"[*\[]", path):  # `?` begins a query
                return [address], False
        elif files.isdir(path):
            found = [_relative(name, path) for name in files.find(path, maxdepth=_DEPTH)]
            return [_full(scheme, f"{path}/{name}") for name in _data(found, address)], True
        elif files.exists(path):
            return [_full(scheme, path)], False
        elif not re.search(r"[*?\[]", path):
            raise FileNotFoundError
        entries: Any = files.glob(path, detail=True)
        found = [name for name, entry in entries.items() if entry["type"] == "file"]
        chosen = _data(found, address)
    if not chosen:
        raise UserError(f"no file fits {address}: put the glob in quotes, or name a folder")
    return [_full(scheme, name) for name in chosen], False


def listing(folder: str) -> list[str]:
    """The addresses of the files right in a folder, by name; none where it cannot be listed."""
    try:
        with explained(folder, missing(folder)):
            files, path = file_system(folder)
            entries = files.ls(path, detail=True)
    except UserError:
        return []
    scheme = urlsplit(folder).scheme if "://" in folder else ""
    names = [str(entry["name"]) for entry in entries if entry["type"] == "file"]
    return sorted(_full(scheme, name) for name in names)


def read_text(address: str) -> str | None:
    """A small text beside the data; None where there is none."""
    try:
        with explained(address, missing(address)):
            files, path = file_system(address)
            return str(files.cat_file(path).decode("utf-8", "replace"))
    except UserError:
        return None


def name_of(address: str) -> str:
    """The last part of an address, without a query and without the ending of a packer."""
    path = address.partition("?")[0] if address.startswith("http") else address
    name = posixpath.basename(path.rstrip("/"))
    return next((name[: -len(end)] for end in _PACKED if name.lower().endswith(end)), name)


def folder_of(address: str) -> str:
    """The address of the folder that a file is in."""
    return address.rstrip("/").rpartition("/")[0] or "/"


def licences(address: str) -> list[str]:
    """The licence files in the folder of a file or, where there are none, in the one above it."""
    folder = folder_of(address)
    for place in (folder, folder_of(folder)):
        found = [
            item
            for item in listing(place)
            if any(
                fnmatch.fnmatch(posixpath.basename(item).lower(), pattern) for pattern in _LICENCES
            )
        ]
        if found:
            return found
    return []


def _data(names: list[str], address: str) -> list[str]:
    chosen = sorted(name for name in names if _may_be_data(name))
    if len(chosen) > MOST:
        raise UserError(f"{address} has {len(chosen):,} files: name a folder or glob of fewer")
    return chosen


def _may_be_data(name: str) -> bool:
    parts = name.split("/")
    last = parts[-1].lower()
    hidden = last.startswith((".", "_")) or any(part.startswith(".") for part in parts[:-1])
    return not hidden and not any(fnmatch.fnmatch(last, pattern) for pattern in _NO_DATA)


def _relative(name: str, folder: str) -> str:
    return name.removeprefix(folder).lstrip("/")


def _full(scheme: str, path: str) -> str:
    if scheme in ("http", "https"):
        return path
    if scheme in ("", "file", "local"):
        return str(Path(path).absolute())
    return f"{scheme}://{path.removeprefix(f'{scheme}://').lstrip('/')}"
