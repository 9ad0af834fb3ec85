"""Runs that end, and versions that are found again."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from bayling.errors import UserError
from bayling.registry import models, runs
from bayling.stage import TrackedRun

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def uri(store: Path) -> str:
    return f"sqlite:///{store}/mlflow.db"


@pytest.fixture(scope="module")
def experiment(uri: str, store: Path) -> str:
    return runs.experiment_id(uri, "test", store / "artifacts")


def open_run(uri: str, experiment: str, key: str) -> TrackedRun:
    return runs.open_run(uri, experiment, name="a run", key=key, stage="train")


def test_an_interrupted_run_is_the_one_that_goes_on(uri: str, experiment: str) -> None:
    first = open_run(uri, experiment, "one")

    def status() -> str:
        return str(MlflowClient(uri).get_run(first.run_id).info.status)

    for error, ended in ((KeyboardInterrupt, "KILLED"), (ValueError, "FAILED")):
        with pytest.raises(error), runs.ended_with_the_block(first):
            raise error
        assert status() == ended
        again = open_run(uri, experiment, "one")
        assert again.run_id == first.run_id
        assert status() == "RUNNING"
    with runs.ended_with_the_block(again):
        pass
    assert status() == "FINISHED"
    assert open_run(uri, experiment, "one").run_id != first.run_id
    assert open_run(uri, experiment, "two").run_id != first.run_id


def test_nested_configuration_becomes_flat_parameters() -> None:
    flat = runs.flatten({"train": {"steps": 2}, "data": {"languages": ["en", "zh"]}, "name": "x"})
    assert flat == {"train.steps": "2", "data.languages": "en, zh", "name": "x"}


def test_a_registered_model_is_found_by_alias_and_by_number(
    uri: str, experiment: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("{}")
    tracked = open_run(uri, experiment, "model")
    model_id = models.log_model(tracked, name="tiny", folder=tmp_path, params={})
    assert models.log_model(tracked, name="tiny", folder=tmp_path, params={}) == model_id
    version = models.register(uri, "bayling", model_id, tracked.run_id)
    assert models.register(uri, "bayling", model_id, tracked.run_id).version == version.version
    models.move_alias(version, models.CHAMPION, uri)
    found = models.require_alias(uri, "bayling", models.CHAMPION)
    assert (found.version, found.model_id) == (version.version, model_id)
    assert (models.fetch(uri, "bayling", version.version) / "config.json").exists()
    with pytest.raises(UserError, match="has no alias 'candidate'; it has champion"):
        models.require_alias(uri, "bayling", models.CANDIDATE)
    with pytest.raises(UserError, match="no version 99"):
        models.fetch(uri, "bayling", "99")


def test_what_an_alias_does_not_lead_to_is_told(tmp_path: Path) -> None:
    """MLflow takes an alias away with its version; and a registry in trouble is not one without a
    champion, or the gate would compare a candidate with nothing."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = runs.client(uri)
    client.create_registered_model("bayling")
    client.create_model_version("bayling", source=str(tmp_path))
    client.set_registered_model_alias("bayling", models.CHAMPION, "1")
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("update registered_model_aliases set version = 9")
    with pytest.raises(UserError, match=r"'champion' .* points to version 9, which"):
        models.require_alias(uri, "bayling", models.CHAMPION)
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("drop table registered_model_aliases")
    with pytest.raises(MlflowException, match="no such table"):
        models.by_alias(uri, "bayling", models.CHAMPION)


def test_a_version_whose_files_are_gone_is_told(
    uri: str, experiment: str, store: Path, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("{}")
    tracked = open_run(uri, experiment, "gone")
    model_id = models.log_model(tracked, name="tiny", folder=tmp_path, params={})
    version = models.register(uri, "bayling", model_id, tracked.run_id)
    place = models.fetch(uri, "bayling", version.version)
    place.rename(store / "elsewhere")
    with pytest.raises(UserError, match="moved or deleted"):
        models.fetch(uri, "bayling", version.version)


@pytest.mark.parametrize("address", ["ftp://mlflow", "mlruns", "http://127.0.0.1:1"])
def test_a_store_that_cannot_be_used_is_refused_at_once(address: str) -> None:
    with pytest.raises(UserError, match="tracking"):
        runs.check_reachable(address)


def test_runs_that_begin_together_may_use_the_same_data(uri: str, experiment: str) -> None:
    tracked = [open_run(uri, experiment, f"together {number}") for number in range(6)]
    start = threading.Barrier(len(tracked))

    def log(run: TrackedRun) -> None:
        start.wait()
        runs.log_dataset(run, name="cldr", digest="1f", source="/data", profile={})

    with ThreadPoolExecutor(len(tracked)) as pool:
        list(pool.map(log, tracked))
    for run in tracked:
        [used] = runs.client(uri).get_run(run.run_id).inputs.dataset_inputs
        assert (used.dataset.name, used.dataset.digest) == ("cldr", "1f")


def test_a_store_knows_its_runs_until_they_are_deleted(
    uri: str, experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = open_run(uri, experiment, "known").run_id
    gone = open_run(uri, experiment, "gone").run_id
    MlflowClient(uri).delete_run(gone)
    asked = (uri, known), (uri, gone), (uri, "f" * 32), (uri, None)
    expected = [True, False, False, False]
    assert [runs.exists(*one) for one in asked] == expected
    assert not runs.exists(f"sqlite:///{tmp_path}/other.db", known)
    # A server is asked in MLflow's way, and says the same.
    monkeypatch.setattr(runs, "_in_sqlite", lambda *_: None)
    assert [runs.exists(*one) for one in asked] == expected
