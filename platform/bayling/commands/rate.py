"""`bayling rate`: the page for blind human ranking, and `bayling rate results`."""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayling.errors import UserError

if TYPE_CHECKING:
    from bayling.rating.items import AnswerFile, Comparison, Item
    from bayling.rating.record import Record
    from bayling.rating.results import Group

_RESULTS = "rate results"
_HELP = "the page on which people rank the answers of two to four systems, blind"
_RESULTS_HELP = "ranks and agreement, from files of votes"
_EPILOG = """examples:
  bayling rate answers/trained/chat.jsonl answers/champion/chat.jsonl
  bayling rate ours=a.jsonl gpt-4=b.jsonl --sample 40
  bayling rate --run 5f2c… recipe=quickstart            the systems of an evaluate run
  bayling rate --run 5f2c… --run 81aa…                  the trained models of two
  bayling rate a.jsonl b.jsonl --host 0.0.0.0           others too, by a link with a token
  bayling rate results outputs/run/ratings/*.jsonl

Answer files have a row {id, turns, outputs} for each question, as the evaluate stage writes them.
Votes are appended to a file at once; the same command goes on where its raters stopped.
"""
_RESULTS_EPILOG = """A tie counts as half a win. Strengths are Bradley-Terry log-odds around 0;
systems that cannot be told apart share a rank. Intervals are 95 %, from the bootstrap over items.
"""


def one_word(arguments: Sequence[str]) -> list[str]:
    """A command's arguments with `rate results` as one of them, as its parser is named."""
    words = list(arguments)
    return [_RESULTS, *words[2:]] if words[:2] == _RESULTS.split() else words


def register(commands: Any) -> None:
    """Add the commands to the parsers of `bayling`."""

    def command(name: str, text: str, epilog: str, work: Callable[..., Any]) -> Any:
        added = commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(work=work)
        return added

    page = command("rate", _HELP, _EPILOG, _rate)
    page.add_argument(
        "overrides",
        nargs="*",
        metavar="FILE | NAME=FILE | KEY=VALUE",
        help="answer files, and Hydra overrides: recipe=…, tracking_uri=…, experiment=…",
    )
    page.add_argument(
        "--run",
        action="append",
        default=[],
        dest="runs",
        metavar="ID[/SYSTEM]",
        help="an evaluate run in MLflow whose answers to take; may be given several times",
    )
    page.add_argument(
        "--sample", type=int, metavar="N", help="N questions of each kind, at random (default: all)"
    )
    page.add_argument(
        "--seed", type=int, default=1, help="of the sample and of which answer stands where"
    )
    page.add_argument("--rater", metavar="NAME", help="whose votes these are; else the page asks")
    page.add_argument("--host", default="127.0.0.1", help="default: %(default)s, this machine only")
    page.add_argument("--port", type=int, default=8010, help="default: %(default)s")

    shown = command(_RESULTS, _RESULTS_HELP, _RESULTS_EPILOG, _results)
    shown.add_argument("files", nargs="+", type=Path, metavar="FILE", help="of votes")
    shown.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")


def _rate(arguments: argparse.Namespace) -> None:
    import secrets

    from bayling.config import compose
    from bayling.rating import app, listening
    from bayling.rating.record import Record
    from bayling.rating.results import results
    from bayling.rating.session import Refused, Session, rater_name

    if arguments.sample is not None and arguments.sample < 1:
        raise UserError(f"--sample must be at least 1, not {arguments.sample}")
    try:
        rater = None if arguments.rater is None else rater_name(arguments.rater)
    except Refused as error:
        raise UserError(f"--rater={arguments.rater!r}: {error}") from None
    files, overrides = _told_apart(arguments.overrides)
    config = compose(overrides)
    comparison = _comparison(files, arguments.runs, config.tracking)
    items = comparison.drawn(arguments.sample, arguments.seed)
    _say(_what_is_compared(comparison, items))
    if not items:
        raise UserError("the systems have the same answers to all questions: nothing to rank")
    local = arguments.host in app.LOCAL_HOSTS
    token = None if local else secrets.token_urlsafe(24)
    with listening.bound(arguments.host, arguments.port) as socket:
        path = config.folder / "ratings" / f"{comparison.fingerprint}.jsonl"
        session = Session(comparison, items, path, arguments.seed)
        record = Record(
            session,
            config.tracking,
            config.experiment,
            Path(config.output_dir).expanduser().resolve() / "mlartifacts",
            key=f"{comparison.fingerprint}-{time.time_ns()}",
        )
        before = len(session.votes())
        _say(f"votes: {path}" + (f", {before} until now" if before else ""))
        _say(f"rate at {listening.link(socket, token)}        stop: Ctrl-C")
        if token is not None:
            _say("whoever has this link may vote; it holds until Ctrl-C")
        pages = app.application(
            session, token=token, rater=rater, when_paused=lambda: _store(record, path)
        )
        with suppress(KeyboardInterrupt):
            listening.serve(pages, socket)
        votes = session.votes()
        session.close()
    if not votes:
        _say("no votes")
        return
    _show(results(votes))
    run_id = _store(record, path, over=True)
    if run_id is not None:
        _say(f"in MLflow: run {run_id} of {config.experiment}")


def _results(arguments: argparse.Namespace) -> None:
    from bayling.rating import votes
    from bayling.rating.results import results
    from bayling.stage import write_json

    given = votes.read(arguments.files)
    if not given:
        raise UserError(f"no votes in {', '.join(map(str, arguments.files))}")
    found = results(given)
    _show(found)
    comparisons = len({vote.comparison for vote in given})
    if comparisons > 1:
        _say(
            f"votes on {comparisons} sets of answers are taken together: systems of one name "
            "count as one"
        )
    if arguments.json is not None:
        try:
            write_json(arguments.json, {name: group.as_dict() for name, group in found.items()})
        except OSError as error:
            raise UserError(f"cannot write {arguments.json}: {error.strerror}") from None


def _told_apart(words: Sequence[str]) -> tuple[list[AnswerFile], list[str]]:
    """Answer files and overrides: what has a `=` names a file if it ends like one or is there."""
    from bayling.rating.items import AnswerFile

    files, overrides = [], []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or Path(word).is_file():
            files.append(AnswerFile(Path(word)))
        elif name and (value.endswith(".jsonl") or Path(value).is_file()):
            files.append(AnswerFile(Path(value), system=name))
        else:
            overrides.append(word)
    return files, overrides


def _comparison(
    files: Sequence[AnswerFile], chosen: Sequence[str], tracking_uri: str
) -> Comparison:
    from bayling.rating import items, record
    from bayling.registry import runs

    with tempfile.TemporaryDirectory() as folder:
        fetched: list[AnswerFile] = []
        if chosen:
            runs.check_reachable(tracking_uri)
            fetched = record.fetch_answers(tracking_uri, chosen, Path(folder))
        return items.read([*files, *fetched])


def _what_is_compared(comparison: Comparison, items: Sequence[Item]) -> str:
    alike = sum(item.alike for item in comparison.items)
    lines = [
        f"{len(comparison.systems)} systems: {', '.join(comparison.systems)}",
        f"{len(items)} of {len(comparison.items)} questions that all have answered",
    ]
    for system, count in comparison.missing.items():
        lines.append(f"  {count} more have no answer of {system}, and are left out")
    if alike:
        lines.append(f"  {alike} have the same answer from all, and are not shown")
    return "\n".join(lines)


def _store(record: Record, path: Path, *, over: bool = False) -> str | None:
    """Log the votes; where that fails, say so and what to do: no vote depends on it."""
    try:
        return record.store(over=over)
    except Exception as error:
        reason = re.sub(r"\s+", " ", str(error))[:300]
        _say(
            f"the votes are not in MLflow yet ({reason}): they are in {path}, and the same "
            "command stores them when it ends"
        )
        return None


def _show(found: Mapping[str, Group]) -> None:
    from rich.console import Console
    from rich.table import Table

    # Systems may be called anything, `[a]` too.
    console = Console(highlight=False, markup=False)
    for name, group in found.items():
        table = Table(box=None, pad_edge=False, title_justify="left")
        table.title = (
            f"{name}: {group.votes} votes of {_number(group.raters, 'rater')} on "
            f"{_number(group.items, 'item')}"
        )
        for title in ("rank", "system", "win share", "95 %", "strength", "95 %"):
            table.add_column(title, justify="left" if title == "system" else "right", no_wrap=True)
        table.add_column("wins, ties, losses", justify="right", no_wrap=True)
        for one in group.standings:
            table.add_row(
                str(one.rank),
                one.system,
                f"{one.win_share:.1%}",
                f"{one.win_share_low:.1%} – {one.win_share_high:.1%}",
                f"{one.strength:+.2f}",
                f"{one.strength_low:+.2f} – {one.strength_high:+.2f}",
                f"{one.wins}, {one.ties}, {one.losses}",
            )
        console.print(table)
        if group.all_bad:
            console.print(f"  {_number(group.all_bad, 'vote')} found all answers bad")
        console.print(f"  {_agreement(group)}")


def _agreement(group: Group) -> str:
    agreed = group.agreement
    if agreed is None:
        return "agreement: no item was judged by two raters"
    names = {"cohen_kappa": "Cohen's kappa", "krippendorff_alpha": "Krippendorff's alpha"}
    value = "undefined, as all verdicts are the same" if agreed.value is None else None
    if agreed.value is not None and agreed.low is not None and agreed.high is not None:
        value = f"{agreed.value:.2f} ({agreed.low:.2f} – {agreed.high:.2f})"
    return (
        f"agreement: {names[agreed.measure]} {value}, {agreed.same:.0%} of verdicts the same, "
        f"{agreed.raters} raters on {_number(agreed.items, 'shared item')}"
    )


def _number(count: int, of: str) -> str:
    return f"{count} {of}" if count == 1 else f"{count} {of}s"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
