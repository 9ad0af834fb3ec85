"""The model that a candidate would replace, from an MLflow server and from a local store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow_server import mlflow_server, register

from bayling.config import ScaleConfig
from bayling.evaluate import systems
from bayling.registry import models, runs
from bayling.stage import Context, TrackedRun


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with a champion."""
    folder = tmp_path_factory.mktemp("mlflow")
    with mlflow_server(folder) as uri:
        _champion(uri, tmp_path_factory.mktemp("model"))
        yield uri


def _champion(uri: str, folder: Path) -> None:
    (folder / "bayling.json").write_text("{}", "utf-8")
    version = models.by_version(uri, "bayling", register(uri, folder))
    models.move_alias(version, models.CHAMPION, uri)


def _context(uri: str, folder: Path) -> Context:
    tracked = TrackedRun(uri, "0", "run")
    return Context(
        folder=folder,
        inputs={},
        fingerprint="f",
        seed=0,
        scale=ScaleConfig(),
        tracked=tracked,
        report=lambda *_: None,
        note=lambda _: None,
    )


def test_a_champion_of_a_server_lies_where_every_node_sees_it(uri: str, tmp_path: Path) -> None:
    context = _context(uri, tmp_path)
    left = tmp_path / "fetched" / "bayling-1.part" / "half"
    left.parent.mkdir(parents=True)
    left.touch()  # of a command that was killed meanwhile
    champion = systems.replaced(context, "another model's id")
    assert champion is not None and champion.folder is not None
    assert champion.folder.is_relative_to(context.folder)
    assert [path.name for path in champion.folder.iterdir()] == ["bayling.json"]
    (champion.folder / "mark").touch()
    again = systems.replaced(context, "another model's id")
    assert again is not None and again.folder is not None
    assert (again.folder / "mark").exists(), "it is not fetched twice"
    systems.let_go(context)
    assert list(tmp_path.iterdir()) == []


def test_a_champion_of_a_local_store_is_read_where_it_lies(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    runs.experiment_id(store, "bayling", tmp_path / "artifacts")
    (tmp_path / "model").mkdir()
    _champion(store, tmp_path / "model")
    (tmp_path / "stage").mkdir()
    context = _context(store, tmp_path / "stage")
    champion = systems.replaced(context, "another model's id")
    assert champion is not None and champion.folder is not None
    assert (champion.folder / "bayling.json").exists()
    assert not champion.folder.is_relative_to(context.folder)
    systems.let_go(context)
    assert (champion.folder / "bayling.json").exists()
