"""What is evaluated: the pipeline's own model, the champion, or whatever a person names."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bayling.errors import UserError
from bayling.model_folder import Serving
from bayling.registry import models
from bayling.registry.models import Version
from bayling.stage import Context

TRAINED, UNTRAINED, CHAMPION = "trained", "untrained", "champion"
_REGISTERED = "models:/"
_FETCHED = "fetched"


@dataclass(frozen=True)
class System:
    """One system, which answers from a folder or over HTTP."""

    name: str
    """In files and tables: `trained`, `untrained`, `champion`, `model`, `baseline`."""
    called: str
    """In sentences: `champion (version 3)`."""
    folder: Path | None = None
    url: str | None = None
    version: Version | None = None


def is_address(reference: str) -> bool:
    return reference.startswith(("http://", "https://"))


def named(name: str, reference: str, context: Context) -> System:
    """The system that a person names: an address, `models:/NAME/3`, `models:/NAME@ALIAS`, a folder.

    Raises:
        UserError: there is no such version, or the folder is no exported model.
    """
    if is_address(reference):
        return System(name, reference, url=reference)
    if reference.startswith(_REGISTERED):
        version = registered(reference, context.tracked.tracking_uri)
        return _of_version(name, f"version {version.version} of {version.name}", version, context)
    folder = Path(reference).expanduser()
    Serving.read(folder)
    return System(name, str(folder), folder=folder)


def registered(reference: str, tracking_uri: str) -> Version:
    """The version that `models:/NAME/3` or `models:/NAME@ALIAS` means.

    Raises:
        UserError: it means none.
    """
    rest = reference.removeprefix(_REGISTERED)
    if "@" in rest:
        model, _, alias = rest.rpartition("@")
        return models.require_alias(tracking_uri, model, alias)
    model, slash, number = rest.rpartition("/")
    if not slash or not number.isdigit():
        raise UserError(f"{reference}: write models:/NAME/3 or models:/NAME@champion")
    return models.by_version(tracking_uri, model, number)


def replaced(context: Context, model_id: str | None) -> System | None:
    """The model that one with this id would replace: the champion, or, where it is the champion
    itself, the one before it."""
    uri, name = context.tracked.tracking_uri, context.registered_model
    champion = models.by_alias(uri, name, models.CHAMPION)
    if champion is not None and champion.model_id == model_id:
        champion = models.by_alias(uri, name, models.PREVIOUS)
    if champion is None:
        return None
    return _of_version(CHAMPION, f"champion (version {champion.version})", champion, context)


def states(references: list[str | None], tracking_uri: str, key_variable: str) -> list[Any]:
    """What tells whether what is named is still the same: versions, sizes and times of files, what
    a server says that it serves."""
    found: list[Any] = []
    for reference in references:
        if reference is None:
            found.append(None)
        elif is_address(reference):
            from bayling.evaluate.endpoint import served

            found.append(served(reference, key_variable))
        elif reference.startswith(_REGISTERED):
            found.append(registered(reference, tracking_uri).version)
        else:
            files = sorted(Path(reference).expanduser().glob("*"))
            stats = [(path.name, path.stat()) for path in files if path.is_file()]
            found.append([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])
    return found


def let_go(context: Context) -> None:
    """Remove the copies of registered versions, once all systems have answered."""
    shutil.rmtree(context.folder / _FETCHED, ignore_errors=True)


def _of_version(name: str, called: str, version: Version, context: Context) -> System:
    return System(name, called, folder=_fetched(version, context), version=version)


def _fetched(version: Version, context: Context) -> Path:
    """A version's files where every node that answers sees them: with the stage's own, or in the
    store itself where that is on this machine."""
    place = context.folder / _FETCHED / f"{version.name}-{version.version}"
    if place.is_dir():  # of a command that was interrupted
        return place
    aside = place.with_name(f"{place.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    uri = context.tracked.tracking_uri
    found = models.fetch(uri, version.name, version.version, aside)
    if not found.is_relative_to(aside):
        return found
    found.rename(place)
    return place
