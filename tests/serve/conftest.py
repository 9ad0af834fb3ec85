from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_model import make_model
from tiny_server import engine, small

from bayling.scale import ScaleConfig
from bayling.serve import run
from bayling.serve.application import ServedModel


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def server(ray_cluster: None, model_folder: Path) -> Iterator[str]:
    """The base URL of a server with the tiny model."""
    served = ServedModel("sqlite:///unused", "bayling", {"7": str(model_folder)})
    yield run.deploy(small(), served, {"7": 1.0}, ScaleConfig())
    run.shutdown()
    engine.cache_clear()
