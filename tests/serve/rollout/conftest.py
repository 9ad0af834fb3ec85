from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from rollout_place import make_store

from bayling.serve.rollout.record import Record


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("store"))


@pytest.fixture
def record(store: Path, tmp_path: Path) -> Record:
    """The record of a model in a real MLflow store of the test's own."""
    shutil.copy(store, tmp_path / "mlflow.db")
    return Record(f"sqlite:///{tmp_path / 'mlflow.db'}", "bayling")
