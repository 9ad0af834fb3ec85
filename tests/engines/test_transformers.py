"""What only the engine over transformers has."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bayling.engines.loading import load_model
from bayling.engines.options import EngineOptions
from bayling.engines.protocol import EngineFailed, RequestRefused, Sampling
from bayling.engines.transformers import TransformersEngine
from bayling.errors import UserError

Prompts = list[list[int]]
SMALL = EngineOptions(dtype="float32", max_batch=4, threads=1)


def test_a_failed_step_fails_its_requests_and_the_engine_goes_on(
    model_folder: Path, prompts: Prompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = TransformersEngine(model_folder, SMALL)
    before = engine.generate_all(prompts[:3], Sampling(6))
    step = engine._batch.step

    def broken() -> Any:
        monkeypatch.setattr(engine._batch, "step", step)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(engine._batch, "step", broken)
    with pytest.raises(EngineFailed, match="out of memory"):
        engine.generate_all(prompts[:3], Sampling(6))
    engine.health()
    assert engine.generate_all(prompts[:3], Sampling(6)) == before
    engine.close()


def test_an_engine_that_only_fails_says_so_when_asked_for_its_health(
    model_folder: Path, prompts: Prompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = TransformersEngine(model_folder, SMALL)

    def broken(*_: Any) -> Any:
        raise RuntimeError("device lost")

    monkeypatch.setattr(engine._batch, "add", broken)
    for _ in range(3):
        engine.health()
        with pytest.raises(EngineFailed):
            engine.generate_all(prompts[:1], Sampling(6))
    with pytest.raises(EngineFailed, match="device lost"):
        engine.health()
    engine.close()


def test_closing_fails_what_is_in_flight(model_folder: Path, prompts: Prompts) -> None:
    engine = TransformersEngine(model_folder, replace(SMALL, max_batch=2))

    async def close_in_between() -> None:
        stream = engine.generate("one", prompts[0], Sampling(3000))
        await anext(stream)
        engine.close()
        async for _ in stream:
            pass

    with pytest.raises(EngineFailed, match="closed"):
        asyncio.run(close_in_between())
    with pytest.raises(EngineFailed):
        engine.health()


def test_bfloat16_generates_on_a_cpu(model_folder: Path, prompts: Prompts) -> None:
    engine = TransformersEngine(model_folder, replace(SMALL, dtype="bfloat16"))
    answers = engine.generate_all(prompts, Sampling(12, temperature=0.5, seed=1))
    assert [len(answer.ids) for answer in answers] == [12] * len(prompts)
    engine.close()


def test_pickled_weights_are_never_loaded(model_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(model_folder, tmp_path / "pickled")
    weights = folder / "model.safetensors"
    weights.rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="safetensors"):
        load_model(folder, "cpu", "auto")


@pytest.mark.parametrize(
    ("options", "key"),
    [
        (EngineOptions(adapters={"formal": "somewhere"}), "serve.adapters"),
        (EngineOptions(tensor_parallel=2), "serve.tensor_parallel"),
        (EngineOptions(quantization="fp8"), "serve.quantization"),
    ],
)
def test_what_only_vllm_can_do_is_refused_by_key(
    model_folder: Path, options: EngineOptions, key: str
) -> None:
    with pytest.raises(UserError, match=f"{key} needs the engine vLLM"):
        TransformersEngine(model_folder, options)


def test_a_json_schema_is_refused_and_says_what_can(model_folder: Path) -> None:
    engine = TransformersEngine(model_folder, SMALL)
    with pytest.raises(RequestRefused, match="engine=vllm"):
        engine.generate_all([[5, 6]], Sampling(4, json_schema='{"type": "object"}'))
    engine.close()
