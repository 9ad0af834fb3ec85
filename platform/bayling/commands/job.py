"""`bayling job list|status|logs|stop|cost`: jobs that were submitted."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from bayling.commands.submit import followed, followed_on_ray, reached, where_to
from bayling.errors import UserError

if TYPE_CHECKING:
    from bayling.cluster.kubernetes_jobs import State


def register(commands: Any) -> None:
    """Add the noun `job` to the command's parsers."""
    text = "jobs that were submitted: their state, their logs, what they cost"
    noun = commands.add_parser("job", help=text, description=text[0].upper() + text[1:] + ".")
    verbs = noun.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, text, work in (
        ("list", "the jobs there are", _list),
        ("status", "how a job is, and what keeps it from running", _status),
        ("logs", "what a job says", _logs),
        ("stop", "end a job and take it away; what it wrote stays", _stop),
    ):
        added = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        added.set_defaults(work=work)
        if name != "list":
            added.add_argument("id", metavar="ID")
        if name == "logs":
            added.add_argument("-f", "--follow", action="store_true", help="to the job's end")
        where_to(added)
    text = "GPU hours and money by team, from the runs in MLflow"
    added = verbs.add_parser("cost", help=text, description=text[0].upper() + text[1:] + ".")
    added.set_defaults(work=_cost)
    added.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="tracking_uri=…")


def _list(arguments: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("job", "stage", "team", "state", "began", box=None, pad_edge=False)
    if arguments.to == "ray":
        from bayling.cluster import ray_jobs

        seen: set[str] = set()
        for attempt in ray_jobs.attempts(ray_jobs.connect(arguments.address)):
            if attempt.job not in seen:
                seen.add(attempt.job)
                began = _ago(attempt.started)
                table.add_row(attempt.job, attempt.stage, attempt.team, attempt.word, began)
    else:
        from bayling.cluster import kubernetes_jobs
        from bayling.cluster.kubernetes_jobs import State

        cluster = reached(arguments)
        for found in kubernetes_jobs.every(cluster):
            state = State.of(found)
            table.add_row(state.id, state.stage, state.team, state.word, _ago(_time(state.started)))
    if table.row_count:
        Console(soft_wrap=True).print(table)
    else:
        print("no jobs", file=sys.stderr)


def _status(arguments: argparse.Namespace) -> None:
    if arguments.to == "ray":
        from bayling.cluster import ray_jobs

        attempt = ray_jobs.require(ray_jobs.connect(arguments.address), arguments.id)
        print(f"{attempt.job} {attempt.word}, began {_ago(attempt.started)}")
        if attempt.message and attempt.status != "SUCCEEDED":
            print(" ".join(attempt.message.split())[:300])
        return
    from bayling.cluster import following, kubernetes_jobs
    from bayling.cluster.kubernetes_jobs import State

    cluster = reached(arguments)
    state = State.of(kubernetes_jobs.require(cluster, arguments.id))
    print(f"{state.id} {state.word}{_details(state)}")
    if state.succeeded:
        return
    if state.over:
        print(following.explain(cluster, state)[0])
        return
    if state.job != "RUNNING" and (why := following.waits_for(cluster, state)):
        print(why)


def _details(state: State) -> str:
    parts = [f"began {_ago(_time(state.started))}"]
    if state.wanted and not state.over:
        parts.append(f"{state.ready}/{state.wanted} pods of workers are ready")
    if state.attempts > 1:
        parts.append(f"attempt {state.attempts}")
    return ", " + ", ".join(parts)


def _logs(arguments: argparse.Namespace) -> int:
    if arguments.to == "ray":
        from bayling.cluster import ray_jobs

        client = ray_jobs.connect(arguments.address)
        attempt = ray_jobs.require(client, arguments.id)
        if arguments.follow:
            return followed_on_ray(client, attempt)
        print(ray_jobs.log(client, attempt), end="")
        return 0
    from bayling.cluster import following, kubernetes_jobs
    from bayling.cluster.kubernetes_jobs import State

    cluster = reached(arguments)
    state = State.of(kubernetes_jobs.require(cluster, arguments.id))
    if arguments.follow:
        return followed(cluster, arguments.id)
    said = False
    for line in following.log(cluster, arguments.id):
        print(line)
        said = True
    if not said:
        raise UserError(
            f"{state.id} has said nothing yet (it is {state.word}): `bayling job status "
            f"{state.id}` tells what it waits for"
        )
    return 0


def _stop(arguments: argparse.Namespace) -> None:
    if arguments.to == "ray":
        from bayling.cluster import ray_jobs

        ray_jobs.stop(ray_jobs.connect(arguments.address), arguments.id)
    else:
        from bayling.cluster import kubernetes_jobs

        print(f"ending {arguments.id}: its pods save what they have …", file=sys.stderr)
        kubernetes_jobs.delete(reached(arguments), arguments.id)
    print(
        f"{arguments.id} was stopped; what it wrote is still there, and submitting it again goes "
        "on from its last checkpoint",
        file=sys.stderr,
    )


def _cost(arguments: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    from bayling.config import compose
    from bayling.registry import costs, runs

    config = compose(arguments.overrides)
    runs.check_reachable(config.tracking)
    table = Table("team", "runs", "GPU hours", "cost", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for team, spent in sorted(costs.by_team(config.tracking).items()):
        price = "" if spent.price is None else f"{spent.price:,.2f}"
        table.add_row(team or "(none)", str(spent.runs), f"{spent.gpu_hours:,.2f}", price)
    if table.row_count:
        Console(soft_wrap=True).print(table)
    else:
        print(f"no run at {config.tracking} has used a GPU yet", file=sys.stderr)


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _ago(time: datetime | None) -> str:
    if time is None:
        return "not yet"
    minutes = int((datetime.now(UTC) - time).total_seconds() // 60)
    for size, unit in ((1440, "d"), (60, "h")):
        if minutes >= 2 * size:
            return f"{minutes // size} {unit} ago"
    return f"{max(0, minutes)} min ago"
