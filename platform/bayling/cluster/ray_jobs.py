"""Jobs on any Ray cluster, through its Jobs API.

The token of a cluster that asks for one is Ray's business: RAY_AUTH_MODE=token with
RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token.
"""

from __future__ import annotations

import asyncio
import logging
import shlex
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bayling.cluster import entrypoint
from bayling.cluster.rayjob import JOB_VARIABLE
from bayling.cluster.screen import Screen
from bayling.errors import StageFailed, UserError

PACKAGE = Path(__file__).resolve().parents[1]
_JOB, _STAGE, _TEAM = "bayling.job", "bayling.stage", "bayling.team"
"""Keys of a job's metadata."""
_LEFT_OUT = ["/.git/", "/outputs/", "/tests/", "/docs/", "/charts/", "/benchmarks/", "*.db"]
"""Of the working directory, beside what .gitignore and .rayignore name."""
_AWAY_S, _PAUSE_S = 600.0, 2.0
_OVER = ("SUCCEEDED", "FAILED", "STOPPED")


@dataclass(frozen=True)
class Attempt:
    """A job as Ray's Jobs API has it."""

    job: str
    """What the user calls it. A second attempt has another id with Ray, which keeps the first."""
    submission: str
    status: str
    message: str
    stage: str
    team: str
    started: datetime | None

    @property
    def over(self) -> bool:
        return self.status in _OVER

    @property
    def word(self) -> str:
        return {"PENDING": "starting"}.get(self.status, self.status.lower())


def connect(address: str | None) -> Any:
    """A client of the cluster's Jobs API, such as http://HEAD:8265; None for $RAY_ADDRESS.

    Raises:
        UserError: nobody answers there, or the cluster wants a token.
    """
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    # It tells of packages and of connections that end, which is its own business.
    logging.getLogger("ray").setLevel(logging.ERROR)
    where = address or "$RAY_ADDRESS"
    try:
        return JobSubmissionClient(address)
    except AuthenticationError:
        raise UserError(
            f"the Ray cluster at {where} asks for a token and was given none, or a wrong one: "
            "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH)"
        ) from None
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"no Ray cluster answers at {where} ({reason}): give the address of its dashboard, "
            "--address http://HEAD:8265"
        ) from None


def attempts(client: Any, job: str | None = None) -> list[Attempt]:
    """What was submitted by this platform, the newest first; of one job, or of all."""
    found = []
    for each in client.list_jobs():
        metadata = each.metadata or {}
        if each.submission_id and _JOB in metadata and job in (None, metadata[_JOB]):
            began = each.start_time
            found.append(
                Attempt(
                    metadata[_JOB],
                    each.submission_id,
                    getattr(each.status, "value", str(each.status)),
                    each.message or "",
                    metadata.get(_STAGE, ""),
                    metadata.get(_TEAM, ""),
                    datetime.fromtimestamp(began / 1000, UTC) if began else None,
                )
            )
    return sorted(found, key=lambda one: one.started or datetime.now(UTC), reverse=True)


def require(client: Any, job: str) -> Attempt:
    """The newest attempt of a job.

    Raises:
        UserError: there is none.
    """
    found = attempts(client, job)
    if not found:
        raise UserError(f"there is no job {job!r} on this cluster: `bayling job list --to ray`")
    return found[0]


def submit(client: Any, job: str, stage: str, overrides: list[str], team: str | None) -> Attempt:
    """Send the checkout that this code runs from, and the stage's entrypoint.

    Where this code is installed without a checkout, the package goes alone.
    """
    before = attempts(client, job)
    submission = job if not before else f"{job}-{len(before) + 1}"
    root = PACKAGE.parents[1]
    script = f"jobs/{stage}.py"
    if (root / script).exists() and (root / "conf").is_dir():
        runtime_env: dict[str, Any] = {"working_dir": str(root), "excludes": _LEFT_OUT}
        command = ["python", script, *overrides]
    else:
        runtime_env = {"py_modules": [str(PACKAGE)]}
        command = entrypoint.command(stage, overrides)
    runtime_env["env_vars"] = {JOB_VARIABLE: job}
    try:
        client.submit_job(
            entrypoint=shlex.join(command),
            submission_id=submission,
            runtime_env=runtime_env,
            metadata={_JOB: job, _STAGE: stage, **({_TEAM: team} if team else {})},
        )
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"the Ray cluster does not take the job: {reason[-300:]}") from None
    return require(client, job)


def follow(client: Any, attempt: Attempt, screen: Screen) -> Attempt:
    """Show the log until the job is over; its last state.

    Raises:
        StageFailed: the cluster was away for too long.
    """
    from aiohttp import ClientError

    tail, away_since = _Tail(client, attempt.submission, screen), None
    while True:
        try:
            asyncio.run(tail.show())
            state = require(client, attempt.job)
            away_since = None
        except (OSError, RuntimeError, ClientError) as error:
            away_since = away_since or time.monotonic()
            if time.monotonic() - away_since > _AWAY_S:
                raise StageFailed(
                    f"the Ray cluster does not answer any more ({error}): `bayling job logs "
                    f"{attempt.job} --to ray --follow` comes back to the job"
                ) from None
            time.sleep(_PAUSE_S)
            continue
        if state.over:
            tail.finish()
            screen.close()
            return state
        screen.status(f"{state.job} {state.word}", "its log goes on")
        time.sleep(_PAUSE_S)


class _Tail:
    """A log that comes in pieces and, with every connection, from its beginning."""

    def __init__(self, client: Any, submission: str, screen: Screen) -> None:
        self._client, self._submission, self._screen = client, submission, screen
        self._shown, self._line = 0, ""
        """Characters that were taken, and the line that has no end yet."""

    async def show(self) -> None:
        """Show what is new until the log ends or the connection does."""
        seen = 0
        async for text in self._client.tail_job_logs(self._submission):
            fresh = text[max(0, self._shown - seen) :]
            seen += len(text)
            self._shown = max(seen, self._shown)
            *whole, self._line = (self._line + fresh).split("\n")
            for line in whole:
                self._screen.log(line)

    def finish(self) -> None:
        """Show the last line, where it has no end."""
        if self._line:
            self._screen.log(self._line)


def log(client: Any, attempt: Attempt) -> str:
    """All that a job has said."""
    return str(client.get_job_logs(attempt.submission))


def last_lines(client: Any, attempt: Attempt) -> list[str]:
    """The end of what it said."""
    return list(deque(log(client, attempt).splitlines(), maxlen=200))


def stop(client: Any, job: str) -> Attempt:
    """Ask a job to end and wait until it has.

    Raises:
        UserError: there is none, or it is over.
        StageFailed: it does not end.
    """
    state = require(client, job)
    if state.over:
        raise UserError(f"the job {job} is over already ({state.word})")
    client.stop_job(state.submission)
    until = time.monotonic() + 120
    while not (state := require(client, job)).over:
        if time.monotonic() > until:
            raise StageFailed(f"the job {job} was asked to stop and goes on after two minutes")
        time.sleep(1)
    return state
