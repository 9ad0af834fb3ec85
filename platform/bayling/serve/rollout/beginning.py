"""Where a controller begins: with what an earlier one recorded, as far as that still holds."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import replace

from bayling.serve.rollout.plan import Rollout
from bayling.serve.rollout.record import Registered

log = logging.getLogger(__name__)


def at_start(registered: Registered, alias: str, at: float) -> Rollout:
    """Where a server that starts is: what an earlier one recorded, if the alias has not moved.

    A server that starts has no conversations to protect. A champion that is new goes into full
    traffic; one that was rolled back, or was on its way, does not.

    Args:
        registered: must have the alias.
    """
    version = registered.aliases[alias]
    status = registered.status or {}
    if status.get("alias") == version:
        try:
            recorded = Rollout.read(status["rollout"])
        except (KeyError, TypeError, ValueError) as error:
            log.warning("the recorded rollout cannot be read and is left alone: %r", error)
        else:
            return recorded
    return Rollout(new=version, since=at, reason="what the server began with")


def beside(
    registered: Registered, alias: str, at: float, running: Collection[str]
) -> tuple[Rollout, Registered]:
    """Where a controller that starts beside a server is, and the registry as it is to see it.

    While the version that the record says serves is running, people are being served, and an
    alias that moved meanwhile begins a rollout like any other: it is made to be seen moving.

    Args:
        registered: must have the alias.
        running: the versions that the server is to run.
    """
    status = registered.status or {}
    try:
        recorded = Rollout.read(status["rollout"])
        known = str(status["alias"])
    except (KeyError, TypeError, ValueError):
        return at_start(registered, alias, at), registered
    if recorded.serving not in running:
        return at_start(registered, alias, at), registered
    return recorded, replace(registered, aliases={**registered.aliases, alias: known})
