"""The log: a JSON object a line, by which a request is found in every replica it came through."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.exceptions import RequestValidationError
from one_request import one_request
from pydantic import BaseModel, ValidationError

from bayling.serve import logs
from bayling.serve.accounting import write_down
from bayling.serve.observed import Exchange

pytestmark = pytest.mark.unit

MARKER = "Geheimnis-4711"


class Log:
    """What a replica writes."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        logs.install("Api", "replica-1", self.stream)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


@pytest.fixture
def log() -> Iterator[Log]:
    root, own = logging.getLogger(), logging.getLogger("bayling")
    before = list(root.handlers), root.level, own.level
    yield Log()
    root.handlers, level, own_level = before
    root.setLevel(level)
    own.setLevel(own_level)
    logs._request_id.set(None)


def test_a_request_is_one_line_with_all_that_is_known_of_it_and_no_text(log: Log) -> None:
    logs.about("mine-1")
    write_down(one_request(request_id="mine-1", ttft_s=0.123456789), [])
    [line] = log.lines()
    assert (line["request_id"], line["version"], line["key"]) == ("mine-1", "7", "app")
    assert (line["status"], line["finish_reasons"], line["ttft_s"]) == (200, ["stop"], 0.123457)
    assert (line["level"], line["deployment"], line["replica"]) == ("INFO", "Api", "replica-1")
    assert "texts" not in line


def test_a_failed_request_is_an_error_in_the_log(log: Log) -> None:
    write_down(one_request(status=504, error="timeout"), [])
    assert [(line["level"], line["error"]) for line in log.lines()] == [("ERROR", "timeout")]


def test_texts_are_there_where_they_were_kept(log: Log) -> None:
    write_down(one_request(), [Exchange("### Instruction: Hallo", "Guten Tag")])
    [line] = log.lines()
    assert line["texts"] == [{"prompt": "### Instruction: Hallo", "answer": "Guten Tag"}]


def test_every_line_of_a_task_has_the_id_of_its_request(log: Log) -> None:
    logger = logging.getLogger("bayling.serve.remote")
    logger.warning("before any")
    logs.about("mine-1/8a7b3c2d-0")  # as an engine knows it
    logger.warning("the request goes on elsewhere: %s", "gone")
    before, line = log.lines()
    assert "request_id" not in before
    assert (line["request_id"], line["message"]) == (
        "mine-1",
        "the request goes on elsewhere: gone",
    )


def test_line_breaks_and_foreign_scripts_stay_within_their_line(log: Log) -> None:
    logging.getLogger("bayling").warning("one\ntwo 你好")
    assert [line["message"] for line in log.lines()] == ["one\ntwo 你好"]
    assert "你好" in log.stream.getvalue()


def test_an_exception_comes_with_its_traceback(log: Log) -> None:
    try:
        raise RuntimeError("out of memory")
    except RuntimeError:
        logging.getLogger("bayling").exception("a step failed")
    told = log.lines()[0]["exception"]
    assert told.startswith("Traceback") and told.rstrip().endswith("RuntimeError: out of memory")


def test_an_exception_that_quotes_what_it_was_given_is_named_only(log: Log) -> None:
    class Body(BaseModel):
        count: int

    def quoting() -> Exception:
        with pytest.raises(ValidationError) as caught:
            Body.model_validate({"count": MARKER})
        assert MARKER in str(caught.value)
        return caught.value

    logger = logging.getLogger("bayling")
    for error in (quoting(), RequestValidationError([{"input": MARKER}])):
        try:
            try:
                raise error
            except Exception as cause:
                raise RuntimeError(f"because of {cause}") from cause
        except RuntimeError:
            logger.exception("the request failed")
    assert MARKER not in log.stream.getvalue()
    assert all("RuntimeError (its message" in line["exception"] for line in log.lines())
    assert all("test_logging.py" in line["exception"] for line in log.lines())


def test_other_libraries_are_heard_when_they_warn(log: Log) -> None:
    logging.getLogger("some.library").info("chatter")
    logging.getLogger("some.library").warning("trouble")
    assert [line["message"] for line in log.lines()] == ["trouble"]
