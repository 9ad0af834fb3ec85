"""Where versions run, as a rollout sees it: two methods, and plain data between.

`bayling.cluster` implements it without knowing this package, and the command passes it in.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from bayling.serve.rollout.comparison import Traffic
from bayling.serve.rollout.traffic import read_traffic
from bayling.serve.run import reason


class Target(Protocol):
    """A place that runs versions side by side."""

    def apply(self, shares: Mapping[str, float], leaving: Collection[str]) -> None:
        """Run just these versions, with these shares of the traffic. Returns at once.

        Args:
            shares: version → 0 to 1, 1 in all; newcomers last. With 0 a version answers who names
                it.
            leaving: versions that get no request any more and finish those they have.
        """
        ...

    def observe(self, since: float | None) -> Mapping[str, Any]:
        """What runs at this moment, as JSON has it.

        Args:
            since: a time in seconds since 1970, from which on the traffic's figures are wanted;
                None where they are not.

        Returns:
            `shares`: those that hold, null while the API does not say. `versions`: for each that
            runs or is to run, `running` and `starting` replicas, `ready` (whether it would take a
            request), `failed` (null, or Ray Serve's messages about why it cannot run), and of the
            API's `trouble` (why it could not load the version), `languages` and `ongoing`
            requests, each null where it does not say. `traffic`: what the server's figures say
            (see `traffic.py`); `no_traffic` why there are none.

        Raises:
            Exception: whatever keeps it from being known; another look may tell.
        """
        ...


@dataclass(frozen=True)
class Engines:
    """One version's engines, and what the API says of it."""

    running: int = 0
    starting: int = 0
    ready: bool = False
    failed: str | None = None
    """Why it cannot run, in one line."""
    languages: tuple[str, ...] = ()
    ongoing: int | None = None
    """Requests that are not answered yet; None while the API does not say."""


@dataclass(frozen=True)
class Observation:
    """What runs at one moment."""

    shares: dict[str, float] | None
    """Those that hold in the API; None while it does not say."""
    versions: dict[str, Engines] = field(default_factory=dict)
    traffic: dict[str, Traffic] = field(default_factory=dict)
    no_traffic: str | None = None
    """Why there are no figures."""

    def of(self, version: str) -> Engines:
        return self.versions.get(version, Engines())

    @staticmethod
    def read(seen: Mapping[str, Any]) -> Observation:
        """What `Target.observe` returned."""
        versions = {}
        for version, one in seen["versions"].items():
            failed = reason(one["failed"]) if one["failed"] is not None else one["trouble"]
            versions[version] = Engines(
                one["running"],
                one["starting"],
                one["ready"],
                failed,
                tuple(one["languages"] or ()),
                one["ongoing"],
            )
        traffic, why = {}, seen["no_traffic"]
        if seen["traffic"] is not None:
            try:
                traffic = read_traffic(seen["traffic"])
            except (KeyError, TypeError, ValueError) as error:
                why = f"the server's figures cannot be read: {error!r}"
        shares = seen["shares"]
        return Observation(None if shares is None else dict(shares), versions, traffic, why)
