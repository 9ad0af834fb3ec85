"""What the driver does: what is refused before a worker is started, and with whom it is started."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from running import Recorder
from tiny_model import make_model

from bayling.config import compose
from bayling.errors import UserError
from bayling.pipeline import Pipeline
from bayling.stage import write_json
from bayling.train import run
from bayling.train.settings import BEATS


@pytest.fixture
def prepared(ray_cluster: None, tmp_path: Path) -> list[str]:
    """Overrides of a training from a folder, whose data is there."""
    base = make_model(tmp_path / "base")
    overrides = ["recipe=smoke", f"output_dir={tmp_path / 'out'}", f"model.base={base}"]
    overrides += ["model.context_length=256", "train.steps=2"]
    Pipeline(compose(overrides), Recorder()).run_stage("data")
    return overrides


def refused(overrides: list[str]) -> str:
    pipeline = Pipeline(compose(overrides), Recorder())
    with pytest.raises(UserError) as error:
        pipeline.run_stage("train")
    assert not (pipeline.folder("train") / BEATS).exists(), "no worker was started"
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_vocabulary_that_is_larger_than_the_embedding(
    prepared: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "base" / "config.json"
    write_json(path, {**json.loads(path.read_text()), "vocab_size": 300})
    said = refused(prepared)
    assert "tokens, the embedding 300 rows: take the tokenizer the model was made with" in said


def test_a_model_that_does_not_fit(prepared: list[str], tmp_path: Path) -> None:
    path = tmp_path / "base" / "config.json"
    write_json(path, {**json.loads(path.read_text()), "num_hidden_layers": 3_000_000})
    said = refused(prepared)
    assert "the model does not fit: " in said
    assert "the ways out are" in said


def test_a_checkpoint_of_something_else(prepared: list[str]) -> None:
    """Found by the driver, before the weights are read."""
    pipeline = Pipeline(compose(prepared), Recorder())
    pipeline.run_stage("train")
    folder = pipeline.folder("train")
    [newest] = sorted((folder / "checkpoints").glob("step-*"))[-1:]
    (folder / "manifest.json").unlink()
    path = newest / "progress.json"
    progress = json.loads(path.read_text())
    shapes = {**progress["shapes"], "model.norm.weight": [999]}
    for changed, reason in (
        ({"fingerprint": "x"}, "another configuration"),
        ({"shapes": shapes}, "another model (model.norm.weight differs)"),
    ):
        path.write_text(json.dumps({**progress, **changed}))
        with pytest.raises(UserError) as error:
            pipeline.run_stage("train")
        assert reason in str(error.value)
        assert "set another output_dir" in str(error.value)
        assert not list((folder / BEATS).glob("*")), "no worker was started"


def test_where_there_is_no_dashboard_nobody_waits_for_a_guard_that_asks_it(
    ray_cluster: None,
) -> None:
    from ray.train.torch import TorchTrainer

    def callbacks(kind: type[TorchTrainer]) -> set[str]:
        return {type(one).__name__ for one in kind(lambda: None)._create_default_callbacks()}

    left_out = callbacks(TorchTrainer) - callbacks(run._kind_of_trainer())
    assert left_out == {"PlacementGroupCleanerCallback"}
