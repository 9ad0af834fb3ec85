"""Versions of a model that a node has fetched from MLflow: whole or absent, and fetched once.

A folder of the cache may be one pod's or shared by many. Whoever needs a version first fetches it
beside its place and renames it; the others wait. The API needs no weights, and where a version is
not there yet it fetches the rest only: a tokenizer is thousands of times smaller than a model.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from contextlib import suppress
from pathlib import Path

from bayling.errors import UserError
from bayling.registry import models
from bayling.weights import lock

log = logging.getLogger(__name__)

_KEPT = 4
"""Versions of one kind that stay: two of a rollout, and those before them for an undo."""


def folder(cache: Path, tracking_uri: str, name: str, version: str, *, weights: bool) -> Path:
    """The folder with a version's files, fetched if need be. Blocks.

    Versions of a local store are read where they lie.

    Args:
        weights: whether they are needed.

    Raises:
        UserError: there is no such version, or the cache cannot be written.
    """
    if not tracking_uri.startswith("http"):
        return models.fetch(tracking_uri, name, version)
    # Another server has other versions under the same numbers.
    server = hashlib.sha256(tracking_uri.encode()).hexdigest()[:8]
    place = cache / f"{name}-{server}"
    whole, part = place / "whole" / version, place / "part" / version
    if whole.is_dir():
        return _used(whole)
    wanted = whole if weights else part
    if not wanted.is_dir():
        try:
            _fetch(wanted, tracking_uri, name, version, weights)
        except OSError as error:
            raise UserError(
                f"version {version} of model {name!r} cannot be kept in {cache} "
                f"({error.strerror or error}): give the cache more room, or another place"
            ) from None
    return _used(wanted)


def _fetch(wanted: Path, tracking_uri: str, name: str, version: str, weights: bool) -> None:
    wanted.parent.mkdir(parents=True, exist_ok=True)
    guard = wanted.with_name(f".{version}.lock")
    with lock.held(guard, lambda owner: log.info("%s is being fetched by %s", wanted, owner)) as it:
        if wanted.is_dir():  # while this one waited
            return
        aside = wanted.with_name(f".{version}.part")
        shutil.rmtree(aside, ignore_errors=True)  # of one that was killed
        aside.mkdir()
        got = models.fetch(tracking_uri, name, version, aside, weights=weights)
        it.check()
        got.rename(wanted)
        shutil.rmtree(aside, ignore_errors=True)
    _tidy(wanted)


def _used(place: Path) -> Path:
    with suppress(OSError):  # a shared cache may be another's to touch
        os.utime(place)
    return place


def _tidy(newest: Path) -> None:
    """Let versions go that were not used for longest. An engine that has one mapped keeps it."""
    there = [one for one in newest.parent.iterdir() if one.is_dir() and one.name[0] != "."]
    there.sort(key=lambda one: one.stat().st_mtime, reverse=True)
    for old in there[_KEPT:]:
        log.info("%s leaves the cache", old)
        shutil.rmtree(old, ignore_errors=True)
