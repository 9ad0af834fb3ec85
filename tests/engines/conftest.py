from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_model import make_model

from bayling.engines.transformers import TransformersEngine


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def engine(model_folder: Path) -> Iterator[TransformersEngine]:
    engine = TransformersEngine(model_folder, dtype="float32", max_batch=4, threads=1)
    yield engine
    engine.close()
