"""How much one caller may ask for: requests and tokens a minute, and requests at a time.

Token buckets in memory: each fills evenly and holds up to one minute's allowance. Requests are
taken when they come. What a request costs in tokens is known only when it is over, so those are
charged afterwards, the bucket may go below zero, and whoever is in debt waits until it is paid.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace

from bayling.errors import UserError

_SWEEP_AT = 1024
"""So many meters are kept before those at rest are dropped."""
_ROUNDING = 1e-9
"""A bucket that was waited for until it is full enough may lack the last bit."""


@dataclass(frozen=True)
class Limits:
    """What one caller may use; None is as much as the server has."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    """Of prompts and answers together."""
    concurrent_requests: int | None = None

    def check(self, where: str) -> None:
        """Raise UserError for a limit that would let nothing through, named as `where` + name."""
        for name in LIMITS:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{where}{name} must be at least 1, or none, not {value}")

    def with_own(self, own: Mapping[str, int | None]) -> Limits:
        """These, with one caller's own in place of those that it has."""
        return replace(self, **own)


LIMITS = tuple(item.name for item in fields(Limits))


class LimitReached(Exception):
    """A request that comes too early. The message says which limit it is."""

    def __init__(self, limit: str, message: str, wait_s: float) -> None:
        super().__init__(message)
        self.limit = limit
        """One of `LIMITS`."""
        self.wait_s = wait_s


class Bucket:
    """A minute's allowance that fills evenly. Times are seconds of any clock that never goes back.

    Args:
        per_minute: may be a fraction; the bucket still holds one, or nothing would ever pass.
    """

    def __init__(self, per_minute: float, now: float) -> None:
        self.capacity = max(per_minute, 1.0)
        self._rate = per_minute / 60
        self._level = self.capacity
        self._at = now

    def level(self, now: float) -> float:
        """What is left; below zero it is a debt."""
        self._level = min(self.capacity, self._level + (now - self._at) * self._rate)
        self._at = now
        return self._level

    def take(self, amount: float, now: float) -> None:
        self._level = self.level(now) - amount

    def wait_s(self, wanted: float, now: float) -> float:
        """Seconds until as much as `wanted` is left; 0 when it is."""
        lacking = wanted - self.level(now)
        return lacking / self._rate if lacking > _ROUNDING else 0.0

    def resized(self, per_minute: float, now: float) -> Bucket:
        """With another allowance: a debt stays a debt, and a spent minute stays spent."""
        bucket = Bucket(per_minute, now)
        bucket._level = min(bucket.capacity, self.level(now))
        return bucket


class Meter:
    """What one caller has used.

    Args:
        share: the part of the limits that this process watches over: 1/R, where R processes are
            asked in turn. Figures for the caller are those of all of them, as far as one can tell.
    """

    def __init__(
        self, limits: Limits, share: float = 1.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._share = share
        self._clock = clock
        self._ongoing = 0
        self._requests: Bucket | None = None
        self._tokens: Bucket | None = None
        self.limits = Limits()
        self.adopt(limits)

    def adopt(self, limits: Limits) -> None:
        """Other limits from now on, for what was used already too."""
        if limits == self.limits:
            return
        self.limits = limits
        self._requests = self._bucket(self._requests, limits.requests_per_minute)
        self._tokens = self._bucket(self._tokens, limits.tokens_per_minute)

    def enter(self) -> None:
        """A request begins; `leave` must follow.

        Raises:
            LimitReached: it may not. It is not counted, and `leave` must not follow.
        """
        now = self._clock()
        at_a_time = self.limits.concurrent_requests
        if at_a_time is not None and self._ongoing >= math.ceil(at_a_time * self._share):
            raise LimitReached(
                "concurrent_requests",
                f"this key may have {at_a_time} requests at a time: wait for an answer",
                1.0,
            )
        if self._tokens is not None and (wait_s := self._tokens.wait_s(0, now)) > 0:
            raise LimitReached(
                "tokens_per_minute",
                f"this key may use {self.limits.tokens_per_minute} tokens a minute, and has used "
                f"more: try again in {math.ceil(wait_s)} s",
                wait_s,
            )
        if self._requests is not None:
            if (wait_s := self._requests.wait_s(1, now)) > 0:
                raise LimitReached(
                    "requests_per_minute",
                    f"this key may send {self.limits.requests_per_minute} requests a minute: try "
                    f"again in {math.ceil(wait_s)} s",
                    wait_s,
                )
            self._requests.take(1, now)
        self._ongoing += 1

    def leave(self) -> None:
        """A request that entered is over."""
        self._ongoing -= 1

    def charge(self, tokens: int) -> None:
        """Count tokens that a request has used."""
        if self._tokens is not None:
            self._tokens.take(tokens, self._clock())

    def headers(self) -> dict[str, str]:
        """`x-ratelimit-…` as OpenAI sends them; of limits that there are."""
        now = self._clock()
        found: dict[str, str] = {}
        for kind, limit, bucket in (
            ("requests", self.limits.requests_per_minute, self._requests),
            ("tokens", self.limits.tokens_per_minute, self._tokens),
        ):
            if bucket is not None:
                left = math.floor(bucket.level(now) / self._share + _ROUNDING)
                found[f"x-ratelimit-limit-{kind}"] = str(limit)
                found[f"x-ratelimit-remaining-{kind}"] = str(min(max(0, left), limit or 0))
                found[f"x-ratelimit-reset-{kind}"] = duration(bucket.wait_s(bucket.capacity, now))
        return found

    def at_rest(self) -> bool:
        """Whether a new meter would know as much."""
        now = self._clock()
        full = all(
            bucket.wait_s(bucket.capacity, now) == 0
            for bucket in (self._requests, self._tokens)
            if bucket is not None
        )
        return full and not self._ongoing

    def _bucket(self, old: Bucket | None, per_minute: int | None) -> Bucket | None:
        if per_minute is None:
            return None
        now = self._clock()
        return (old or Bucket(per_minute * self._share, now)).resized(per_minute * self._share, now)


class Meters:
    """A meter for each caller. Those who have been still for a while take no memory."""

    def __init__(self, share: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._share = share
        self._clock = clock
        self._meters: dict[str, Meter] = {}
        self._sweep_at = _SWEEP_AT

    def of(self, caller: str, limits: Limits) -> Meter:
        """The caller's meter, with the limits that hold for it now."""
        meter = self._meters.get(caller)
        if meter is None:
            if len(self._meters) >= self._sweep_at:
                self._sweep()
            meter = self._meters[caller] = Meter(limits, self._share, self._clock)
        meter.adopt(limits)
        return meter

    def __len__(self) -> int:
        return len(self._meters)

    def _sweep(self) -> None:
        self._meters = {
            caller: meter for caller, meter in self._meters.items() if not meter.at_rest()
        }
        # Not at every call where that many are busy.
        self._sweep_at = max(_SWEEP_AT, 2 * len(self._meters))


def duration(seconds: float) -> str:
    """A time as OpenAI writes it: 0s, 120ms, 8.64s, 1m30s, 2h0m0s."""
    millis = math.ceil(seconds * 1000)
    if 0 < millis < 1000:
        return f"{millis}ms"
    minutes, rest = divmod(millis, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest / 1000:g}s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    return f"{hours}h{text}" if hours else text
