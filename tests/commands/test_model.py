"""`bayling model …`: what it says, and its exit codes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_hub
from tiny_hub import COMMIT, Hub
from tiny_weights import pickled_folder, safetensors_folder

from bayling.cli import main
from bayling.config import compose
from bayling.pipeline import Pipeline

pytestmark = pytest.mark.unit


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    for name in ("HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-login"))
    with tiny_hub.running() as running:
        running.repositories["owner/llama"] = safetensors_folder(tmp_path / "repository")
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


def _fails(capsys: pytest.CaptureFixture[str], *argv: object, code: int = 2) -> str:
    """Run a command that must be refused; returns its one sentence."""
    assert main(["model", *map(str, argv)]) == code
    lines = capsys.readouterr().err.strip().splitlines()
    [said] = [line for line in lines if line.startswith("bayling: ")]
    assert lines[-1] == said, "the sentence is not the last thing said"
    return said


def test_fetch_says_what_came_and_how_to_pin_it(
    capsys: pytest.CaptureFixture[str], hub: Hub, tmp_path: Path
) -> None:
    to = tmp_path / "llama"
    assert main(["model", "fetch", "hf://owner/llama", "--to", str(to)]) == 0
    said = capsys.readouterr().out
    assert f"main was commit {COMMIT}" in said
    assert f"model.revision={COMMIT}" in said
    assert "licence llama2" in said
    assert main(["model", "fetch", "--verify", "--to", str(to)]) == 0
    assert "every sha256 as recorded" in capsys.readouterr().out
    (to / "config.json").write_text("{}")
    assert "config.json has 2 bytes" in _fails(capsys, "fetch", "--verify", "--to", to, code=1)


def test_fetch_what_a_configuration_names(
    capsys: pytest.CaptureFixture[str], hub: Hub, tmp_path: Path
) -> None:
    overrides = [
        "model=llama-2-7b-chat",
        f"models_dir={tmp_path}/models",
        "model.source=hf://owner/llama",
        f"model.revision={COMMIT}",
    ]
    assert main(["model", "fetch", *overrides]) == 0
    record = json.loads((tmp_path / "models" / "llama-2-7b-chat" / "source.json").read_text())
    assert record["revision"] == COMMIT
    assert record["licence"] == "llama2"
    assert main(["model", "fetch", "--verify", *overrides]) == 0


def test_a_pipeline_brings_its_base(hub: Hub, tmp_path: Path) -> None:
    """Only where a stage reads it."""
    from running import Recorder

    config = compose(
        [
            "recipe=bayling-7b",
            f"output_dir={tmp_path}/outputs",
            f"models_dir={tmp_path}/models",
            "model.source=hf://owner/llama",
            f"model.revision={COMMIT}",
        ]
    )
    pipeline = Pipeline(config, Recorder())
    pipeline._bring_base(["evaluate", "promote", "serve"])
    assert not (tmp_path / "models").exists()
    pipeline._bring_base(["data", "train"])
    assert (tmp_path / "models" / "llama-7b" / "source.json").exists()


def test_convert_and_delta(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pickled_folder(tmp_path / "old")
    safetensors_folder(tmp_path / "model", seed=1)

    def run(*argv: object) -> str:
        assert main(["model", *map(str, argv)]) == 0
        return capsys.readouterr().out

    said = run("convert", tmp_path / "old", tmp_path / "base")
    assert "2 rotary_emb.inv_freq left out" in said
    assert "same ids as SentencePiece" in said
    base = ["--base", tmp_path / "base"]
    said = run("delta", "make", *base, "--model", tmp_path / "model", "--to", tmp_path / "d")
    assert "gives the model back bit for bit" in said
    said = run("delta", "apply", *base, "--delta", tmp_path / "d", "--to", tmp_path / "t")
    assert "bit for bit the model" in said


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["fetch", "recipe=smoke"], "model 'tiny' has no base weights: choose one that has"),
        (["fetch", "recipe=bayling-7c"], "did you mean bayling-7b?"),
        (["fetch", "hf://owner/llama"], "say where hf://owner/llama is to lie: --to FOLDER"),
        (["fetch", "--to", "x"], "name one SOURCE with --to"),
        (["fetch", "model=llama-7b", "--revision", "main"], "model.revision=REV"),
        (["fetch", "model=llama-7b", "model.source=null"], "model.source is not set"),
        (["fetch", "--verify", "--to", "/nowhere"], "/nowhere does not exist"),
        (["convert", "/nowhere", "x"], "there is no folder /nowhere"),
        (["convert", "/nowhere", "x", "--shard-gb", "0"], "--shard-gb 0 must be more than 0"),
        (
            ["delta", "apply", "--base", "/nowhere", "--delta", "/no", "--to", "x"],
            "there is no folder /nowhere",
        ),
    ],
)
def test_wrong_usage_is_one_sentence(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    argv: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sentence in _fails(capsys, *argv)
    assert not list(tmp_path.iterdir())
