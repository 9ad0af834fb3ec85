"""A job that would only end the same way again is ended for good.

KubeRay begins a job that failed anew, as often as its `backoffLimit` says, each time with a new
Ray cluster. It cannot tell a lost node from a wrong configuration or a gate that says no. A job
that was stopped it leaves alone: so a stage that is certain of its end stops its own job.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
from contextlib import suppress

ATTEMPTS_VARIABLE = "BAYLING_ATTEMPTS"
"""In the pods of a job that KubeRay begins more than once: how often it does."""
_SAID = "exit code {code}: another attempt would end the same way, so this is the last"
_FOUND = re.compile(r"bayling: exit code (\d+): another attempt would end the same way")
_DASHBOARD = "http://127.0.0.1:8265"
_STOPPED_WITHIN_S = 30.0


def end_for_good(code: int) -> None:
    """Stop the job whose entrypoint this process is, if it would begin again; returns when Ray has
    noted that it was stopped, or cannot be reached."""
    if int(os.environ.get(ATTEMPTS_VARIABLE) or 1) < 2:
        return
    print(f"bayling: {_SAID.format(code=code)}", file=sys.stderr, flush=True)
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    # Where Ray cannot be asked, the attempts take their course.
    with suppress(Exception):
        if _stop():
            stopped.wait(_STOPPED_WITHIN_S)


def _stop() -> bool:
    from ray.job_submission import JobSubmissionClient

    # What Ray tells the entrypoint of a job about it.
    told = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}")
    name = told.get("metadata", {}).get("job_submission_id")
    if name is None:
        return False
    client = JobSubmissionClient(os.environ.get("RAY_API_SERVER_ADDRESS") or _DASHBOARD)
    return bool(client.stop_job(name))


def exit_code(line: str) -> int | None:
    """The code that a line of the log says to be a job's last."""
    found = _FOUND.match(line)
    return int(found[1]) if found else None
