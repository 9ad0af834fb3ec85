"""Who is champion, who was, and why: the only place that moves the aliases of a promoted model.

Every change is a tag of the registered model, `champion.change.MILLISECONDS`, so that a change is
written in one piece and none is ever rewritten, whoever else writes at that moment; whoever sees
the model sees its story, whatever becomes of runs and experiments. The model's description tells
it as a table, below what a person wrote there.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from bayling.errors import UserError
from bayling.registry import models, runs
from bayling.registry.models import CANDIDATE, CHAMPION, PREVIOUS, Version
from bayling.registry.pages import version_page

KEPT = 100
"""Changes that are kept: the server's controller reads all tags every few seconds."""
_CHANGE, _DROPPED = "champion.change.", "champion.changes_dropped"
_UNDONE = "champion.undone"
_LONGEST_REASON = 1000
"""PostgreSQL takes 5,000 characters of a tag."""
_DESCRIPTION = 5000
"""Characters of a description that MLflow's tables take."""
_BEGIN, _END = "<!-- champion: kept by bayling -->", "<!-- champion: end -->"
_CELL = 160


class How(StrEnum):
    """What made a version the champion."""

    accepted = "accepted"
    overridden = "overridden"
    """Promoted by a person although the gate refused it."""
    undone = "undone"
    """The version before came back."""
    elsewhere = "elsewhere"
    """The alias was moved by something else than this platform, or the record is lost."""


@dataclass(frozen=True)
class Change:
    """A version became champion."""

    at: float | None
    """Seconds since 1970; None where nobody recorded it."""
    version: str
    before: str | None
    """The champion before it."""
    how: How
    who: str = ""
    reason: str = ""
    """What was said by who overrode or undid; what the gate said where nobody had to."""
    run: str | None = None
    """The training run that made the version."""
    verdict: str | None = None
    """The gate's: accepted, or refused."""

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "how": self.how.value, "time": _moment(self.at)}


@dataclass(frozen=True)
class History:
    """A registered model's champions, the newest change first."""

    champion: str | None
    previous: str | None
    changes: tuple[Change, ...]
    dropped: int = 0
    """Older changes that are not kept any more."""


def who() -> str:
    """The person, or the job, on whose behalf this process works."""
    try:
        name = os.environ.get("MLFLOW_TRACKING_USERNAME") or getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return socket.gethostname()
    return f"{name}@{socket.gethostname()}"


def promote(
    tracking_uri: str, version: Version, over: str | None, how: How, reason: str, verdict: str
) -> None:
    """Make a version the champion, and the champion before it `previous`; records it.

    Nothing moves where it is champion already.

    Args:
        over: the champion that it was compared with; None where there was none.

    Raises:
        UserError: another one became champion meanwhile.
    """
    name = version.name
    champion = models.by_alias(tracking_uri, name, CHAMPION)
    before = champion.version if champion is not None else None
    if before not in (over, version.version):
        raise UserError(
            f"version {before} of {name!r} became champion while version {version.version} was "
            "judged: evaluate again, to compare with that one"
        )
    if before != version.version:
        if champion is not None:
            models.move_alias(champion, PREVIOUS, tracking_uri)
        models.move_alias(version, CHAMPION, tracking_uri)
        if _UNDONE in version.tags:
            models.untag_version(version, _UNDONE, tracking_uri)
        _record(
            tracking_uri,
            name,
            Change(
                time.time(),
                version.version,
                before,
                how,
                who(),
                reason,
                version.run_id,
                verdict,
            ),
        )
    models.drop_alias(name, CANDIDATE, tracking_uri)


def undo(tracking_uri: str, name: str, reason: str = "") -> Change:
    """Make the champion before the champion again; the two change places.

    Undone twice, everything is as it was.

    Raises:
        UserError: there is no champion, or none before it.
    """
    champion = models.require_alias(tracking_uri, name, CHAMPION)
    aliases = runs.client(tracking_uri).get_registered_model(name).aliases
    if PREVIOUS not in aliases:
        raise UserError(
            f"version {champion.version} of {name!r} is the first champion: there is none before "
            "it to go back to"
        )
    previous = models.require_alias(tracking_uri, name, PREVIOUS)
    if previous.version == champion.version:
        raise UserError(
            f"the aliases {CHAMPION!r} and {PREVIOUS!r} of {name!r} both point to version "
            f"{champion.version}: point {PREVIOUS!r} to the version to go back to, on "
            f"{version_page(tracking_uri, name, champion.version)}"
        )
    models.move_alias(champion, PREVIOUS, tracking_uri)
    models.move_alias(previous, CHAMPION, tracking_uri)
    change = Change(
        time.time(),
        previous.version,
        champion.version,
        How.undone,
        who(),
        reason,
        previous.run_id,
        previous.tags.get("gate.verdict"),
    )
    said = f"{_moment(change.at)}, by {change.who}{f': {reason}' if reason else ''}"
    models.tag_version(champion, {_UNDONE: said}, tracking_uri)
    if _UNDONE in previous.tags:  # it was undone itself, and now that is
        models.untag_version(previous, _UNDONE, tracking_uri)
    _record(tracking_uri, name, change)
    return change


def history(tracking_uri: str, name: str) -> History:
    """Who was champion when.

    Where a change fits neither the one before it nor the alias, a change that nobody recorded lies
    between them.

    Raises:
        UserError: there is no such model.
    """
    model = _model(tracking_uri, name)
    tags = dict(model.tags)
    aliases = {alias: str(version) for alias, version in model.aliases.items()}
    written = [_read(tags[key]) for key in sorted(tags) if key.startswith(_CHANGE)]
    found: list[Change] = []
    now: str | None = None
    for change in (one for one in written if one is not None):
        if change.before is not None and change.before != now:
            found.append(Change(None, change.before, now, How.elsewhere))
        found.append(change)
        now = change.version
    champion = aliases.get(CHAMPION)
    if champion is not None and champion != now:
        found.append(Change(None, champion, now, How.elsewhere))
    dropped = int(tags.get(_DROPPED, "0"))
    if dropped and found and found[0].at is None:
        del found[0]  # no gap: what came before is not kept
    return History(champion, aliases.get(PREVIOUS), tuple(reversed(found)), dropped)


def _record(tracking_uri: str, name: str, change: Change) -> None:
    if len(change.reason) > _LONGEST_REASON:
        change = replace(change, reason=f"{change.reason[:_LONGEST_REASON]}…")
    mlflow = runs.client(tracking_uri)
    tags = dict(_model(tracking_uri, name).tags)
    taken = sorted(key for key in tags if key.startswith(_CHANGE))
    # After those there are, also where a clock goes wrong.
    newest = int(taken[-1].removeprefix(_CHANGE)) if taken else 0
    key = f"{_CHANGE}{max(newest + 1, int((change.at or 0) * 1000)):013d}"
    text = json.dumps({**asdict(change), "how": change.how.value}, ensure_ascii=False)
    mlflow.set_registered_model_tag(name, key, text)
    if over := taken[: max(0, len(taken) + 1 - KEPT)]:
        mlflow.set_registered_model_tag(
            name, _DROPPED, str(int(tags.get(_DROPPED, "0")) + len(over))
        )
        for old in over:
            mlflow.delete_registered_model_tag(name, old)
    _tell(tracking_uri, name)


def _tell(tracking_uri: str, name: str) -> None:
    """Bring the story in the model's description up to date."""
    model = _model(tracking_uri, name)
    own, _, rest = (model.description or "").partition(_BEGIN)
    after = rest.partition(_END)[2]
    room = _DESCRIPTION - len(own.rstrip()) - len(after) - len(_BEGIN) - len(_END) - 8
    story = _story(history(tracking_uri, name), name, room)
    kept = f"{_BEGIN}\n{story}\n{_END}" if story else ""
    text = "\n\n".join(part for part in (own.strip(), kept) if part) + after
    runs.client(tracking_uri).update_registered_model(name, text)


def _story(known: History, name: str, room: int) -> str:
    """The history as Markdown, as many of the newest changes as there is room for."""
    lines = [
        f"**Champion: version {known.champion}**",
        "",
        "| since (UTC) | champion | before | how | who | why |",
        "|---|---|---|---|---|---|",
    ]
    end = "\n\nAll changes: `bayling champion history`."
    left = room - len("\n".join(lines)) - len(end)
    if left < 0:
        return ""
    for change in known.changes:
        cells = (
            (_moment(change.at) or "not recorded")[:16].replace("T", " "),
            f"[{change.version}](#/models/{name}/versions/{change.version})",
            change.before or "–",
            change.how.value,
            change.who,
            _cell(change.reason),
        )
        line = f"| {' | '.join(cells)} |"
        left -= len(line) + 1
        if left < 0:
            break
        lines.append(line)
    return "\n".join(lines) + end


def _cell(text: str) -> str:
    plain = " ".join(text.split()).replace("|", "\\|")
    return plain if len(plain) <= _CELL else f"{plain[:_CELL].rstrip()}…"


def _model(tracking_uri: str, name: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return runs.client(tracking_uri).get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise UserError(
            f"MLflow at {tracking_uri} has no registered model {name!r}: train and promote one "
            "first (`bayling run`)"
        ) from None


def _read(text: str) -> Change | None:
    """A change as it was written; None for what somebody wrote by hand."""
    try:
        raw = json.loads(text)
        fields: Mapping[str, Any] = {key: raw[key] for key in Change.__dataclass_fields__}
        return Change(**{**fields, "how": How(raw["how"])})
    except (ValueError, TypeError, KeyError):
        return None


def _moment(at: float | None) -> str | None:
    return None if at is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
