"""Weights from a Hugging Face hub: a repository at one commit."""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bayling.errors import StageFailed, UserError
from bayling.weights.folder import wanted
from bayling.weights.remote import Expected, Listing

_COMMIT = re.compile(r"[0-9a-f]{40}")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class Repository:
    """`hf://OWNER/NAME`, at a revision or at the head of its main branch."""

    def __init__(self, address: str, revision: str | None) -> None:
        self.name = address.removeprefix("hf://").strip("/")
        if not _REPOSITORY.fullmatch(self.name):
            raise UserError(
                f"{address} names no repository: write hf://OWNER/NAME, and its commit as the "
                "revision"
            )
        self._revision = revision
        self._endpoint = os.environ.get("HF_ENDPOINT") or None
        self._token = _token()

    def look(self) -> Listing:
        """The repository's files and the commit they are at.

        Raises:
            UserError: no such repository or revision, it is gated, or nothing answers.
        """
        if offline():
            return self._cached()
        from huggingface_hub import HfApi
        from huggingface_hub.hf_api import RepoFile

        with self._explained():
            api = HfApi(endpoint=self._endpoint, token=self._token)
            info = api.model_info(self.name, revision=self._revision)
            entries = {
                entry.path: entry
                for entry in api.list_repo_tree(self.name, revision=info.sha, recursive=False)
                if isinstance(entry, RepoFile)
            }
        files = {}
        for name in wanted(entries):
            entry = entries[name]
            # Large files are known by their sha256; git knows only the pointers to them.
            files[name] = (
                Expected(entry.size, sha256=entry.lfs.sha256)
                if entry.lfs is not None
                else Expected(entry.size, git_id=entry.blob_id)
            )
        licence = info.card_data.get("license") if info.card_data else None
        return Listing(f"hf://{self.name}", info.sha, files, str(licence) if licence else None)

    def bring(self, listing: Listing, into: Path) -> None:
        """Download the listed files.

        Raises:
            UserError: the hub refused.
            StageFailed: the connection broke.
        """
        if offline():
            snapshot = self._snapshot()
            for name in listing.files:
                shutil.copyfile(snapshot / name, into / name)
            return
        from huggingface_hub import snapshot_download

        with self._explained():
            snapshot_download(
                self.name,
                revision=listing.revision,
                local_dir=into,
                allow_patterns=[_literal(name) for name in listing.files],
                endpoint=self._endpoint,
                token=self._token,
                tqdm_class=_silent(),
                max_workers=4,
            )
        for name in listing.files:
            if not (into / name).exists():
                # The client falls back to what is in the folder when the hub fails meanwhile.
                raise StageFailed(
                    f"{name} of hf://{self.name} did not arrive: give the same command again"
                )

    def _snapshot(self) -> Path:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            return Path(
                snapshot_download(self.name, revision=self._revision, local_files_only=True)
            )
        except LocalEntryNotFoundError:
            at = f" at {self._revision}" if self._revision else ""
            raise UserError(
                f"HF_HUB_OFFLINE is set and the cache holds no hf://{self.name}{at}: unset it, "
                "or name a folder or bucket that has the weights as the source"
            ) from None

    def _cached(self) -> Listing:
        """What the client's cache holds. It names large files by their sha256, small by git's."""
        snapshot = self._snapshot()
        files = {}
        for name in wanted(path.name for path in snapshot.iterdir()):
            blob = (snapshot / name).resolve()
            files[name] = Expected(
                size=blob.stat().st_size,
                sha256=blob.name if re.fullmatch(r"[0-9a-f]{64}", blob.name) else None,
                git_id=blob.name if _COMMIT.fullmatch(blob.name) else None,
            )
        return Listing(f"hf://{self.name}", snapshot.name, files)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what the client raises into one sentence that never holds the token."""
        import httpx2
        from huggingface_hub import constants, errors

        where = self._endpoint or constants.ENDPOINT
        page = f"{where}/{self.name}"
        try:
            yield
        except errors.GatedRepoError:
            raise UserError(self._gated(page)) from None
        except errors.RevisionNotFoundError:
            raise UserError(
                f"hf://{self.name} has no revision {self._revision!r}: take a commit from "
                f"{page}/commits/main"
            ) from None
        except errors.RepositoryNotFoundError:
            way = (
                "check the name, and that the account of HF_TOKEN may read it"
                if self._token
                else "check the name, or set HF_TOKEN if it is private"
            )
            raise UserError(f"there is no hf://{self.name} at {where}: {way}") from None
        except errors.HfHubHTTPError as error:
            code = error.response.status_code if error.response is not None else 0
            if code == 403:
                raise UserError(self._gated(page)) from None
            if code == 401:
                raise UserError(
                    f"{where} did not accept the token for hf://{self.name}: set HF_TOKEN, or "
                    "the file that HF_TOKEN_PATH names, to one that is valid"
                ) from None
            raise StageFailed(
                f"{where} answered {code or 'nothing'} for hf://{self.name}: try again later"
            ) from None
        except errors.LocalEntryNotFoundError:
            raise StageFailed(_unreachable(where, self.name)) from None
        except (httpx2.HTTPError, ConnectionError) as error:
            raise StageFailed(_unreachable(where, self.name, type(error).__name__)) from None

    def _gated(self, page: str) -> str:
        if self._token:
            return (
                f"hf://{self.name} is gated, and the account of HF_TOKEN may not read it: accept "
                f"its licence at {page} with that account"
            )
        return (
            f"hf://{self.name} is gated: accept its licence at {page} and set HF_TOKEN (or "
            "HF_TOKEN_PATH to a file that holds it)"
        )


def _unreachable(where: str, name: str, what: str = "") -> str:
    return (
        f"{where} does not answer for hf://{name}{f' ({what})' if what else ''}: check the "
        "network or HF_ENDPOINT, or name a folder or bucket as the source"
    )


def is_commit(revision: str | None) -> bool:
    """Whether a revision stands for the same files for ever."""
    return bool(revision and _COMMIT.fullmatch(revision))


def offline() -> bool:
    """Whether the environment forbids asking the hub."""
    return any(
        os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    )


def _token() -> str | None:
    """The environment's token, or the one in a mounted Secret; None for the client's own login.

    Raises:
        UserError: HF_TOKEN_PATH names a file that cannot be read.
    """
    if token := (os.environ.get("HF_TOKEN") or "").strip():
        return token
    if not (path := os.environ.get("HF_TOKEN_PATH")):
        return None
    try:
        return Path(path).expanduser().read_text("utf-8").strip() or None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise UserError(
            f"HF_TOKEN_PATH={path} cannot be read ({reason}): mount the Secret there, or unset it"
        ) from None


def _literal(name: str) -> str:
    pattern = re.sub(r"([\[*?])", r"[\1]", name)
    assert fnmatch.fnmatchcase(name, pattern)
    return pattern


def _silent() -> Any:
    """The client's progress bars, switched off: this package shows its own."""
    from tqdm.auto import tqdm

    class Silent(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            options.pop("name", None)
            super().__init__(*args, **{**options, "disable": True})

    return Silent
