"""Votes in MLflow: one run a session at the page, with all that was judged until then.

The file of votes is what counts. A store that is away loses nothing: the run is written anew from
the file each time, and by the next session if not by this one.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bayling.errors import UserError
from bayling.rating.items import AnswerFile
from bayling.rating.results import ALL, Group, results
from bayling.rating.session import Session
from bayling.rating.votes import Vote
from bayling.registry import runs
from bayling.stage import TrackedRun

STAGE = "rate"
COMPARED = "bayling.compared"
"""On a run: the systems whose answers were compared."""
COMPARISON = "bayling.comparison"
"""On a run: the fingerprint of their answers."""
_TABLE = "votes.json"


class Record:
    """A session's run, which begins with its first votes. Threads may share one."""

    def __init__(
        self, session: Session, tracking_uri: str, experiment: str, artifacts: Path, key: str
    ) -> None:
        self._session = session
        self._where = tracking_uri, experiment, artifacts
        self._key = key
        self._lock = threading.Lock()
        self._tracked: TrackedRun | None = None

    def store(self, *, over: bool = False) -> str | None:
        """Log all votes that count, and what they come to.

        Args:
            over: whether the session ends with it.

        Returns:
            The run's id; None where there are no votes and so is no run.

        Raises:
            UserError: the store does not answer. What else goes wrong comes as MLflow raises it.
        """
        with self._lock:
            votes = self._session.votes()
            if votes:
                runs.check_reachable(self._where[0])
                self._log(self._tracked or self._open(), votes)
            if self._tracked is None:
                return None
            if over:
                runs.client(self._where[0]).set_terminated(self._tracked.run_id)
            return self._tracked.run_id

    def _open(self) -> TrackedRun:
        tracking_uri, experiment, artifacts = self._where
        comparison = self._session.comparison
        systems = ", ".join(comparison.systems)
        self._tracked = runs.open_run(
            tracking_uri,
            runs.experiment_id(tracking_uri, experiment, artifacts),
            name=f"rating of {systems}",
            key=self._key,
            stage=STAGE,
            config={
                "systems": list(comparison.systems),
                "sources": {system: list(it) for system, it in comparison.sources.items()},
                "items": len(self._session.items),
            },
            labels={COMPARED: systems, COMPARISON: comparison.fingerprint},
        )
        return self._tracked

    def _log(self, tracked: TrackedRun, votes: Sequence[Vote]) -> None:
        found = results(votes)
        mlflow = runs.client(tracked.tracking_uri)
        mlflow.log_artifact(tracked.run_id, str(self._session.path))
        mlflow.log_dict(
            tracked.run_id, {name: group.as_dict() for name, group in found.items()}, "results.json"
        )
        mlflow.log_dict(tracked.run_id, _table(votes), _TABLE)
        numbers = {
            f"{name}/{_named(key)}": float(value)
            for name, group in found.items()
            for key, value in group.metrics().items()
        }
        runs.log_metrics(tracked, numbers)
        runs.set_tags(
            tracked,
            {
                # What makes MLflow show a file as a table; its `log_table` would append the votes
                # to those that are there.
                "mlflow.loggedArtifacts": json.dumps([{"path": _TABLE, "type": "table"}]),
                "mlflow.note.content": _note(found),
            },
        )


def _table(votes: Sequence[Vote]) -> dict[str, Any]:
    rows = [vote.line() for vote in votes]
    for row in rows:
        row["shown"] = " | ".join(row["shown"])
        best_first = sorted(row["ranks"].items(), key=lambda one: one[1])
        row["ranks"] = ", ".join(f"{rank} {system}" for system, rank in best_first)
    return {"columns": list(rows[0]), "data": [list(row.values()) for row in rows]}


def _named(key: str) -> str:
    """A metric's name with the characters that MLflow takes."""
    return re.sub(r"[^\w.\- /]", "_", key)


def _note(found: Mapping[str, Group]) -> str:
    group = found[ALL]
    lines = [
        f"{group.votes} votes of {group.raters} raters on {group.items} items",
        "",
        "| rank | system | win share | 95 % | strength | 95 % |",
        "|---|---|---|---|---|---|",
    ]
    for one in group.standings:
        lines.append(
            f"| {one.rank} | {one.system} | {one.win_share:.1%} "
            f"| {one.win_share_low:.1%} to {one.win_share_high:.1%} | {one.strength:.2f} "
            f"| {one.strength_low:.2f} to {one.strength_high:.2f} |"
        )
    return "\n".join(lines)


def fetch_answers(tracking_uri: str, chosen: Sequence[str], folder: Path) -> list[AnswerFile]:
    """Answer files out of evaluate runs.

    Args:
        chosen: `RUN_ID`, or `RUN_ID/SYSTEM`. One run alone gives all of its systems, several give
            their trained models unless a system is named.
        folder: where the files go.

    Raises:
        UserError: a run does not exist, has no answers, or not those of the system.
    """
    from mlflow.exceptions import MlflowException

    mlflow = runs.client(tracking_uri)
    files: list[AnswerFile] = []
    for text in chosen:
        run_id, _, system = text.partition("/")
        if not runs.exists(tracking_uri, run_id):
            raise UserError(f"{tracking_uri} has no run {run_id!r}: MLflow's pages show the ids")
        place = folder / run_id
        place.mkdir(parents=True, exist_ok=True)
        try:
            there = Path(mlflow.download_artifacts(run_id, "answers", str(place)))
        except (MlflowException, OSError):
            there = place / "answers"
        found = sorted(there.glob("*/*.jsonl"))
        systems = sorted({path.parent.name for path in found})
        if not systems:
            raise UserError(
                f"run {run_id} has no answers: give the id of an evaluate run, or answer files"
            )
        wanted = [system] if system else systems if len(chosen) == 1 else ["trained"]
        if not set(wanted) <= set(systems):
            raise UserError(
                f"run {run_id} has no answers of {wanted[0]!r}: it has {', '.join(systems)}; "
                f"write {run_id}/SYSTEM"
            )
        # Of several runs each has a system of this name.
        suffix = f" {run_id[:8]}" if len({it.partition("/")[0] for it in chosen}) > 1 else ""
        files += [
            AnswerFile(
                path,
                system=f"{path.parent.name}{suffix}",
                origin=f"run {run_id}, answers/{path.parent.name}/{path.name}",
            )
            for path in found
            if path.parent.name in wanted
        ]
    return files
