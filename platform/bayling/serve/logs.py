"""The log of a replica: one JSON object a line, with the id of the request that it is about.

Lines go to the process's standard error, which Ray keeps in a file for each worker beside Ray
Serve's own logs (docs/metrics.md says where). Ray Serve redirects `sys.stderr` to its own log,
which it writes a thousand lines at a time; so the stream underneath is used.

Texts of users are never in it. Of exceptions that quote their input only the type is.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

from fastapi.exceptions import ValidationException
from pydantic import ValidationError

FIELDS = "fields"
"""`log.info(…, extra={FIELDS: {…}})` puts more into a line."""
_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


def about(request_id: str) -> None:
    """What this task logs from now on is about a request; an engine's id for it will do."""
    _request_id.set(request_id.partition("/")[0])


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON.

    Args:
        constant: what every line has.
    """

    def __init__(self, constant: Mapping[str, str]) -> None:
        super().__init__()
        self._constant = dict(constant)

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **self._constant,
        }
        if (request_id := _request_id.get()) is not None:
            line["request_id"] = request_id
        line.update(getattr(record, FIELDS, {}))
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = _told(record.exc_info[1])
        return json.dumps(line, ensure_ascii=False, default=str)


def install(deployment: str, replica: str, stream: TextIO | None = None) -> None:
    """Write what this process logs as JSON lines: everything of this platform, and what other
    libraries warn of.

    Args:
        stream: instead of the process's standard error.
    """
    handler = logging.StreamHandler(stream or sys.__stderr__)
    handler.setFormatter(JsonLines({"deployment": deployment, "replica": replica}))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("bayling").setLevel(logging.INFO)


def _told(error: BaseException) -> str:
    """The traceback; without the message where that quotes what somebody sent."""
    if not _quotes(error):
        return "".join(traceback.format_exception(error))
    frames = "".join(traceback.format_tb(error.__traceback__))
    return f"{frames}{type(error).__name__} (its message is left out: it quotes its input)"


def _quotes(error: BaseException | None) -> bool:
    """Whether an exception, or one that led to it, names the value that it did not like."""
    while error is not None:
        if isinstance(error, ValidationError | ValidationException):
            return True
        error = error.__cause__ or error.__context__
    return False
