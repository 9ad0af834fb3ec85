from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bayling import __version__
from bayling.data.config import DataConfig
from bayling.errors import UserError
from bayling.scale import Device, ScaleConfig
from bayling.stage import MANIFEST, Context, Manifest, TrackedRun, fingerprint, total, write_json
from bayling.train.config import Precision, TrainConfig

pytestmark = pytest.mark.unit


def test_a_fingerprint_is_equal_for_equal_content_and_changes_with_any_value() -> None:
    config = TrainConfig()
    same = fingerprint(config, {"data": "abc"})
    assert same == fingerprint(TrainConfig(), {"data": "abc"})
    assert len(same) == 16
    assert same != fingerprint(config, {"data": "abd"})
    assert same != fingerprint(replace(config, learning_rate=1e-3), {"data": "abc"})
    assert same != fingerprint(replace(config, precision=Precision.fp32), {"data": "abc"})


def test_a_fingerprint_does_not_depend_on_the_order_of_keys() -> None:
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert fingerprint([1, 2]) != fingerprint([2, 1])


def test_a_manifest_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    manifest = Manifest(
        stage="data",
        fingerprint="0123456789abcdef",
        config={"languages": ["en", "zh"]},
        inputs={},
        counts={"conversations": 3},
        dropped={"语言": 1},
        run_id="run",
        seconds=1.5,
    )
    manifest.write(tmp_path)
    assert Manifest.read(tmp_path) == manifest
    assert manifest.code_version == __version__
    assert [path.name for path in tmp_path.iterdir()] == [MANIFEST]


def test_a_folder_without_a_manifest_is_an_unfinished_one(tmp_path: Path) -> None:
    assert Manifest.read(tmp_path) is None


@pytest.mark.parametrize("text", ["{", "[]", '{"stage": "data"}', '{"no_field": 1}'])
def test_a_broken_manifest_is_refused_with_the_folder_to_remove(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_text(text, "utf-8")
    with pytest.raises(UserError, match=f"not a manifest .*remove {tmp_path}"):
        Manifest.read(tmp_path)


def test_a_manifest_of_another_schema_version_is_refused(tmp_path: Path) -> None:
    Manifest("data", "f", {}, {}, schema_version=99).write(tmp_path)
    with pytest.raises(UserError, match=r"schema version 99.*run the stage again"):
        Manifest.read(tmp_path)


def test_a_json_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    write_json(path, {"chrf": 1})
    with pytest.raises(TypeError):
        write_json(path, {"chrf": object()})
    assert path.read_text("utf-8") == '{\n  "chrf": 1\n}\n'


def test_a_stage_records_its_config_as_plain_json_and_what_it_read(tmp_path: Path) -> None:
    upstream = Manifest("data", "0123", {}, {})
    context = Context(
        folder=tmp_path,
        inputs={"data": (tmp_path / "data", upstream)},
        fingerprint="4567",
        seed=1,
        scale=ScaleConfig(device=Device.cuda),
        tracked=TrackedRun("sqlite:///unused", "bayling", "run-7"),
        report=lambda what, done, of: None,
        note=lambda text: None,
    )
    manifest = context.manifest("train", TrainConfig())
    assert context.upstream("data") == (tmp_path / "data", upstream)
    assert manifest.inputs == {"data": "0123"}
    assert manifest.run_id == "run-7"
    assert manifest.fingerprint == "4567"
    assert manifest.config["precision"] == "auto"
    assert context.manifest("data", DataConfig()).config["languages"] == ["en", "zh", "de"]


def test_counts_are_added_up_by_key() -> None:
    assert total([{"b": 1, "a": 2}, {"b": 3}, {}]) == {"a": 2, "b": 4}
    assert list(total([{"b": 1}, {"a": 1}])) == ["a", "b"]
