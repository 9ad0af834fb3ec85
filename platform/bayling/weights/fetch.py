"""Brings base weights to a folder: once, complete or not at all, checked file by file.

The folder lies on storage that every node sees. Whoever comes first takes the lock and brings
the files beside it; the others wait, and find them done. What an interrupted fetch had brought
is kept for the next one.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from bayling.errors import StageFailed, UserError
from bayling.model import Licence, ModelConfig
from bayling.stage import Report, write_json
from bayling.weights import folder as folders
from bayling.weights import hub
from bayling.weights.folder import File, Source
from bayling.weights.lock import Held, held
from bayling.weights.remote import Listing, Place
from bayling.weights.storage import Folder

_MARK = ".fetching.json"
"""What the unfinished folder is a part of."""
_REPORT_SECONDS = 0.5


def ensure(model: ModelConfig, report: Report) -> None:
    """See that a model's base weights lie in `model.base`; fetch them if they do not.

    Nothing is done for a model that has no base, and hardly anything where it is complete. A
    folder that somebody else put there is taken as it is.

    Raises:
        UserError: they are not there and no source is named, the folder holds something else,
            or the source refused.
        StageFailed: the transfer broke.
    """
    if model.base is None:
        return
    to = Path(model.base)
    if _occupied(to) and Source.read(to) is None:
        folders.check(to)
        if folders.shards(to)[0].suffix == ".bin":
            raise UserError(
                f"model.base={to} holds pickled weights, which are not loaded: run `bayling model "
                f"convert {to} {to}-safetensors` and set model.base={to}-safetensors"
            )
        return
    if model.source is None:
        if not _occupied(to):
            raise UserError(
                f"there is no folder model.base={to}: put the weights there, or set model.source "
                "to hf://OWNER/NAME, a bucket or a folder that has them"
            )
        return
    licence = None if model.licence is Licence.none else model.licence.value
    fetch(model.source, model.revision, to, licence=licence, report=report)


def fetch(
    source: str,
    revision: str | None,
    to: Path,
    *,
    licence: str | None = None,
    report: Report,
) -> Source:
    """Bring weights from a hub, a bucket or a folder; returns the record beside them.

    Pickled weights are converted to safetensors, and a tokenizer that is SentencePiece's only
    gets its `tokenizer.json`, before the folder is there.

    Args:
        revision: of a hub's repository. A branch or tag is resolved to its commit, which the
            record holds; without one, that is `main`.
        licence: the terms, where the configuration says them; else what the source says.

    Raises:
        UserError: the source refused, or `to` holds something else.
        StageFailed: the transfer broke, or what arrived is not what the source has.
    """
    if "://" not in source and (local := Path(source).expanduser()).is_dir():
        source = str(local.resolve())
    if there := _there(source, revision, to):
        return there
    place = _place(source, revision)
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        lock_path = to.with_name(f".{to.name}.lock")
        with held(
            lock_path, lambda who: report(f"waiting for {who} to bring {source}", 0, 0)
        ) as lock:
            if there := _there(source, revision, to):
                return there
            return _bring(place, revision, to, licence, report, lock)
    except OSError as error:
        if error.errno is None:
            raise
        raise UserError(
            f"cannot write to {to.parent} ({error.strerror}): set model.base (or --to) to a "
            "folder that you own, with room for the weights"
        ) from None


def verify(folder: Path, report: Report) -> Source:
    """Read every file of a fetched folder and compare it with the record; returns the record.

    Raises:
        UserError: the folder has no record.
        StageFailed: a file is missing or changed.
    """
    record = Source.read(folder)
    if record is None:
        missing = "has no record of a download" if _occupied(folder) else "does not exist"
        raise UserError(f"{folder} {missing}: fetch the weights with `bayling model fetch` first")
    if (lost := record.lost(folder)) is None:
        found = _digests(folder, list(record.files), "checking", report)
        changed = [name for name, file in record.files.items() if found[name] != file]
        lost = f"{', '.join(changed)} changed since it was fetched" if changed else None
    if lost is not None:
        raise StageFailed(f"{folder} is damaged ({lost}): remove it and fetch it again")
    return record


def _place(source: str, revision: str | None) -> Place:
    return (hub.Repository if source.startswith("hf://") else Folder)(source, revision)


def _occupied(folder: Path) -> bool:
    return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))


def _there(source: str, revision: str | None, to: Path) -> Source | None:
    """The record of a folder that already holds what is asked for; None where there is nothing."""
    if not _occupied(to):
        return None
    record = Source.read(to)
    if record is None:
        raise UserError(
            f"{to} is there already and was not fetched: choose another folder, or remove it"
        )
    if not record.is_from(source):
        raise UserError(
            f"{to} holds {record.source}, not {source}: choose another folder, or remove it"
        )
    if revision not in (None, record.revision, record.asked):
        raise UserError(
            f"{to} holds {source} at {record.revision}, not at {revision}: choose another "
            "folder, or remove it"
        )
    if lost := record.lost(to):
        raise UserError(f"{to} is damaged ({lost}): remove it and fetch it again")
    return record


def _bring(
    place: Place, revision: str | None, to: Path, licence: str | None, report: Report, lock: Held
) -> Source:
    report("asking for its files", 0, 0)
    listing = place.look()
    if not any(folders.are_weights(name) for name in listing.files):
        raise UserError(
            f"{listing.via or listing.source} holds no weights: neither model*.safetensors nor "
            "pytorch_model*.bin is there"
        )
    partial = _partial(to, listing)
    with _watched(partial, listing, report):
        place.bring(listing, partial)
    found = _digests(partial, list(listing.files), "checking", report)
    for name, expected in listing.files.items():
        expected.check(partial / name, found[name], listing.via or listing.source)
    folders.check(partial)
    asked = revision if revision != listing.revision else None
    if listing.revision is not None and revision is None:
        asked = "main"
    record = Source(
        source=listing.source,
        revision=listing.revision,
        asked=asked,
        via=listing.via,
        licence=licence or listing.licence,
        files=found,
        downloaded=listing.downloaded,
    )
    shutil.rmtree(partial / ".cache", ignore_errors=True)
    (partial / _MARK).unlink()
    ready = partial
    if _needs_conversion(partial):
        from bayling.weights.convert import convert

        ready = to.with_name(f".{to.name}.converted")
        shutil.rmtree(ready, ignore_errors=True)
        convert(partial, ready, report=report)
        names = sorted(path.name for path in ready.iterdir())
        made = _digests(ready, names, "checking", report)
        record = replace(record, files=made, downloaded=found)
    record.write(ready)
    lock.check()
    if to.is_dir():
        to.rmdir()
    ready.rename(to)
    if ready != partial:
        shutil.rmtree(partial)
    return record


def _partial(to: Path, listing: Listing) -> Path:
    """The folder beside `to` to bring files into, with those an earlier attempt left there."""
    partial = to.with_name(f".{to.name}.partial")
    mark = {"source": listing.source, "revision": listing.revision, "via": listing.via}
    try:
        same = json.loads((partial / _MARK).read_text("utf-8")) == mark
    except (OSError, ValueError):
        same = False
    if not same:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        write_json(partial / _MARK, mark)
    return partial


def _needs_conversion(folder: Path) -> bool:
    pickled = folders.shards(folder)[0].suffix == ".bin"
    return pickled or not (folder / "tokenizer.json").exists()


def _digests(folder: Path, names: list[str], what: str, report: Report) -> dict[str, File]:
    total = sum((folder / name).stat().st_size for name in names)
    done = 0
    found = {}

    def grew(read: int) -> None:
        nonlocal done
        done += read
        report(f"{what} {current}", done, total)

    for name in names:
        current = name
        found[name] = folders.digest(folder / name, grew)
    return found


@contextmanager
def _watched(partial: Path, listing: Listing, report: Report) -> Iterator[None]:
    """Report how much has arrived, whoever writes it and in however many threads."""
    end = threading.Event()
    what = f"{listing.via or listing.source}, {listing.size / 1e9:,.1f} GB"

    def watch() -> None:
        while not end.wait(_REPORT_SECONDS):
            report(what, min(_arrived(partial), listing.size), listing.size)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def _arrived(folder: Path) -> int:
    """Bytes on disk; a file that is laid out in full but not yet written counts for its blocks."""
    size = 0
    for path in folder.rglob("*"):
        try:
            stat = path.stat()
        except OSError:
            continue
        if path.is_file():
            size += min(stat.st_size, stat.st_blocks * 512)
    return size
