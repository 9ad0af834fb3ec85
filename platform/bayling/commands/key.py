"""`bayling key new|list|revoke`: who may ask a served model."""

from __future__ import annotations

import argparse
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bayling.errors import UserError

_DEFAULT_FILE = "keys.jsonl"
_EPILOG = """examples:
  bayling key new app                             prints the key, once; its hash is kept
  bayling key new lab --expires 90d --requests-per-minute 60 --tokens-per-minute 20000
  bayling key new probe --requests-per-minute none    none, whatever serve.requests_per_minute is
  bayling serve serve.host=0.0.0.0 serve.keys_file=keys.jsonl
  bayling key revoke app                          a running server knows within a second
  kubectl create secret generic bayling-keys --from-file=keys.jsonl
"""


def register(commands: Any) -> None:
    """Add the noun `key` to the command's parsers."""
    text = "keys of those who may ask a served model"
    noun = commands.add_parser(
        "key",
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = noun.add_subparsers(dest="verb", required=True, metavar="VERB")

    new = _verb(verbs, "new", "make a key and print it, once", _new)
    new.add_argument("name", metavar="NAME", help="whose key it is; this is what logs say")
    new.add_argument("--expires", metavar="WHEN", help="90d, 12h, or a day such as 2027-01-31")
    for option, what in (
        ("--requests-per-minute", "requests a minute"),
        ("--tokens-per-minute", "tokens a minute, of prompts and answers together"),
        ("--concurrent-requests", "requests at a time"),
    ):
        new.add_argument(
            option,
            metavar="N",
            default=argparse.SUPPRESS,
            type=_limit,
            help=f"{what}, or none; default: what the server has for all keys",
        )
    listed = _verb(verbs, "list", "the keys there are, without what lets anybody in", _list)
    revoke = _verb(verbs, "revoke", "take a key back", _revoke)
    revoke.add_argument("name", metavar="NAME")
    for parser in (new, listed, revoke):
        parser.add_argument(
            "--file",
            type=Path,
            default=Path(_DEFAULT_FILE),
            metavar="PATH",
            help="the file with the keys, or a folder with a file for each; default: %(default)s",
        )


def _verb(verbs: Any, name: str, text: str, work: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        name, help=text, description=text[0].upper() + text[1:] + "."
    )
    parser.set_defaults(work=work)
    return parser


def _limit(text: str) -> int | None:
    if text == "none":
        return None
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor none") from None


def _new(arguments: argparse.Namespace) -> None:
    from bayling.serve import keys
    from bayling.serve.limits import LIMITS

    own = {name: getattr(arguments, name) for name in LIMITS if name in arguments}
    expires = _when(arguments.expires) if arguments.expires else None
    full, kept = keys.make(arguments.name, expires, own)
    file = keys.add(arguments.file.expanduser(), kept)
    # Alone on standard output, for KEY=$(bayling key new app).
    print(full, flush=True)
    print(
        f"this is the only time that it is shown; {file} has its hash\n"
        f"serve with it: bayling serve serve.keys_file={arguments.file}",
        file=sys.stderr,
    )


def _list(arguments: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    from bayling.serve import keys

    found = keys.read(arguments.file.expanduser())
    if not found:
        print(f"{arguments.file} holds no keys")
        return
    table = Table("name", "key", "created", "expires", "limits", box=None, pad_edge=False)
    now = datetime.now(UTC)
    for key in found:
        table.add_row(
            key.name,
            f"bl-{key.id}-…",
            f"{key.created:%Y-%m-%d}",
            "never" if key.expires is None else f"{key.expires:%Y-%m-%d}",
            "expired" if key.expired(now) else _limits_text(key),
        )
    Console(soft_wrap=True).print(table)


def _limits_text(key: Any) -> str:
    return ", ".join(
        f"{'unlimited' if limit is None else f'{limit:,}'} {name.replace('_', ' ')}"
        for name, limit in key.limits.items()
    )


def _revoke(arguments: argparse.Namespace) -> None:
    from bayling.serve import keys

    gone = keys.remove(arguments.file.expanduser(), arguments.name)
    print(f"bl-{gone.id}-… of {gone.name} lets nobody in any more")


def _when(text: str) -> datetime:
    """The moment that `--expires` names: a time from now, or the end of a day."""
    now = datetime.now(UTC).replace(microsecond=0)
    if found := re.fullmatch(r"([1-9]\d{0,4})([hd])", text):
        return now + timedelta(hours=int(found[1]) * (24 if found[2] == "d" else 1))
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise UserError(f"--expires {text}: write 90d, 12h or a day such as 2027-01-31") from None
    if day + timedelta(days=1) <= now:
        raise UserError(f"--expires {text} has passed already")
    return day + timedelta(days=1)
