"""What each version did since a moment: what a rollout compares versions by."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from bayling.serve.observed import LEFT, Observed

_KEPT = 50_000
"""The newest requests of a version, which are what its figures are made of."""
_SAMPLES = 4096
"""The newest times of each kind that are handed out."""
_VERSIONS = 16
"""More than that are not kept: those that were asked last are."""


class Sample(NamedTuple):
    """A measured time."""

    at: float
    """When the request ended, in seconds since 1970."""
    seconds: float


@dataclass(frozen=True)
class VersionStats:
    """The requests that one version answered, or failed to, since a moment.

    Requests that are their callers' own mistakes (4xx), or were one too many (429), are in none of
    the figures. Those whose clients left are, and are no errors.
    """

    version: str
    since: float
    """The figures are complete from here on, in seconds since 1970: later than was asked for
    where whoever counts began later, or where there were more requests than are kept."""
    requests: int
    errors: int
    """Of the requests: those answered 5xx, timeouts among them, and streams that broke off."""
    prompt_tokens: int
    completion_tokens: int
    judged: int
    """Translations that were looked at for their language."""
    off_target: int
    """Of these: in another language than asked for."""
    ttft_s: tuple[Sample, ...] = ()
    """Seconds to the first token, of the newest requests, oldest first."""
    tpot_s: tuple[Sample, ...] = ()
    """Mean seconds of an output token after the first."""

    def to_json(self) -> dict[str, Any]:
        """As JSON has it: samples are pairs of numbers."""
        return asdict(self)

    @staticmethod
    def from_json(written: Mapping[str, Any]) -> VersionStats:
        """What `to_json` wrote, read again."""
        samples = {key: tuple(Sample(*pair) for pair in written[key]) for key in _TIMES}
        return VersionStats(**{**written, **samples})


_TIMES = ("ttft_s", "tpot_s")


class _Seen(NamedTuple):
    """What is kept of a request."""

    at: float
    failed: bool
    prompt_tokens: int
    completion_tokens: int
    judged: int
    off_target: int
    ttft_s: float | None
    tpot_s: float | None


class Windows:
    """The newest requests of each version.

    Args:
        began: when counting began, in seconds since 1970.
        kept: how many requests of a version are kept.
    """

    def __init__(self, began: float, kept: int = _KEPT) -> None:
        self._began = began
        self._kept = kept
        self._versions: dict[str, deque[_Seen]] = {}

    def add(self, observed: Observed) -> None:
        """Count a request, if its outcome is the doing of a version."""
        own_fault = 400 <= observed.status < 500 and observed.status != LEFT
        if not observed.version or own_fault:
            return
        window = self._versions.pop(observed.version, None)
        if window is None:
            window = deque(maxlen=self._kept)
            while len(self._versions) >= _VERSIONS:
                del self._versions[next(iter(self._versions))]
        self._versions[observed.version] = window  # the last one asked is the last in order
        window.append(
            _Seen(
                observed.at,
                observed.status >= 500,
                observed.prompt_tokens,
                observed.completion_tokens,
                observed.judged,
                observed.off_target,
                observed.ttft_s,
                observed.tpot_s,
            )
        )

    def since(self, moment: float) -> dict[str, VersionStats]:
        """For each version that is known what it did from a moment on.

        Args:
            moment: in seconds since 1970.
        """
        return {
            version: self._stats(version, window, moment)
            for version, window in self._versions.items()
        }

    def _stats(self, version: str, window: deque[_Seen], moment: float) -> VersionStats:
        complete = max(moment, self._began)
        if len(window) == self._kept:
            complete = max(complete, window[0].at)
        seen = [one for one in window if one.at >= complete]
        return VersionStats(
            version=version,
            since=complete,
            requests=len(seen),
            errors=sum(one.failed for one in seen),
            prompt_tokens=sum(one.prompt_tokens for one in seen),
            completion_tokens=sum(one.completion_tokens for one in seen),
            judged=sum(one.judged for one in seen),
            off_target=sum(one.off_target for one in seen),
            ttft_s=_newest((one.at, one.ttft_s) for one in seen),
            tpot_s=_newest((one.at, one.tpot_s) for one in seen),
        )


def _newest(times: Iterable[tuple[float, float | None]]) -> tuple[Sample, ...]:
    known = [Sample(at, seconds) for at, seconds in times if seconds is not None]
    return tuple(known[-_SAMPLES:])
