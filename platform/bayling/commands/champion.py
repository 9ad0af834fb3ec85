"""`bayling champion history|undo`: who was champion when and why, and the way back."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bayling.config import Config
    from bayling.registry.champion import History

_EPILOG = """examples:
  bayling champion history recipe=quickstart
  bayling champion history --json history.json
  bayling champion undo --reason "Arabic reads worse than it scores"

A running server follows the champion by a rollout; `bayling rollout undo` takes a version out of
its traffic at once, and leaves the champion as it is.
"""


def register(commands: Any) -> None:
    """Add the noun `champion` to the command's parsers."""
    text = "which version is champion, which ones were, and why"
    noun = commands.add_parser(
        "champion",
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = noun.add_subparsers(dest="verb", required=True, metavar="VERB")
    history = _verb(verbs, "history", "every champion, the newest first", _history)
    history.add_argument("--json", type=Path, metavar="FILE", help="write them there, too")
    undo = _verb(verbs, "undo", "make the champion before the champion again", _undo)
    undo.add_argument("--reason", default="", metavar="TEXT", help="why; stays on record")
    for parser in (history, undo):
        parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="overrides")


def _verb(verbs: Any, name: str, text: str, work: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        name, help=text, description=text[0].upper() + text[1:] + "."
    )
    parser.set_defaults(work=work)
    return parser


def _history(arguments: argparse.Namespace) -> None:
    from bayling.registry import champion
    from bayling.stage import write_json

    config = _compose(arguments.overrides)
    name = config.registered_model
    known = champion.history(config.tracking, name)
    if arguments.json:
        write_json(
            arguments.json,
            {
                "model": name,
                "champion": known.champion,
                "previous": known.previous,
                "changes": [change.as_dict() for change in known.changes],
                "dropped": known.dropped,
            },
        )
    _show(known, config)


def _undo(arguments: argparse.Namespace) -> None:
    from bayling.registry import champion

    config = _compose(arguments.overrides)
    name = config.registered_model
    change = champion.undo(config.tracking, name, arguments.reason.strip())
    print(f"version {change.version} of {name} is champion again, after version {change.before}")
    print("a running server follows by a rollout: `bayling rollout status` shows it")


def _show(known: History, config: Config) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from bayling.registry.pages import version_page

    console = Console(highlight=False)
    name = config.registered_model
    if not known.changes:
        console.print(f"{name} has had no champion yet: `bayling promote` makes the first one")
        return
    table = Table(title=f"champions of {name}", title_justify="left")
    for title in ("since (UTC)", "version", "before", "how", "gate", "who", "run", "why"):
        table.add_column(title)
    for change in known.changes:
        shown = change.as_dict()
        table.add_row(
            (shown["time"] or "not recorded")[:16].replace("T", " "),
            change.version,
            change.before or "–",
            change.how.value,
            change.verdict or "–",
            escape(change.who or "–"),
            (change.run or "–")[:8],
            escape(change.reason),
        )
    console.print(table)
    if known.dropped:
        console.print(
            f"{known.dropped} older changes are not kept here: MLflow has the runs of their "
            "promotions (bayling.stage = promote)"
        )
    if known.champion is None:
        console.print(f"{name} has no champion at the moment: its alias was taken away")
    else:
        console.print(f"in MLflow: {version_page(config.tracking, name, known.champion)}")


def _compose(overrides: list[str]) -> Config:
    from bayling.config import compose
    from bayling.registry import runs

    config = compose(overrides)
    runs.check_reachable(config.tracking)
    return config
