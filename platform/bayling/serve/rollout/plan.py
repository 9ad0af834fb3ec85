"""What a rollout is, and what follows from what is seen of it. Decides; does nothing.

starting ─▶ warming ─▶ canary 5 % ─▶ canary 25 % ─▶ … ─▶ full
    │          │         │     ▲
    │          │         │     └──▶ undecided: keeps its share
    └──────────┴─────────┴──▶ rolled back
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from bayling.serve.rollout.comparison import Finding, Looks, Verdict, overall
from bayling.serve.rollout.config import RolloutConfig
from bayling.serve.rollout.probes import Warmth
from bayling.serve.rollout.target import Observation


class State(StrEnum):
    starting = "starting"
    warming = "warming"
    canary = "canary"
    undecided = "undecided"
    full = "full"
    rolled_back = "rolled_back"


ENDED = (State.full, State.rolled_back)


@dataclass(frozen=True)
class Rollout:
    """A version on its way to take over from another one, or where that ended."""

    new: str
    """The version that is rolled out, or was."""
    old: str | None = None
    """The one that it takes over from. None for a server's first version."""
    state: State = State.full
    since: float = 0.0
    """When the state, or the step, began; seconds since 1970, as all times here."""
    reason: str = ""
    """Why it is in this state."""
    id: str = ""
    asked_by: str = ""
    forced: bool = False
    """Whether it becomes full without being compared."""
    step: int = 0
    counted_from: float | None = None
    """When the step's share began to hold; its samples count from then on."""
    look: int = 0
    """The step's last look at its samples."""
    good: bool = False
    """Whether that look found the new version as good."""
    keeps_old: bool = False
    """Whether the old version stays ready, without a share."""
    leaving: tuple[str, ...] = ()
    """Versions that get no request any more and finish those they have."""
    leaving_since: float = 0.0
    resting: tuple[str, ...] = ()
    """Those of them that had no request at the last look."""

    @property
    def serving(self) -> str:
        """The version that answers whoever the rollout does not concern."""
        return self.new if self.state is State.full or self.old is None else self.old

    @property
    def going_on(self) -> bool:
        return self.state not in ENDED

    def share(self, config: RolloutConfig) -> float:
        """The new version's share of the traffic, 0 to 1."""
        if self.state is State.full:
            return 1.0
        if self.state in (State.canary, State.undecided):
            return config.steps[min(self.step, len(config.steps) - 1)]
        return 0.0

    def shares(self, config: RolloutConfig) -> dict[str, float]:
        """What is to run, newcomers last."""
        if self.old is None or (self.state is State.full and not self.keeps_old):
            return {self.new: 1.0}
        if self.state is State.rolled_back:
            return {self.old: 1.0}
        share = self.share(config)
        return {self.old: round(1 - share, 6), self.new: share}

    def write(self) -> dict[str, Any]:
        """As JSON has it."""
        return dataclasses.asdict(self)

    @staticmethod
    def read(written: Mapping[str, Any]) -> Rollout:
        """What `write` made; what else is there is left alone.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        names = {field.name for field in dataclasses.fields(Rollout)}
        values = {name: value for name, value in written.items() if name in names}
        values["state"] = State(written["state"])
        values["leaving"], values["resting"] = tuple(written["leaving"]), tuple(written["resting"])
        return Rollout(**values)


def begin(now: Rollout, version: str, at: float, *, asked_by: str, forced: bool = False) -> Rollout:
    """Roll a version out over the one that serves. A rollout that goes on ends for it."""
    base = now.serving
    leaving = {*now.leaving, *_running(now)} - {base, version}
    started = Rollout(
        new=version,
        old=base,
        state=State.starting,
        since=at,
        reason=f"asked for by {asked_by}",
        id=uuid.uuid4().hex[:12],
        asked_by=asked_by,
        forced=forced,
    )
    return _leaves(started, leaving, at)


def undo(now: Rollout, at: float, asked_by: str) -> Rollout:
    """Back to the version before: at once where it still runs, else it is started and gets all."""
    why = f"undone by {asked_by}"
    if now.going_on or (now.state is State.full and now.keeps_old):
        return rolled_back(now, at, why)
    if now.state is State.full and now.old is not None:
        return begin(
            now, now.old, at, asked_by=f"{asked_by}, who undid version {now.new}", forced=True
        )
    return now


def rolled_back(now: Rollout, at: float, why: str) -> Rollout:
    """The old version has all the traffic from now on."""
    ended = replace(now, state=State.rolled_back, since=at, reason=why, keeps_old=False)
    return _leaves(ended, {*now.leaving, now.new}, at)


def taken_over(recorded: Rollout, seen: Observation, config: RolloutConfig, at: float) -> Rollout:
    """Where a controller goes on with what another one recorded.

    A share that does not hold is not given again before the version was seen to start and to
    answer.
    """
    recorded = replace(
        recorded,
        keeps_old=recorded.keeps_old and recorded.old in seen.versions,
        leaving=tuple(one for one in recorded.leaving if one in seen.versions),
        resting=(),
    )
    if not recorded.going_on or recorded.state is State.starting:
        return recorded
    if seen.shares == recorded.shares(config) and seen.of(recorded.new).ready:
        return recorded
    why = "the server was started anew"
    return replace(_entered(recorded, State.starting, at, why), step=0)


def advance(
    now: Rollout,
    seen: Observation,
    config: RolloutConfig,
    at: float,
    *,
    start_within_s: float,
    finish_within_s: float,
) -> Rollout:
    """What follows from what runs: everything but the verdicts of probes and comparisons.

    Args:
        start_within_s: how long a version's engines may take to come up.
        finish_within_s: after which no request of a version that gets none can be left.
    """
    now = _without_those_gone(now, seen, at, finish_within_s)
    engines = seen.of(now.new)
    if now.going_on and engines.failed is not None:
        verb = "could not be started" if now.state is State.starting else "broke"
        return rolled_back(now, at, f"version {now.new} {verb}: {engines.failed}")
    if now.state is State.starting:
        if engines.ready and seen.shares is not None and now.new in seen.shares:
            return _entered(now, State.warming, at, "its engines are up")
        if at - now.since > start_within_s:
            return rolled_back(
                now,
                at,
                f"version {now.new} was not ready within serve.startup_timeout_s="
                f"{start_within_s:g} s: are there enough free CPUs or GPUs for the engines of two "
                "versions?",
            )
    if now.state in (State.canary, State.undecided):
        if now.counted_from is None and seen.shares == now.shares(config):
            return replace(now, counted_from=at)
        if now.good and at - now.since >= config.min_step_s:
            return _next_step(now, config, at)
        if now.state is State.canary and at - now.since > config.undecided_after_s:
            return replace(now, state=State.undecided, reason="too little is known to decide")
    if now.state is State.full and now.keeps_old and at - now.since > config.keep_previous_s:
        assert now.old is not None
        return _leaves(replace(now, keeps_old=False), {*now.leaving, now.old}, at)
    return now


def warmed(now: Rollout, warmth: Warmth, config: RolloutConfig, at: float) -> Rollout:
    """What follows from the answers to the probes."""
    trouble = warmth.trouble()
    if trouble is not None:
        return rolled_back(now, at, f"version {now.new} {trouble}")
    if now.forced:
        return replace(_entered(now, State.full, at, f"{warmth}; not compared"), keeps_old=True)
    return _entered(now, State.canary, at, str(warmth))


def looked(now: Rollout, findings: list[Finding], look: int, at: float) -> Rollout:
    """What follows from a comparison."""
    verdict = overall(findings)
    if verdict is Verdict.worse:
        worse = [one.sentence() for one in findings if one.verdict is Verdict.worse]
        return rolled_back(now, at, f"version {now.new} is worse: {'; '.join(worse)}")
    good = verdict is Verdict.as_good
    return replace(now, look=look, good=good)


def due_look(now: Rollout, seen: Observation, looks: Looks) -> int | None:
    """The number of the look that is to be made now."""
    if now.state not in (State.canary, State.undecided) or now.counted_from is None:
        return None
    traffic = seen.traffic.get(now.new)
    due = looks.due(traffic.requests) if traffic else 0
    return due if due > now.look else None


def waits_for(
    now: Rollout, seen: Observation, config: RolloutConfig, looks: Looks, at: float
) -> str:
    """What has to happen next, for a person."""
    if now.state is State.starting:
        engines = seen.of(now.new)
        return (
            f"the engines of version {now.new} ({engines.running} running, "
            f"{engines.starting} starting)"
        )
    if now.state is State.warming:
        return f"the translations that version {now.new} is asked beforehand"
    if now.state in (State.canary, State.undecided):
        if now.counted_from is None:
            return "the API to take up the share"
        if seen.no_traffic:
            return f"the server's figures ({seen.no_traffic})"
        traffic = seen.traffic.get(now.new)
        requests = traffic.requests if traffic else 0
        if now.good:
            return f"{max(0.0, now.since + config.min_step_s - at):.0f} s of this step to pass"
        wanted = max(config.min_samples, looks.next(now.look))
        return f"{max(0, wanted - requests)} more requests to version {now.new}"
    if now.leaving:
        return f"the last requests of version {', '.join(now.leaving)}"
    if now.keeps_old:
        left = max(0.0, now.since + config.keep_previous_s - at)
        return f"{left:.0f} s to pass until version {now.old} is removed"
    return "nothing"


def _next_step(now: Rollout, config: RolloutConfig, at: float) -> Rollout:
    if now.step + 1 < len(config.steps):
        why = f"as good as version {now.old} at {now.share(config):.0%}"
        return replace(_entered(now, State.canary, at, why), step=now.step + 1)
    why = f"as good as version {now.old} at every share"
    return replace(_entered(now, State.full, at, why), keeps_old=True)


def _entered(now: Rollout, state: State, at: float, why: str) -> Rollout:
    return replace(now, state=state, since=at, reason=why, counted_from=None, look=0, good=False)


def _without_those_gone(
    now: Rollout, seen: Observation, at: float, finish_within_s: float
) -> Rollout:
    """Take out of `leaving` whose requests are all answered, as far as the API can say."""
    if not now.leaving:
        return now
    resting = tuple(
        version
        for version in now.leaving
        if seen.shares is not None and version not in seen.shares and seen.of(version).ongoing == 0
    )
    # Twice: a request that has just been given a version is not counted yet.
    late = at - now.leaving_since > finish_within_s
    gone = set(now.leaving) if late else set(resting) & set(now.resting)
    left = tuple(version for version in now.leaving if version not in gone)
    return replace(now, leaving=left, resting=resting)


def _leaves(now: Rollout, leaving: set[str], at: float) -> Rollout:
    return replace(now, leaving=tuple(sorted(leaving)), leaving_since=at, resting=())


def _running(now: Rollout) -> set[str]:
    """The versions whose engines are to run."""
    running = {now.serving}
    if now.going_on:
        running.add(now.new)
    if now.keeps_old and now.old is not None:
        running.add(now.old)
    return running
