"""`bayling rollout`, beside a real controller, through a real MLflow store."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rollout_place import Place, make_store

from bayling.cli import main
from bayling.commands.rollout import beginning
from bayling.config import compose
from bayling.registry import runs
from bayling.serve.config import ServeConfig
from bayling.serve.rollout.beginning import at_start
from bayling.serve.rollout.config import RolloutConfig
from bayling.serve.rollout.controller import Controller
from bayling.serve.rollout.history import History
from bayling.serve.rollout.plan import Rollout, State
from bayling.serve.rollout.record import Record


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("store"))


@pytest.fixture
def record(made: Path, tmp_path: Path) -> Record:
    shutil.copy(made, tmp_path / "mlflow.db")
    return Record(f"sqlite:///{tmp_path / 'mlflow.db'}", "bayling")


@pytest.fixture
def place(record: Record, tmp_path: Path) -> Iterator[Place]:
    """A server of version 1, followed by a controller."""
    config = ServeConfig(
        rollout=RolloutConfig(
            steps=[0.5],
            min_samples=50,
            min_step_s=0,
            undecided_after_s=1,
            keep_previous_s=60,
            poll_s=0.1,
        )
    )
    place, registered = Place(), record.read()
    controller = Controller(
        place,
        record,
        History(
            record.tracking_uri,
            lambda: runs.experiment_id(record.tracking_uri, "bayling", tmp_path),
            config.rollout,
        ),
        place.ask,
        config,
        at_start(registered, "champion", time.time()),
        registered,
    )
    stop = threading.Event()
    thread = threading.Thread(target=controller.run, args=(stop,))
    thread.start()
    deadline = time.monotonic() + 30
    while record.read().status is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield place
    stop.set()
    thread.join(30)


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def rollout(record: Record, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `bayling rollout …`; returns the exit code and what was said."""

    def run(*words: str) -> tuple[int, str, str]:
        code = main(["rollout", *words, f"tracking_uri={record.tracking_uri}"])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_start_follows_a_version_until_it_has_all_the_traffic(
    rollout: Command, place: Place, record: Record
) -> None:
    code, out, err = rollout("start", "2")
    assert code == 0, err
    assert "version 2 has all the traffic: as good as version 1" in out
    assert "version 2" in err
    assert place.shares == {"1": 0.0, "2": 1.0}
    request = record.read().request
    assert request is not None and "@" in request.who
    code, out, err = rollout("undo")
    assert (code, place.shares) == (0, {"1": 1.0}), err
    assert "version 1 has all the traffic: undone by" in out


def test_start_ends_with_1_for_a_version_that_is_rolled_back(
    rollout: Command, place: Place
) -> None:
    place.errors["2"] = 0.9
    code, _, err = rollout("start", "2")
    assert code == 1
    assert "rolled back, version 1 has all the traffic" in err
    assert "failed requests: 90.0% after 0.0%" in err


def test_start_ends_with_3_where_nothing_can_be_decided_and_names_the_ways_out(
    rollout: Command, place: Place
) -> None:
    place.requests_a_look = 0
    code, _, err = rollout("start", "2")
    assert code == 3
    assert "undecided: version 2 keeps 50% of the traffic" in err
    assert "50 more requests to version 2" in err
    assert "`bayling rollout undo`" in err and "`bayling rollout start 2 --force`" in err
    code, out, _ = rollout("start", "--force", "2")
    assert code == 0 and "not compared" in out


def test_status_shows_and_writes_the_figures(
    rollout: Command, place: Place, tmp_path: Path
) -> None:
    place.errors["2"] = 0.9
    rollout("start", "2")
    code, out, _ = rollout("status", "--json", str(tmp_path / "status.json"))
    assert code == 0
    assert "bayling version 2: rolled back" in out
    assert "worse: failed requests: 90.0% after 0.0%" in out
    assert "100%" in out
    written = json.loads((tmp_path / "status.json").read_text())
    assert written["state"] == "rolled_back"
    assert written["serving"] == "1"
    assert written["rates"]["1"]["errors"] == 0.0
    assert {"shares", "replicas", "since", "reason", "heartbeat", "waits_for"} <= set(written)


@pytest.mark.usefixtures("place")
def test_a_request_need_not_be_waited_for(rollout: Command, record: Record) -> None:
    code, _, err = rollout("start", "--no-wait", "3")
    assert (code, err) == (0, "")
    request = record.read().request
    assert request is not None and request.version == "3"


def test_where_no_server_listens_nothing_is_asked_for(rollout: Command, record: Record) -> None:
    code, _, err = rollout("start", "2")
    assert code == 2
    assert "no server follows rollouts" in err and "`bayling serve`" in err
    assert record.read().request is None
    record.write_status(
        {
            "model": "bayling",
            "owner": "node-1:7",
            "heartbeat": time.time() - 300,
            "heartbeat_every_s": 5.0,
            "stopped": False,
        }
    )
    code, _, err = rollout("undo")
    assert code == 2
    assert "node-1:7 was last heard of 5 min ago" in err
    code, _, err = rollout("undo", "--no-wait")
    assert code == 0 and "the next one takes this request" in err
    assert record.read().request is not None


def test_a_server_begins_with_what_was_recorded_unless_that_was_deleted(record: Record) -> None:
    config = compose([f"tracking_uri={record.tracking_uri}"])
    assert beginning(config)[0].serving == "1"
    mlflow = runs.client(record.tracking_uri)
    mlflow.set_registered_model_alias("bayling", "champion", "3")
    back = Rollout(new="3", old="2", state=State.rolled_back)
    record.write_status({"alias": "3", "rollout": back.write()})
    assert beginning(config)[0] == back
    mlflow.delete_model_version("bayling", "2")
    assert beginning(config)[0].serving == "3"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("start", "9"), "no version 9 of model 'bayling'"),
        (("start", "v2"), "give its number in MLflow"),
        (("start", "2", "3"), "one version at a time"),
        (("start", "serve.alias=challenger"), "has no alias 'challenger'"),
        (("status", "registered_model=other"), "no registered model 'other'"),
        (("status",), "nobody has served 'bayling'"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    rollout: Command, words: tuple[str, ...], sentence: str
) -> None:
    code, _, err = rollout(*words)
    assert code == 2
    assert sentence in err and len(err.strip().splitlines()) == 1
