"""What only the engine over transformers has."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from tiny_model import DEVICE
from transformers import LlamaForCausalLM

from bayling.engines.loading import load_model
from bayling.engines.memory import bytes_per_token
from bayling.engines.options import EngineOptions
from bayling.engines.protocol import EngineFailed, RequestRefused, Sampling
from bayling.engines.transformers import TransformersEngine
from bayling.errors import UserError

Prompts = list[list[int]]
SMALL = EngineOptions(device=DEVICE, dtype="float32", max_batch=4, threads=1)


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
    engine = TransformersEngine(model_folder, replace(SMALL, device="cpu", dtype="bfloat16"))
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


class Asked:
    def __init__(self, engine: TransformersEngine) -> None:
        self.engine = engine
        self.read = 0
        engine._model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, module: Any, positional: Any, named: dict[str, Any]) -> None:
        self.read += named["input_ids"].numel()

    def answers(self, prompts: Prompts, sampling: Sampling) -> tuple[Prompts, int]:
        """The answers' ids, and the tokens that were read and written for them."""
        before = self.read
        answers = self.engine.generate_all(prompts, sampling)
        return [answer.ids for answer in answers], self.read - before


@pytest.fixture
def asked(model_folder: Path) -> Iterator[Asked]:
    """A fresh engine, and how many tokens its model has read."""
    asked = Asked(TransformersEngine(model_folder, SMALL))
    yield asked
    asked.engine.close()


def generated(alone: LlamaForCausalLM, prompt: list[int], new: int) -> list[int]:
    made = alone.generate(torch.tensor([prompt]), max_new_tokens=new, do_sample=False)
    return made[0, len(prompt) :].tolist()


def test_a_conversation_that_goes_on_is_not_read_again(
    asked: Asked, alone: LlamaForCausalLM
) -> None:
    """Neither what was asked nor what was answered, up to a block of 16."""
    rng = Random(1)
    history: list[int] = []
    for turn in range(4):
        history += [rng.randrange(2, 450) for _ in range(60)]
        ((answer,), read) = asked.answers([history], Sampling(20))
        assert answer == generated(alone, history, 20)
        # Each of the 20 tokens but the first takes a pass of one.
        assert read <= 60 + 19 + (16 if turn else 0)
        history += answer


def test_old_and_new_conversations_go_on_together(asked: Asked, alone: LlamaForCausalLM) -> None:
    rng = Random(2)

    def text(length: int) -> list[int]:
        return [rng.randrange(2, 450) for _ in range(length)]

    begun = [text(40), text(150), text(97), text(33)]
    first, _ = asked.answers(begun, Sampling(9))
    prompts = [
        [*begun[0], *first[0], *text(5)],
        text(70),
        [*begun[1], *first[1], *text(80)],
        [*begun[2][:64], *text(3)],  # an earlier turn, put differently
        [*begun[2], *first[2], *text(1)],
        begun[1],
        text(2),
        [*begun[3], *text(200)],  # little of it is known
    ]
    answers, _ = asked.answers(prompts, Sampling(12))
    assert answers == [generated(alone, prompt, 12) for prompt in prompts]


def test_samples_and_scores_do_not_depend_on_what_was_read_before(asked: Asked) -> None:
    prompt = list(range(5, 105))
    sampling = Sampling(15, temperature=1.0, seed=3, logprobs=2)

    async def scores() -> list[float]:
        stream = asked.engine.generate("one", prompt, sampling)
        return [one.logprob async for chunk in stream for one in chunk.scores or []]

    before, read = asyncio.run(scores()), asked.read
    again = asyncio.run(scores())
    assert asked.read - read <= 15 + 16
    assert len(again) == 15 and again == pytest.approx(before, abs=1e-4)


def test_the_room_for_conversations_is_kept_to(model_folder: Path, alone: LlamaForCausalLM) -> None:
    config = alone.config
    each = bytes_per_token(config, 4)
    room = 2 * config.max_position_embeddings
    engine = TransformersEngine(model_folder, replace(SMALL, kv_cache_gib=each * room / 2**30))
    rng = Random(3)
    length = room // 4 // 3  # of three, the third pushes the first out
    prompts = [[rng.randrange(2, 450) for _ in range(length)] for _ in range(3)]
    for prompt in prompts:
        engine.generate_all([prompt], Sampling(16))
    prefixes = engine._batch._prefixes
    assert 0 < prefixes.tokens <= room // 4
    assert [prefixes.find(prompt) is not None for prompt in prompts] == [False, True, True]
    engine.close()
