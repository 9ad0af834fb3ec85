"""`bayling rollout start|status|undo`: a new version of the served model, and what became of it.

The commands write to MLflow and read from it; the server, wherever it is, follows what is written
there. `follow` is the loop that a server runs; on Kubernetes it is a command of its own
(`rollout_follow.py`).
"""

from __future__ import annotations

import argparse
import re
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayling.commands import rollout_follow
from bayling.errors import GateRefused, StageFailed, UserError

if TYPE_CHECKING:
    from bayling.config import Config
    from bayling.serve.application import Arguments
    from bayling.serve.rollout.plan import Rollout
    from bayling.serve.rollout.record import Record, Registered, Request
    from bayling.serve.rollout.target import Target

_EPILOG = """examples:
  bayling rollout start recipe=quickstart       the version behind the alias that is served
  bayling rollout start 8 recipe=quickstart     this one
  bayling rollout start 8 --force               health-checked, but not compared: for no traffic
  bayling rollout status --watch
  bayling rollout undo                          back to the version before, at once

exit codes: 0 the version is full (for undo: it is out), 1 rolled back, 2 no server listens,
3 undecided: it keeps its share
"""
_LOOK_EVERY_S = 1.0
_SAY_EVERY_S = 10.0
_TAKEN_WITHIN_S = 60.0
"""How long a controller that is there may take to take a request up."""


def register(commands: Any) -> None:
    """Add the noun `rollout` to the command's parsers."""
    text = "roll out a version of the served model, beside the one before it"
    noun = commands.add_parser(
        "rollout",
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = noun.add_subparsers(dest="verb", required=True, metavar="VERB")
    start = _verb(verbs, "start", "ask the server for a version", _start)
    start.add_argument(
        "words",
        nargs="*",
        metavar="[VERSION] KEY=VALUE",
        help="the version's number (default: that of the alias serve.alias), and overrides",
    )
    start.add_argument(
        "--force",
        action="store_true",
        help="make it full once it has answered health checks, without comparing it on traffic",
    )
    status = _verb(verbs, "status", "what is served, and how a rollout stands", _status)
    status.add_argument("--watch", action="store_true", help="show it again until Ctrl-C")
    status.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    undo = _verb(verbs, "undo", "go back to the version before", _undo)
    for parser in (start, undo):
        parser.add_argument(
            "--no-wait", action="store_true", help="write the request and do not follow it"
        )
    for parser in (status, undo):
        parser.add_argument("words", nargs="*", metavar="KEY=VALUE", help="overrides")
    rollout_follow.register(verbs)


def _verb(verbs: Any, name: str, text: str, work: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        name, help=text, description=text[0].upper() + text[1:] + "."
    )
    parser.set_defaults(work=work)
    return parser


def follow(
    config: Config,
    target: Target,
    ask: Any,
    recorded: Rollout,
    registered: Registered,
    stop: threading.Event,
    told: Callable[[Mapping[str, Any]], None] = lambda said: None,
) -> None:
    """Carry out the rollouts of the configured model on a target until told to stop.

    Args:
        ask: asks a version for an answer (`bayling.serve.rollout.probes.Ask`).
        recorded: where the target stands; its serving version runs.
        registered: the registry when that was read.
        told: after every look how things stand, in short.
    """
    from bayling.registry import runs
    from bayling.serve.rollout.controller import Controller
    from bayling.serve.rollout.history import History

    artifacts = Path(config.output_dir).expanduser().resolve() / "mlartifacts"
    history = History(
        config.tracking,
        partial(runs.experiment_id, config.tracking, config.experiment, artifacts),
        config.serve.rollout,
    )
    record = _record(config)
    Controller(target, record, history, ask, config.serve, recorded, registered).run(stop, told)


def local_target(arguments: Arguments) -> Any:
    """The Ray Serve of this process as a target."""
    from bayling.cluster.local_serve import LocalServe
    from bayling.serve import run as serving
    from bayling.serve.application import API, ENGINES

    return LocalServe(partial(serving.apply, arguments), API, ENGINES)


def beginning(config: Config, running: Collection[str] = ()) -> tuple[Rollout, Registered]:
    """Where a server that starts is, by the record, and the registry's state.

    Args:
        running: versions that a server runs already, beside which only the controller starts.

    Raises:
        UserError: no such model, alias or version.
    """
    from bayling.registry import models
    from bayling.serve.rollout.beginning import at_start, beside

    record, at, alias = _record(config), time.time(), config.serve.alias
    models.require_alias(config.tracking, config.registered_model, alias)
    registered = record.read()
    if running:
        recorded, registered = beside(registered, alias, at, running)
    else:
        recorded = at_start(registered, alias, at)
    if not record.has(recorded.serving):  # deleted since
        recorded = at_start(replace(registered, status=None), alias, at)
    return recorded, registered


def _start(arguments: argparse.Namespace) -> None:
    from bayling.registry.champion import who
    from bayling.serve.rollout.record import Action

    versions = [word for word in arguments.words if "=" not in word]
    config = _compose([word for word in arguments.words if "=" in word])
    if len(versions) > 1:
        raise UserError(f"one version at a time: {' '.join(versions)} are {len(versions)}")
    record = _record(config)
    if versions:
        version = versions[0]
        if not re.fullmatch(r"[1-9]\d*", version):
            raise UserError(f"{version!r} is no version: give its number in MLflow, such as 8")
    else:
        from bayling.registry import models

        alias = config.serve.alias
        version = models.require_alias(config.tracking, record.name, alias).version
    registered = record.read()
    if not record.has(version):
        raise UserError(f"MLflow has no version {version} of model {record.name!r}")
    _require_listener(registered, arguments.no_wait)
    request = record.ask(Action.start, version, who(), arguments.force)
    if not arguments.no_wait:
        _follow_request(record, request, f"version {version}")


def _undo(arguments: argparse.Namespace) -> None:
    from bayling.registry.champion import who
    from bayling.serve.rollout.record import Action

    record = _record(_compose(arguments.words))
    _require_listener(record.read(), arguments.no_wait)
    request = record.ask(Action.undo, None, who())
    if not arguments.no_wait:
        _follow_request(record, request, "undo")


def _status(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    record = _record(_compose(arguments.words))
    console = Console(soft_wrap=True)
    while True:
        status = record.read().status
        if status is None:
            raise UserError(
                f"nobody has served {record.name!r} with this MLflow yet: start a server with "
                "`bayling serve`"
            )
        if arguments.json:
            from bayling.stage import write_json

            write_json(arguments.json, status)
        if arguments.watch and console.is_terminal:
            console.clear()
        _show(status, console)
        if not arguments.watch:
            return
        time.sleep(2)


def _follow_request(record: Record, request: Request, what: str) -> None:
    """Show how a request goes on until it is decided.

    Raises:
        StageFailed: rolled back.
        GateRefused: undecided, which it may stay.
        UserError: nobody carries it out any more, or another request came between.
    """
    from bayling.serve.rollout.plan import State
    from bayling.serve.rollout.record import Action, listening

    said, said_at, began = "", 0.0, time.time()
    while True:
        status = record.read().status or {}
        taken = status.get("request") == request.id
        newest = record.read().request
        if newest is not None and newest.id != request.id:
            raise UserError(
                f"{newest.who} has asked for something else: see `bayling rollout status`"
            )
        if not listening(status, time.time()) or (
            not taken and time.time() - began > _TAKEN_WITHIN_S
        ):
            raise UserError(_nobody(status))
        line = _line(status) if taken else f"{what}: waiting for the server to take it up"
        key = f"{status.get('state')} {status.get('step')} {taken}"
        if key != said or time.time() - said_at > _SAY_EVERY_S:
            print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)
            said, said_at = key, time.time()
        if taken:
            state, reason = State(status["state"]), status["reason"]
            if status["notice"]:
                print(status["notice"], file=sys.stderr)
            out = request.action is Action.undo
            holds = status["shares"].get(status["serving"]) == 1.0
            if holds and (state is State.full or (out and state is State.rolled_back)):
                print(f"version {status['serving']} has all the traffic: {reason}")
                return
            if holds and state is State.rolled_back:
                raise StageFailed(
                    f"rolled back, version {status['serving']} has all the traffic: {reason}"
                )
            if state is State.undecided:
                raise GateRefused(
                    f"undecided: version {status['version']} keeps "
                    f"{status['shares'].get(status['version'], 0):.0%} of the traffic and waits "
                    f"for {status['waits_for']}; `bayling rollout undo` takes it out, "
                    f"`bayling rollout start {status['version']} --force` makes it full"
                )
        time.sleep(_LOOK_EVERY_S)


def _require_listener(registered: Registered, no_wait: bool) -> None:
    from bayling.serve.rollout.record import listening

    if listening(registered.status, time.time()):
        return
    if not no_wait:
        raise UserError(_nobody(registered.status or {}))
    print(f"{_nobody(registered.status or {})}; the next one takes this request", file=sys.stderr)


def _nobody(status: Mapping[str, Any]) -> str:
    if not status:
        return "no server follows rollouts with this MLflow: start one with `bayling serve`"
    ago = time.time() - status["heartbeat"]
    how = "has stopped" if status["stopped"] else f"was last heard of {_duration(ago)} ago"
    return (
        f"no server follows rollouts of {status['model']!r}: {status['owner']} {how}; start one "
        "with `bayling serve`"
    )


def _show(status: Mapping[str, Any], console: Any) -> None:
    from rich.markup import escape
    from rich.table import Table

    from bayling.serve.rollout.record import listening

    now = time.time()
    since = f"for {_duration(now - status['since'])}"
    step = f" step {status['step']} of {status['steps']}," if status["state"] == "canary" else ""
    console.print(
        f"[bold]{status['model']}[/] version {status['version']}: "
        f"[bold]{status['state'].replace('_', ' ')}[/],{step} {since}",
        highlight=False,
    )
    console.print(f"  {escape(status['reason'])}", highlight=False)
    if status["notice"]:
        console.print(f"  [yellow]{escape(status['notice'])}[/]", highlight=False)
    table = Table(box=None, pad_edge=False)
    for title in (
        "version",
        "share",
        "engines",
        "requests",
        "errors",
        "off-target",
        "ttft",
        "per token",
    ):
        table.add_column(title, justify="left" if title == "version" else "right", no_wrap=True)
    shares, replicas, figures = status["shares"], status["replicas"], status["rates"]
    for version in sorted({*shares, *replicas}, key=int):
        there = replicas.get(version, {"running": 0, "starting": 0})
        starting = f" +{there['starting']}" if there["starting"] else ""
        one = figures.get(version, {})
        table.add_row(
            version,
            f"{shares[version]:.0%}" if version in shares else "leaving",
            f"{there['running']}{starting}",
            str(one.get("requests", "–")),
            _percent(one.get("errors")),
            _percent(one.get("off_target")),
            _milliseconds(one.get("ttft_median"), one.get("ttft_p90")),
            _milliseconds(one.get("tpot_median"), one.get("tpot_p90")),
        )
    console.print(table)
    console.print("[dim]ttft: to the first token. Times: median, slowest tenth.[/]")
    for finding in (one for one in status["findings"] if one["samples"]):
        console.print(f"  {finding['verdict']}: {escape(finding['sentence'])}", highlight=False)
    console.print(f"waits for {escape(status['waits_for'])}", highlight=False)
    if not listening(status, now):
        console.print(f"[red]{escape(_nobody(status))}[/]", highlight=False)


def _line(status: Mapping[str, Any]) -> str:
    """How a rollout stands, in one line."""
    version, base = status["version"], status["base"]
    parts = [f"version {version} {status['state'].replace('_', ' ')}"]
    if status["state"] in ("canary", "undecided"):
        parts[0] += f" at {status['shares'].get(version, 0):.0%}"
        own, other = (status["rates"].get(one, {}) for one in (version, base))
        parts.append(
            f"errors {_percent(own.get('errors'))} ({base}: {_percent(other.get('errors'))})"
        )
    return " · ".join([*parts, f"waits for {status['waits_for']}"])


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def _milliseconds(median: float | None, slowest: float | None) -> str:
    if median is None or slowest is None:
        return "–"
    return f"{median * 1000:.0f}, {slowest * 1000:.0f} ms"


def _duration(seconds: float) -> str:
    from bayling.watch import duration

    return duration(max(0.0, seconds))


def _record(config: Config) -> Record:
    from bayling.registry import runs
    from bayling.serve.rollout.record import Record

    runs.check_reachable(config.tracking)
    return Record(config.tracking, config.registered_model)


def _compose(overrides: list[str]) -> Config:
    from bayling.config import compose

    return compose(overrides)
