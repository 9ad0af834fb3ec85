"""A model folder that is not whole is told by the file that it lacks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bayling.engines.folder import check_model_folder
from bayling.errors import UserError

pytestmark = pytest.mark.unit


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model in two files, as far as the check can tell."""
    (tmp_path / "config.json").write_text("{}")
    files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for file in files:
        (tmp_path / file).write_bytes(b"weights")
    weight_map = {"a": files[0], "b": files[1], "c": files[1]}
    index = {"metadata": {}, "weight_map": weight_map}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    return tmp_path


def test_a_whole_folder_passes(folder: Path) -> None:
    check_model_folder(folder)


@pytest.mark.parametrize(
    ("break_it", "told"),
    [
        (lambda folder: shutil.rmtree(folder), "no config.json"),
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (
            lambda folder: [one.unlink() for one in folder.glob("*.safetensors")],
            "no .safetensors file",
        ),
        (
            lambda folder: (folder / "model-00002-of-00002.safetensors").unlink(),
            "1 of its 2 files of weights are missing, such as model-00002-of-00002.safetensors",
        ),
        (
            lambda folder: (folder / "model.safetensors.index.json").write_text("{"),
            "model.safetensors.index.json cannot be read",
        ),
    ],
)
def test_what_is_missing_is_named(
    folder: Path, break_it: Callable[[Path], object], told: str
) -> None:
    break_it(folder)
    with pytest.raises(UserError, match=told):
        check_model_folder(folder)
