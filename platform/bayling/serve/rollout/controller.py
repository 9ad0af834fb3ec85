"""The loop that carries rollouts out: looks, decides, acts, records.

It can be killed at any moment. What it decided is in MLflow, what runs can be seen, and another one
goes on from both. A larger share is recorded before it is given; a version that is taken out of
traffic is taken out first.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any

from bayling.serve.config import ServeConfig
from bayling.serve.rollout import plan
from bayling.serve.rollout.comparison import Finding, Looks, Traffic, Verdict, compare, rates
from bayling.serve.rollout.history import History
from bayling.serve.rollout.mailbox import Mailbox
from bayling.serve.rollout.plan import Rollout, State
from bayling.serve.rollout.probes import Ask, Warmth, ask_all, probes
from bayling.serve.rollout.record import Action, Record, Registered, Request, listening
from bayling.serve.rollout.target import Observation, Target

log = logging.getLogger(__name__)

_HEARTBEAT_S = 5.0
_ROW_EVERY_S = 10.0
_RECORD_WITHIN_S = 5.0
"""How long a larger share waits to be recorded, before it is given without."""
_RECENT_S = 300.0
"""What traffic a status shows while no samples are counted."""
_FINISH_WITHIN_S = 10.0
"""After the longest time that a request may take, for it to be really over."""


class Controller:
    """Carries out the rollouts of one registered model on one target."""

    def __init__(
        self,
        target: Target,
        record: Record,
        history: History,
        ask: Ask,
        config: ServeConfig,
        recorded: Rollout,
        registered: Registered,
    ) -> None:
        """
        Args:
            ask: asks a version for an answer, outside the traffic.
            recorded: what `beginning.at_start` said; its `serving` version is being served.
            registered: the registry at that moment.
        """
        self._target, self._history, self._ask = target, history, ask
        self._serve, self._config = config, config.rollout
        self._record = record
        self._mailbox = Mailbox(record, self._config.poll_s, registered)
        self._looks = Looks.of(self._config)
        self.rollout = recorded
        self._taken_over = False
        self._alias = registered.aliases.get(config.alias)
        self._handled = (registered.status or {}).get("request")
        self._owner = f"{socket.gethostname()}:{os.getpid()}"
        self._notices: dict[str, str] = {}
        """What a person should know, by what it is about."""
        self._findings: list[Finding] = []
        self._warming: tuple[str, Future[Warmth]] | None = None
        self._applied: tuple[dict[str, float], tuple[str, ...]] | None = None
        self._told = self._row = float("-inf")
        self._unseen = ""
        """Why it was not seen at the last look what runs."""
        self._broken = ""
        """Why the version that serves cannot, as far as was seen."""
        self._shares = {recorded.serving: 1.0}
        """Those that held at the last look."""

    def run(
        self,
        stop: threading.Event,
        told: Callable[[Mapping[str, Any]], None] = lambda said: None,
    ) -> None:
        """Carry rollouts out until told to stop, and say so in the record.

        Args:
            told: after every look how things stand, in short.
        """
        try:
            while not stop.wait(self._config.poll_s):
                try:
                    self.tick()
                except Exception:  # serving must not end for it
                    log.exception("the rollout controller stumbled")
                told(self._summary())
        finally:
            self.close()

    def close(self) -> None:
        """Say that nobody carries rollouts out here any more."""
        if self._taken_over and self._another_one(self._mailbox.latest()) is None:
            self._mailbox.status({**self._status(None, time.time()), "stopped": True})
        self._mailbox.close(_RECORD_WITHIN_S)

    def tick(self) -> None:
        """Look once, and do what follows."""
        at = time.time()
        registered = self._mailbox.latest()
        other = self._another_one(registered)
        if other is not None:
            self._notify(
                "other",
                f"another controller ({other}) follows this model: version "
                f"{self.rollout.serving} goes on here until that one has left",
            )
            return
        self._notices.pop("other", None)
        since = self.rollout.counted_from
        seen = self._observe(at - _RECENT_S if since is None else since)
        if seen is not None and not self._taken_over:
            self._become(plan.taken_over(self.rollout, seen, self._config, at))
            self._taken_over = True
        if self._taken_over:
            if registered is not None:
                self._hear(registered, at)
            if seen is not None:
                self._advance(seen, at, counted=since is not None)
            self._apply()
        self._tell(seen, at)

    def _observe(self, since: float) -> Observation | None:
        try:
            seen = Observation.read(self._target.observe(since))
        except Exception as error:
            if not self._unseen:
                log.warning("what runs cannot be seen at the moment: %s", error)
            self._unseen = str(error).partition("\n")[0] or type(error).__name__
            return None
        self._unseen = ""
        self._broken = seen.of(self.rollout.serving).failed or ""
        if seen.shares is not None:
            self._shares = seen.shares
        return seen

    def _hear(self, registered: Registered, at: float) -> None:
        """Take up what was asked for since the last time."""
        alias = self._serve.alias
        version = registered.aliases.get(alias)
        if version is None:
            self._notify(
                "alias",
                f"the model has no alias {alias!r} any more: version {self.rollout.serving} goes "
                "on",
            )
        else:
            self._notices.pop("alias", None)
        if version is not None and version != self._alias:
            self._alias = version
            self._to(version, registered, at, asked_by=f"the alias {alias}")
        request = registered.request
        if request is not None and request.id != self._handled:
            self._handled = request.id
            self._answer(request, registered, at)

    def _answer(self, request: Request, registered: Registered, at: float) -> None:
        if request.action is Action.undo:
            undone = plan.undo(self.rollout, at, request.who)
            if undone is self.rollout:
                self._notify("asked", f"nothing to undo: version {self.rollout.serving} serves")
            self._become(undone)
        elif request.version is not None:
            self._to(request.version, registered, at, asked_by=request.who, forced=request.force)

    def _to(
        self,
        version: str,
        registered: Registered,
        at: float,
        *,
        asked_by: str,
        forced: bool = False,
    ) -> None:
        now = self.rollout
        if version in registered.missing:
            self._notify(
                "asked",
                f"{asked_by} names version {version}, which MLflow does not have: version "
                f"{now.serving} goes on",
            )
            return
        if version == now.serving:
            if now.going_on:
                self._become(plan.rolled_back(now, at, f"{asked_by} names version {version}"))
            self._notify("asked", f"version {version} serves already")
            return
        if now.going_on and version == now.new and not forced:
            self._notify("asked", f"version {version} is being rolled out already")
            return
        if now.going_on:
            self._become(plan.rolled_back(now, at, f"{asked_by} names version {version}"))
        self._become(plan.begin(self.rollout, version, at, asked_by=asked_by, forced=forced))

    def _advance(self, seen: Observation, at: float, *, counted: bool) -> None:
        """
        Args:
            counted: whether what was seen of the traffic are the samples of the step.
        """
        self._become(
            plan.advance(
                self.rollout,
                seen,
                self._config,
                at,
                start_within_s=self._serve.startup_timeout_s,
                finish_within_s=self._serve.request_timeout_s + _FINISH_WITHIN_S,
            )
        )
        if self.rollout.state is State.warming:
            self._warm(seen, at)
        look = plan.due_look(self.rollout, seen, self._looks) if counted else None
        if look is not None:
            self._look(seen, look, at)
        elif counted and self.rollout.going_on and at - self._row > _ROW_EVERY_S:
            self._add_row(seen, [], at)

    def _warm(self, seen: Observation, at: float) -> None:
        rollout = self.rollout
        if self._warming is None or self._warming[0] != rollout.id:
            asked = probes(seen.of(rollout.new).languages, self._config.probes)
            model = f"{self._record.name}@{rollout.new}"
            within = self._serve.startup_timeout_s
            self._warming = rollout.id, _begun(partial(ask_all, model, asked, self._ask, within))
        answered = self._warming[1]
        if answered.done():
            self._warming = None
            self._become(plan.warmed(rollout, answered.result(), self._config, at))

    def _look(self, seen: Observation, look: int, at: float) -> None:
        now = self.rollout
        assert now.old is not None
        candidate, base = seen.traffic[now.new], seen.traffic.get(now.old, Traffic())
        self._findings = compare(candidate, base, self._config, self._looks, look)
        self._add_row(seen, self._findings, at)
        self._become(plan.looked(now, self._findings, look, at))

    def _add_row(self, seen: Observation, findings: list[Finding], at: float) -> None:
        self._row = at
        row = partial(self._history.log, self.rollout, at, rates(seen.traffic), findings)
        self._mailbox.send(row)

    def _become(self, after: Rollout) -> None:
        before, self.rollout = self.rollout, after
        if (after.id, after.state, after.step) == (before.id, before.state, before.step):
            return
        self._told = float("-inf")
        if after.id != before.id:
            self._notices.pop("asked", None)
            self._findings = []
        share = after.share(self._config)
        log.warning(
            "version %s: %s%s: %s",
            after.new,
            after.state.value.replace("_", " "),
            f" {share:.0%}" if 0 < share < 1 else "",
            after.reason,
        )
        if after.state in (*plan.ENDED, State.undecided):
            outcome = self._outcome(after)
            self._mailbox.send(partial(self._record.write_outcome, after.new, outcome))
        if after.state in plan.ENDED and after.id:
            self._mailbox.send(partial(self._history.end, after, self._findings))
        if share > before.share(self._config) and after.id == before.id:
            self._mailbox.status(self._status(None, time.time()))
            if self._mailbox.trouble is None:
                self._mailbox.delivered(_RECORD_WITHIN_S)

    def _outcome(self, rollout: Rollout) -> dict[str, str]:
        """The tags of the version that was rolled out."""
        outcome = {
            "state": rollout.state.value,
            "reason": rollout.reason,
            "base": rollout.old or "",
            "asked_by": rollout.asked_by,
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(rollout.since)),
        }
        for one in (one for one in self._findings if one.verdict is not Verdict.unmeasured):
            outcome[one.measure] = f"{one.verdict.value}: {one.sentence()}"
        return outcome

    def _apply(self) -> None:
        wanted = self.rollout.shares(self._config), self.rollout.leaving
        if wanted == self._applied:
            return
        try:
            self._target.apply(*wanted)
        except Exception as error:  # tried again with the next look
            log.error("what is to run cannot be told to where it runs: %s", error)
            return
        self._applied = wanted

    def _tell(self, seen: Observation | None, at: float) -> None:
        if not self._taken_over or at - self._told < _HEARTBEAT_S:
            return
        self._told = at
        self._mailbox.status(self._status(seen, at))

    def _status(self, seen: Observation | None, at: float) -> dict[str, Any]:
        rollout = self.rollout
        known = seen or Observation(None)
        return {
            "model": self._record.name,
            "state": rollout.state.value,
            "serving": rollout.serving,
            "version": rollout.new,
            "base": rollout.old,
            "since": rollout.since,
            "reason": rollout.reason,
            "notice": "; ".join(self._notices.values()),
            "step": rollout.step + 1,
            "steps": len(self._config.steps),
            "shares": self._shares,
            "replicas": {
                version: {"running": one.running, "starting": one.starting}
                for version, one in known.versions.items()
            },
            "rates": rates(known.traffic),
            "findings": [{**_plain(one), "sentence": one.sentence()} for one in self._findings],
            "waits_for": plan.waits_for(rollout, known, self._config, self._looks, at),
            "alias": self._alias,
            "request": self._handled,
            "rollout": rollout.write(),
            "heartbeat": at,
            "heartbeat_every_s": max(_HEARTBEAT_S, self._config.poll_s),
            "owner": self._owner,
            "stopped": False,
        }

    def _summary(self) -> dict[str, Any]:
        now = self.rollout
        notices = [*self._notices.values()]
        if self._unseen:
            notices.append(f"what runs cannot be seen at the moment: {self._unseen}")
        if self._broken:
            notices.append(f"version {now.serving} cannot run: {self._broken}")
        if self._mailbox.trouble is not None:
            notices.append(f"MLflow does not answer: {self._mailbox.trouble}")
        return {
            "following": self._record.name,
            "version": now.new,
            "serving": now.serving,
            "state": now.state.value,
            "reason": now.reason,
            "notice": "; ".join(notices),
        }

    def _another_one(self, registered: Registered | None) -> str | None:
        """Who else carries rollouts of this model out."""
        status = registered.status if registered is not None else None
        if status is None or status.get("owner") == self._owner:
            return None
        return str(status.get("owner")) if listening(status, time.time()) else None

    def _notify(self, about: str, text: str) -> None:
        """Say something once, in the log and in the status."""
        if text != self._notices.get(about):
            self._notices[about] = text
            self._told = float("-inf")
            log.warning("%s", text)


def _plain(finding: Finding) -> Mapping[str, Any]:
    """As JSON has it, which knows no infinity."""
    return {
        "measure": finding.measure,
        "verdict": finding.verdict.value,
        "base": finding.base,
        "candidate": finding.candidate,
        "lower": finding.lower,
        "upper": finding.upper if finding.upper < float("inf") else None,
        "tolerance": finding.tolerance,
        "samples": finding.samples,
    }


def _begun(work: Callable[[], Warmth]) -> Future[Warmth]:
    """Do something in a thread that does not keep the process from ending."""
    future: Future[Warmth] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True, name="rollout probes").start()
    return future
