"""What a node fetches from a real MLflow server, and what stays of it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlflow_server import mlflow_server, register

from bayling.errors import UserError
from bayling.registry import models
from bayling.serve import model_cache

NAMES = {"config.json", "model.safetensors", "tokenizer.json"}


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with six versions of a model."""
    folder = tmp_path_factory.mktemp("mlflow")
    with mlflow_server(folder) as uri:
        for number in range(6):
            model = folder / f"model-{number}"
            model.mkdir()
            for name in NAMES:
                (model / name).write_text(f"{name} of {number}")
            (model / "adapter").mkdir()
            (model / "adapter" / "notes.txt").write_text("below")
            register(uri, model)
        yield uri


def fetch(cache: Path, uri: str, version: str, weights: bool = True) -> Path:
    return model_cache.folder(cache, uri, "bayling", version, weights=weights)


def test_a_version_is_fetched_once_and_whole_however_many_ask(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched, real = [], models.fetch

    def counting(*arguments: object, **named: object) -> Path:
        fetched.append(threading.get_ident())
        return real(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(models, "fetch", counting)
    with ThreadPoolExecutor(4) as pool:
        places = list(pool.map(lambda _: fetch(tmp_path, uri, "1"), range(4)))
    assert len(set(places)) == len(fetched) == 1
    assert {path.name for path in places[0].iterdir()} == {*NAMES, "adapter"}
    assert (places[0] / "model.safetensors").read_text() == "model.safetensors of 0"
    assert fetch(tmp_path, uri, "1", weights=False) == places[0], "it has all that is wanted"
    left = [path.name for path in places[0].parent.iterdir()]
    assert left == ["1"], "nothing but the version stays"


def test_the_api_fetches_no_weights(uri: str, tmp_path: Path) -> None:
    place = fetch(tmp_path, uri, "2", weights=False)
    assert {path.name for path in place.iterdir()} == {
        "config.json",
        "tokenizer.json",
        "adapter",
    }
    assert (place / "adapter" / "notes.txt").read_text() == "below"
    assert (fetch(tmp_path, uri, "2") / "model.safetensors").exists()


def test_what_was_left_by_a_killed_process_is_fetched_anew(uri: str, tmp_path: Path) -> None:
    place = fetch(tmp_path, uri, "1")
    half = place.with_name(".2.part") / "artifacts"
    half.mkdir(parents=True)
    (half / "config.json").write_text("half of")
    assert (fetch(tmp_path, uri, "2") / "config.json").read_text() == "config.json of 1"


def test_the_versions_used_last_stay(uri: str, tmp_path: Path) -> None:
    for age, version in enumerate("1234"):
        os.utime(fetch(tmp_path, uri, version), (age, age))
    fetch(tmp_path, uri, "1")
    kept = fetch(tmp_path, uri, "5").parent
    assert {path.name for path in kept.iterdir()} == {"1", "3", "4", "5"}


def test_a_version_that_is_not_there_is_a_sentence(uri: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no version 99"):
        fetch(tmp_path, uri, "99")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be kept in .*: give the cache more room"):
        fetch(tmp_path / "file", uri, "1")
