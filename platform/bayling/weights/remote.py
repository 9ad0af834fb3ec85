"""What every place that weights come from can do: say what it has, and bring it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bayling.errors import StageFailed
from bayling.weights.folder import File, git_digest


@dataclass(frozen=True)
class Expected:
    """What a source says of one of its files."""

    size: int
    sha256: str | None = None
    git_id: str | None = None

    def check(self, path: Path, found: File, source: str) -> None:
        """See that what arrived is what was announced.

        Raises:
            StageFailed: it is not; the file was removed, so that it is brought again.
        """
        if found.size != self.size:
            wrong = f"{found.size:,} bytes instead of {self.size:,}"
        elif self.sha256 is not None and found.sha256 != self.sha256:
            wrong = f"sha256 {found.sha256[:12]}… instead of {self.sha256[:12]}…"
        elif self.sha256 is None and self.git_id is not None and git_digest(path) != self.git_id:
            wrong = "another content than its commit has"
        else:
            return
        path.unlink()
        raise StageFailed(
            f"{path.name} did not arrive from {source} as it is there ({wrong}): the same "
            "command brings this file again"
        )


@dataclass(frozen=True)
class Listing:
    """A source at one moment: which files it has that a base model needs."""

    source: str
    revision: str | None
    files: dict[str, Expected] = field(default_factory=dict)
    licence: str | None = None
    via: str | None = None
    downloaded: dict[str, File] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files.values())


class Place(Protocol):
    """A hub's repository, a bucket, a folder."""

    def look(self) -> Listing:
        """What is there.

        Raises:
            UserError: nothing is, or it may not be read.
        """
        ...

    def bring(self, listing: Listing, into: Path) -> None:
        """Copy the listed files into a folder; those that came earlier are kept.

        Raises:
            UserError: the place refused.
            StageFailed: the transfer broke.
        """
        ...
