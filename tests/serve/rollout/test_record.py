"""What MLflow keeps of rollouts, and how it gets there."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import pytest

from bayling.errors import UserError
from bayling.registry import runs
from bayling.serve.rollout.mailbox import Mailbox
from bayling.serve.rollout.record import STATUS, Action, Record, Registered, listening

pytestmark = pytest.mark.unit


def test_a_request_is_read_as_it_was_written_and_the_newest_counts(record: Record) -> None:
    assert record.read() == Registered({"champion": "1"}, None, None)
    record.ask(Action.start, "2", "mei")
    request = record.ask(Action.start, "3", "mei", force=True)
    assert record.read().request == request
    undo = record.ask(Action.undo, None, "李雷")
    assert record.read().request == undo


def test_versions_that_were_deleted_are_told(record: Record) -> None:
    record.ask(Action.start, "9", "mei")
    assert record.read().missing == {"9"}
    runs.client(record.tracking_uri).delete_model_version("bayling", "1")
    found = record.read()
    assert "champion" not in found.aliases or "1" in found.missing


def test_what_somebody_wrote_by_hand_is_left_alone(record: Record) -> None:
    mlflow = runs.client(record.tracking_uri)
    for text in ("{", "[1]", '{"action": "explode"}'):
        mlflow.set_registered_model_tag("bayling", "rollout.request", text)
        mlflow.set_registered_model_tag("bayling", STATUS, text)
        assert record.read().request is None


def test_a_model_that_is_not_there_is_one_sentence(record: Record) -> None:
    with pytest.raises(UserError, match="no registered model 'other'"):
        Record(record.tracking_uri, "other").read()


def test_a_controller_is_there_while_its_heart_beats() -> None:
    status = {"heartbeat": 100.0, "heartbeat_every_s": 5.0, "stopped": False}
    assert listening(status, 159)
    assert not listening(status, 161)
    assert not listening({**status, "stopped": True}, 101)
    assert not listening(None, 101)


class Away(Record):
    """A record whose store can be taken away."""

    gone = threading.Event()

    def _check(self) -> None:
        if self.gone.is_set():
            raise ConnectionError("no route to MLflow")

    def read(self) -> Registered:
        self._check()
        return super().read()

    def write_status(self, status: Mapping[str, Any]) -> None:
        self._check()
        super().write_status(status)

    def write_outcome(self, version: str, outcome: Mapping[str, str]) -> None:
        self._check()
        super().write_outcome(version, outcome)


def until(what: Any, within_s: float = 10) -> None:
    deadline = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_was_written_while_mlflow_was_away_arrives_and_of_the_status_the_newest(
    record: Record,
) -> None:
    away = Away(record.tracking_uri, record.name)
    mailbox = Mailbox(away, 0.05)
    try:
        until(lambda: mailbox.latest() is not None)
        Away.gone.set()
        began = time.monotonic()
        for number in range(5):
            mailbox.status({"number": number})
            mailbox.send(lambda n=number: away.write_outcome("2", {"state": f"state {n}"}))
        assert time.monotonic() - began < 0.5, "the controller waited for MLflow"
        until(lambda: mailbox.trouble is not None)
        assert mailbox.trouble == "no route to MLflow"
        assert mailbox.latest() is not None, "what was known is forgotten"
        assert record.read().status is None
        Away.gone.clear()
        assert mailbox.delivered(10)
        assert record.read().status == {"number": 4}
        tags = runs.client(record.tracking_uri).get_model_version("bayling", "2").tags
        assert tags["rollout.state"] == "state 4"
        until(lambda: mailbox.trouble is None)
    finally:
        Away.gone.clear()
        mailbox.close(5)


def test_a_letter_that_mlflow_does_not_take_keeps_no_other_from_arriving(record: Record) -> None:
    def wrong() -> None:
        runs.client(record.tracking_uri).set_tag("no such run", "a", "b")

    mailbox = Mailbox(record, 0.05)
    mailbox.send(wrong)
    mailbox.send(lambda: record.write_outcome("2", {"state": "full"}))
    mailbox.close(10)
    tags = runs.client(record.tracking_uri).get_model_version("bayling", "2").tags
    assert tags["rollout.state"] == "full"


def test_the_outcome_of_a_version_that_was_deleted_is_let_go(record: Record) -> None:
    record.write_outcome("9", {"state": "rolled_back"})
