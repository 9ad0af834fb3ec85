"""`bayling plan`: its parser and its work."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bayling.errors import UserError

_HELP = "memory per GPU, tokens, hours, cost, what it asks of the cluster; runs nothing"


def register(commands: Any) -> None:
    """Add the command to the parsers of `bayling`."""
    added = commands.add_parser("plan", help=_HELP, description=_HELP[0].upper() + _HELP[1:] + ".")
    added.set_defaults(work=_plan)
    added.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="Hydra overrides: recipe=bayling-7b, scale=cluster, scale.gpu=A100-80GB, …",
    )
    added.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")


def _plan(arguments: argparse.Namespace) -> None:
    from bayling import plan, plan_tables
    from bayling.config import compose
    from bayling.stage import write_json

    made = plan.make(compose(arguments.overrides))
    plan_tables.show(made)
    if arguments.json is not None:
        try:
            write_json(arguments.json, made)
        except OSError as error:
            raise UserError(f"cannot write {arguments.json}: {error.strerror}") from None
