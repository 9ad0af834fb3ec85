"""Weights from storage: a folder on this machine, a bucket, whatever fsspec can read.

A copy that an earlier fetch made has its record beside it, so that an air-gapped folder is
checked against what the hub once said.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from bayling.errors import UserError
from bayling.storage import explained, file_system
from bayling.weights.folder import SOURCE, Source, wanted
from bayling.weights.remote import Expected, Listing

_CHUNK = 8 * 2**20


class Folder:
    """A folder, here or in a bucket."""

    def __init__(self, address: str, revision: str | None) -> None:
        self.address = address
        self._revision = revision
        with self._explained():
            self._files, self._root = file_system(address)

    def look(self) -> Listing:
        """What lies in the folder; its record's origin and hashes, where it has one.

        Raises:
            UserError: it is not there, may not be read, or is not at the revision asked for.
        """
        with self._explained():
            sizes = {
                str(entry["name"]).rstrip("/").rsplit("/", 1)[-1]: entry["size"]
                for entry in self._files.ls(self._root, detail=True)
                if entry["type"] == "file"
            }
            # A listing over HTTP names files without their sizes.
            files = {name: Expected(self._size(name, sizes[name])) for name in wanted(sizes)}
            record = None
            if SOURCE in sizes:
                text = self._files.cat_file(f"{self._root}/{SOURCE}").decode()
                record = Source.parse(text, f"{self.address}/{SOURCE}")
        if record is None:
            if self._revision is not None:
                raise UserError(
                    f"{self.address} has no {SOURCE} that says whether it is at revision "
                    f"{self._revision}: leave the revision out (model.revision=null), or make "
                    "the copy with `bayling model fetch`"
                )
            return Listing(self.address, None, files)
        if self._revision not in (None, record.revision, record.asked):
            raise UserError(
                f"{self.address} holds {record.source} at {record.revision}, not at "
                f"{self._revision}: choose that revision, or another copy"
            )
        return Listing(
            record.source,
            record.revision,
            {name: Expected(file.size, file.sha256) for name, file in record.files.items()},
            record.licence,
            via=self.address,
            downloaded=record.downloaded,
        )

    def bring(self, listing: Listing, into: Path) -> None:
        """Copy the listed files; one that is there with the right size is kept.

        Raises:
            UserError: the storage refused.
        """
        for name, expected in listing.files.items():
            target = into / name
            if target.exists() and target.stat().st_size == expected.size:
                continue
            aside = into / f"{name}.incomplete"
            with (
                self._explained(),
                self._files.open(f"{self._root}/{name}", "rb") as source,
                aside.open("wb") as copy,
            ):
                while chunk := source.read(_CHUNK):
                    copy.write(chunk)
            aside.rename(target)

    def _size(self, name: str, listed: int | None) -> int:
        if listed is None:
            listed = self._files.info(f"{self._root}/{name}")["size"]
        if listed is None:
            raise OSError(f"it does not say how large {name} is")
        return int(listed)

    def _explained(self) -> AbstractContextManager[None]:
        missing = f"there is no folder {self.address}{_meant(self.address)}"
        return explained(self.address, missing)


def _meant(address: str) -> str:
    """What a person who forgot the scheme wanted."""
    if "://" not in address and address.count("/") == 1 and not address.startswith((".", "~", "/")):
        return f"; for a repository of the hub write hf://{address}"
    return ""
