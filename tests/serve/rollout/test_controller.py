"""Whole rollouts, against a real MLflow store and a place that runs versions in memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rollout_place import Place

from bayling.registry import runs
from bayling.serve.config import ServeConfig
from bayling.serve.rollout.beginning import at_start, beside
from bayling.serve.rollout.config import RolloutConfig
from bayling.serve.rollout.controller import Controller
from bayling.serve.rollout.history import History
from bayling.serve.rollout.plan import Rollout, State
from bayling.serve.rollout.record import Action, Record

QUICK = RolloutConfig(
    steps=[0.1, 0.5], min_samples=100, min_step_s=0, keep_previous_s=0, poll_s=0.02
)


class Server:
    """Starts controllers and lets them look until something holds."""

    def __init__(self, record: Record, folder: Path) -> None:
        self.record, self.place, self.config = record, Place(), ServeConfig(rollout=QUICK)
        self._folder = folder
        self.controller: Any = None
        self.start()

    def start(self) -> None:
        """As `bayling serve` does: what the record says serves first, alone."""
        registered = self.record.read()
        recorded = at_start(registered, "champion", time.time())
        self.place.apply({recorded.serving: 1.0}, ())
        self.take_over(recorded)

    def take_over(self, recorded: Any = None, registered: Any = None) -> None:
        """Another controller on the same place."""
        registered = registered or self.record.read()
        experiment = runs.experiment_id(self.record.tracking_uri, "bayling", self._folder)
        self.controller = Controller(
            self.place,
            self.record,
            History(self.record.tracking_uri, lambda: experiment, QUICK),
            self.place.ask,
            self.config,
            recorded or at_start(registered, "champion", time.time()),
            registered,
        )
        self.controller._owner = f"controller-{time.monotonic_ns()}"

    def until(self, holds: Callable[[], bool], within_s: float = 20) -> None:
        deadline = time.monotonic() + within_s
        while not holds():
            assert time.monotonic() < deadline, self.controller.rollout
            self.controller.tick()
            time.sleep(0.01)

    def comes_to(self, state: State, version: str) -> None:
        self.until(
            lambda: (
                self.controller.rollout.state is state and self.controller.rollout.new == version
            )
        )

    def move_champion(self, version: str) -> None:
        self._mlflow.set_registered_model_alias("bayling", "champion", version)

    def tags(self, version: str) -> dict[str, str]:
        assert self.controller._mailbox.delivered(20)
        return dict(self._mlflow.get_model_version("bayling", version).tags)

    def status(self) -> Any:
        self.controller.tick()
        assert self.controller._mailbox.delivered(20)
        return self.record.read().status

    def killed(self) -> None:
        """The controller ends without a word, and nobody hears its heart for a while."""
        self.controller._mailbox.close(5)
        status = dict(self.record.read().status or {})
        self.record.write_status({**status, "heartbeat": time.time() - 100})

    @property
    def _mlflow(self) -> Any:
        return runs.client(self.record.tracking_uri)


@pytest.fixture
def server(record: Record, tmp_path: Path) -> Iterator[Server]:
    made = Server(record, tmp_path / "artifacts")
    yield made
    made.controller.close()


def test_a_champion_that_moved_takes_over_step_by_step(server: Server) -> None:
    server.move_champion("2")
    server.comes_to(State.full, "2")
    server.until(lambda: server.place.applied[-1] == ({"2": 1.0}, ()))
    assert [shares for shares, _ in server.place.applied] == [
        {"1": 1.0},
        {"1": 1.0},
        {"1": 1.0, "2": 0.0},
        {"1": 0.9, "2": 0.1},
        {"1": 0.5, "2": 0.5},
        {"1": 0.0, "2": 1.0},
        {"2": 1.0},
        {"2": 1.0},
    ]
    assert server.place.applied[-2][1] == ("1",), "removed before it had finished"
    tags = server.tags("2")
    assert tags["rollout.state"] == "full"
    assert tags["rollout.base"] == "1"
    assert tags["rollout.errors"].startswith("as good: failed requests: 0.0% after 0.0%")


def test_a_worse_version_is_rolled_back_and_the_reason_is_on_the_version(server: Server) -> None:
    server.place.errors["2"] = 0.5
    server.move_champion("2")
    server.comes_to(State.rolled_back, "2")
    assert server.place.shares == {"1": 1.0} or server.controller.tick() is None
    assert server.place.shares == {"1": 1.0}
    tags = server.tags("2")
    assert tags["rollout.state"] == "rolled_back"
    assert "failed requests: 50.0% after 0.0%" in tags["rollout.reason"]
    # The alias still names it: it is not tried again by itself.
    for _ in range(20):
        server.controller.tick()
    assert server.controller.rollout.state is State.rolled_back
    # The alias moves on, and somebody asks for it by hand: both are tried.
    server.move_champion("3")
    server.comes_to(State.full, "3")
    server.record.ask(Action.start, "2", "mei")
    server.comes_to(State.rolled_back, "2")
    assert server.controller.rollout.old == "3"


def test_a_version_that_cannot_start_or_answer_never_has_a_share(server: Server) -> None:
    server.place.broken["2"] = "UserError: models/2 holds no model"
    server.move_champion("2")
    server.comes_to(State.rolled_back, "2")
    assert server.controller.rollout.reason.endswith("models/2 holds no model")
    server.place.answer = "नमस्ते"
    server.move_champion("3")
    server.comes_to(State.rolled_back, "3")
    assert "wrong script" in server.controller.rollout.reason
    assert all(shares["1"] == 1.0 for shares, _ in server.place.applied)


def test_the_run_of_a_rollout_has_its_curves_a_table_and_a_plot(server: Server) -> None:
    server.place.errors["2"] = 0.06
    server.place.requests_a_look = 60  # several looks
    server.move_champion("2")
    server.comes_to(State.rolled_back, "2")
    server.tags("2")
    mlflow = runs.client(server.record.tracking_uri)
    experiment = mlflow.get_experiment_by_name("bayling").experiment_id
    [run] = mlflow.search_runs([experiment], "tags.`bayling.stage` = 'rollout'")
    assert run.info.status == "FINISHED"
    assert run.data.tags["rollout.version"] == "2"
    assert run.data.metrics["candidate/errors"] == pytest.approx(0.06, abs=0.03)
    assert {"base/errors", "share", "lower/errors", "upper/errors"} <= set(run.data.metrics)
    assert len(mlflow.get_metric_history(run.info.run_id, "candidate/requests")) > 1
    files = {one.path for one in mlflow.list_artifacts(run.info.run_id)}
    assert {"comparison.md", "comparison.png", "config.json"} <= files


def test_without_traffic_nothing_is_decided_and_force_goes_on_without(server: Server) -> None:
    server.place.requests_a_look = 0
    QUICK.undecided_after_s = 0.3
    try:
        server.move_champion("2")
        server.comes_to(State.undecided, "2")
        status = server.status()
        assert status["state"] == "undecided"
        assert status["waits_for"] == "100 more requests to version 2"
        assert server.tags("2")["rollout.state"] == "undecided"
        server.record.ask(Action.start, "2", "mei", force=True)
        server.comes_to(State.full, "2")
        assert "not compared" in server.controller.rollout.reason
    finally:
        QUICK.undecided_after_s = 7200


def test_undo_brings_the_old_version_back_also_when_it_is_gone(server: Server) -> None:
    server.move_champion("2")
    server.comes_to(State.full, "2")
    server.until(lambda: server.place.applied[-1] == ({"2": 1.0}, ()))
    server.record.ask(Action.undo, None, "mei")
    server.comes_to(State.full, "1")
    server.until(lambda: server.place.applied[-1] == ({"1": 1.0}, ()))
    # The champion is still the other one: what a person decided stays.
    for _ in range(20):
        server.controller.tick()
    assert server.controller.rollout.new == "1"


def test_an_alias_that_goes_back_ends_the_rollout(server: Server) -> None:
    server.place.requests_a_look = 0
    server.move_champion("2")
    server.comes_to(State.canary, "2")
    server.move_champion("1")
    server.comes_to(State.rolled_back, "2")
    assert server.controller.rollout.reason == "the alias champion names version 1"


def test_a_newer_version_ends_the_rollout_of_an_older_one(server: Server) -> None:
    server.place.requests_a_look = 0
    server.move_champion("2")
    server.comes_to(State.canary, "2")
    server.move_champion("3")
    server.comes_to(State.canary, "3")
    server.until(lambda: set(server.place.shares) == {"1", "3"})
    assert server.tags("2")["rollout.reason"] == "the alias champion names version 3"


def test_a_version_that_mlflow_does_not_have_is_told_once_and_changes_nothing(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.record.ask(Action.start, "9", "mei")
    server.until(lambda: bool(server.controller._notices))
    for _ in range(10):
        server.controller.tick()
    assert server.status()["notice"] == (
        "mei names version 9, which MLflow does not have: version 1 goes on"
    )
    assert sum("version 9" in one.getMessage() for one in caplog.records) == 1
    assert server.place.shares == {"1": 1.0}


def test_an_alias_that_is_gone_leaves_what_is_served(server: Server) -> None:
    runs.client(server.record.tracking_uri).delete_registered_model_alias("bayling", "champion")
    server.until(lambda: "no alias 'champion'" in server.controller._notices.get("alias", ""))
    assert server.place.shares == {"1": 1.0}
    server.move_champion("1")
    server.until(lambda: not server.controller._notices)


def test_a_killed_controllers_rollout_goes_on_where_it_was(server: Server) -> None:
    server.place.requests_a_look = 0
    server.move_champion("2")
    server.until(lambda: server.place.shares == {"1": 0.9, "2": 0.1})
    before = server.controller.rollout
    server.killed()
    server.take_over()
    server.until(lambda: server.controller._taken_over)
    assert server.controller.rollout.id == before.id
    assert server.controller.rollout.state is State.canary
    assert server.place.shares == {"1": 0.9, "2": 0.1}
    server.place.requests_a_look = 400
    server.comes_to(State.full, "2")


def test_a_server_that_was_killed_in_a_rollout_begins_with_the_old_version(server: Server) -> None:
    server.place.requests_a_look = 0
    server.move_champion("2")
    server.until(lambda: server.place.shares == {"1": 0.9, "2": 0.1})
    server.killed()
    server.place.applied.clear()
    server.start()
    server.place.requests_a_look = 400
    server.comes_to(State.full, "2")
    assert [shares for shares, _ in server.place.applied][:4] == [
        {"1": 1.0},
        {"1": 1.0, "2": 0.0},
        {"1": 0.9, "2": 0.1},
        {"1": 0.5, "2": 0.5},
    ]


@pytest.mark.parametrize("moved", [False, True])
def test_a_server_does_not_begin_with_a_version_that_was_rolled_back(
    server: Server, moved: bool
) -> None:
    server.place.errors["2"] = 0.5
    server.move_champion("2")
    server.comes_to(State.rolled_back, "2")
    server.tags("2")
    server.killed()
    if moved:  # while no server ran: a new champion, and nobody to protect from it
        server.move_champion("3")
    server.start()
    assert server.place.applied[-1] == ({"3" if moved else "1": 1.0}, ())


def test_a_second_controller_leaves_the_model_to_the_first(server: Server) -> None:
    first = server.controller
    assert server.status()["owner"] == first._owner
    server.take_over()
    second = server.controller
    server.until(lambda: "other" in second._notices)
    server.record.ask(Action.start, "2", "mei")
    for _ in range(20):
        second.tick()
        time.sleep(0.02)
    assert second.rollout.new == "1"
    first.close()
    server.comes_to(State.full, "2")


def test_a_rollout_goes_on_while_mlflow_is_away(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.place.requests_a_look = 0
    server.move_champion("2")
    server.comes_to(State.canary, "2")

    def away(*_: Any, **__: Any) -> Any:
        raise ConnectionError("no route to MLflow")

    with monkeypatch.context() as patch:
        patch.setattr(runs, "client", away)
        server.until(lambda: server.controller._mailbox.trouble is not None)
        server.place.errors["2"] = 0.5
        server.place.requests_a_look = 400
        server.comes_to(State.rolled_back, "2")
        server.until(lambda: server.place.shares == {"1": 1.0})
    assert server.status()["state"] == "rolled_back"
    assert server.tags("2")["rollout.state"] == "rolled_back"


def test_a_larger_share_is_recorded_before_it_is_given(server: Server) -> None:
    recorded: list[tuple[float, float]] = []
    apply = server.place.apply

    def watched(shares: Any, leaving: Any) -> None:
        status = server.record.read().status or {}
        written = Rollout.read(status["rollout"]) if status else None
        if shares.get("2"):
            assert written is not None
            recorded.append((shares["2"], written.share(QUICK)))
        apply(shares, leaving)

    server.place.apply = watched  # type: ignore[method-assign]
    server.move_champion("2")
    server.until(lambda: server.place.shares == {"2": 1.0})
    assert recorded[:3] == [(0.1, 0.1), (0.5, 0.5), (1.0, 1.0)]


def test_who_stops_says_so(server: Server) -> None:
    server.status()
    server.controller.close()
    status = server.record.read().status
    assert status is not None and status["stopped"] is True


def test_a_champion_that_moved_while_nobody_followed_is_compared_where_people_are_served(
    server: Server,
) -> None:
    assert server.status()["serving"] == "1"
    server.killed()
    server.move_champion("2")
    registered = server.record.read()
    alone, _ = beside(registered, "champion", time.time(), running=())
    assert alone.serving == "2", "a server that starts protects nobody"
    recorded, seen = beside(registered, "champion", time.time(), running=("1",))
    assert recorded.serving == "1"
    server.take_over(recorded, seen)
    server.comes_to(State.canary, "2")
    server.comes_to(State.full, "2")


def test_how_things_stand_is_told_in_short_after_every_look(server: Server) -> None:
    told: list[Any] = []
    stop = threading.Event()

    def hear(said: Any) -> None:
        told.append(said)
        stop.set()

    server.place.broken["1"] = "holds no model"
    server.controller.run(stop, hear)
    assert (told[0]["serving"], told[0]["state"]) == ("1", "full")
    assert told[0]["notice"] == "version 1 cannot run: holds no model"
