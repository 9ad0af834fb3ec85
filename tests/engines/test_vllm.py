"""What only the engine over vLLM has. Collected where vLLM is installed: `make test-vllm`."""

from __future__ import annotations

import asyncio
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_model import CONTEXT
from transformers import AutoTokenizer, LlamaForCausalLM

from bayling.engines.options import EngineOptions
from bayling.engines.protocol import EngineFailed, RequestRefused, Sampling
from bayling.engines.transformers import TransformersEngine
from bayling.engines.vllm import VllmEngine
from bayling.errors import UserError

Prompts = list[list[int]]
SMALL = EngineOptions(dtype="float32", max_batch=4, threads=1)


@pytest.fixture(scope="module")
def adapters(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two that change the model beyond recognition, of different ranks."""
    folder = tmp_path_factory.mktemp("adapters")
    for number, (name, rank) in enumerate((("formal", 4), ("medical", 12))):
        torch.manual_seed(number)
        base = LlamaForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
        model = get_peft_model(
            base, LoraConfig(r=rank, target_modules=["q_proj", "v_proj", "down_proj"])
        )
        for key, weight in model.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(weight, std=0.5)
        model.save_pretrained(folder / name)
    return {name: str(folder / name) for name in ("formal", "medical")}


@pytest.fixture(scope="module")
def adapted(model_folder: Path, adapters: dict[str, str]) -> Iterator[VllmEngine]:
    engine = VllmEngine(model_folder, replace(SMALL, adapters=adapters))
    yield engine
    engine.close()


def merged(model_folder: Path, adapter: str, folder: Path) -> TransformersEngine:
    """The model with an adapter's weights in its own."""
    base = LlamaForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    whole = PeftModel.from_pretrained(base, adapter).merge_and_unload()
    shutil.copytree(model_folder, folder)
    whole.save_pretrained(folder)
    return TransformersEngine(folder, SMALL)


def test_adapters_in_one_batch_answer_as_the_merged_models_do(
    adapted: VllmEngine,
    model_folder: Path,
    adapters: dict[str, str],
    prompts: Prompts,
    tmp_path: Path,
) -> None:
    names = [None, "formal", "medical", "formal"]
    samplings = [Sampling(20, adapter=name) for name in names]
    answers = adapted.generate_all([prompts[1]] * 4, samplings)
    plain = TransformersEngine(model_folder, SMALL)
    engines = {None: plain} | {
        name: merged(model_folder, folder, tmp_path / name) for name, folder in adapters.items()
    }
    for name, answer in zip(names, answers, strict=True):
        assert [answer] == engines[name].generate_all([prompts[1]], Sampling(20))
    assert len({tuple(answer.ids) for answer in answers}) == 3

    scores = asyncio.run(adapted.score("adapted", prompts[1], 2, "medical"))
    expected = asyncio.run(engines["medical"].score("merged", prompts[1], 2))
    assert [one.logprob for one in scores] == pytest.approx(
        [one.logprob for one in expected], abs=1e-3
    )
    for engine in engines.values():
        engine.close()


def test_an_answer_holds_to_its_schema(adapted: VllmEngine, model_folder: Path) -> None:
    schema = {
        "type": "object",
        "properties": {"text": {"type": "string", "maxLength": 10}, "sure": {"type": "boolean"}},
        "required": ["text", "sure"],
        "additionalProperties": False,
    }
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    sampling = Sampling(
        200,
        temperature=1.0,
        seed=3,
        stop_ids=(tokenizer.eos_token_id,),
        json_schema=json.dumps(schema),
    )
    [answer] = adapted.generate_all([[5, 6, 7]], sampling)
    assert answer.finish_reason == "stop"
    told = json.loads(tokenizer.decode(answer.ids))
    assert set(told) == {"text", "sure"} and isinstance(told["sure"], bool)


@pytest.mark.parametrize("schema", ['{"type": "no such type"}', "{", '{"$ref": "#/nowhere"}'])
def test_a_schema_that_cannot_be_is_refused_and_harms_nobody(
    adapted: VllmEngine, schema: str
) -> None:
    with pytest.raises(RequestRefused):
        adapted.generate_all([[5, 6, 7]], Sampling(8, json_schema=schema))
    assert len(adapted.generate_all([[5, 6, 7]], Sampling(8))[0].ids) == 8


def test_two_parts_answer_as_one(model_folder: Path, prompts: Prompts) -> None:
    engine = VllmEngine(model_folder, replace(SMALL, tensor_parallel=2))
    plain = TransformersEngine(model_folder, SMALL)
    assert engine.generate_all(prompts[:4], Sampling(12)) == plain.generate_all(
        prompts[:4], Sampling(12)
    )
    engine.close()
    plain.close()


def test_quantised_weights_are_run_as_they_are(
    model_folder: Path, prompts: Prompts, tmp_path: Path
) -> None:
    """Eight bits a weight: scored nearly as the whole weights are."""
    folder = shutil.copytree(model_folder, tmp_path / "int8")
    weights = load_file(folder / "model.safetensors")
    for key in [key for key in weights if "_proj" in key]:
        scale = weights[key].abs().amax(1, keepdim=True) / 127
        weights[key] = (weights[key] / scale).round().to(torch.int8)
        weights[key.replace(".weight", ".weight_scale")] = scale.float()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    eight = {"num_bits": 8, "type": "int", "symmetric": True}
    config["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "ignore": ["lm_head"],
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": {**eight, "strategy": "channel"},
                "input_activations": {**eight, "strategy": "token", "dynamic": True},
            }
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    engine = VllmEngine(folder, replace(SMALL, dtype="bfloat16"))
    plain = TransformersEngine(model_folder, SMALL)
    scores = [asyncio.run(one.score("x", prompts[1], 0)) for one in (engine, plain)]
    likelihoods = [math.fsum(score.logprob for score in text) / len(text) for text in scores]
    assert likelihoods[0] == pytest.approx(likelihoods[1], rel=0.05)
    assert likelihoods[0] != likelihoods[1]
    engine.close()
    plain.close()


def cores(owner: int | None = None) -> set[psutil.Process]:
    """The processes of vLLM's scheduler below a process, this one without any."""
    found = set()
    for one in psutil.Process(owner).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # an earlier test's, which has just ended
            if "EngineCore" in " ".join(one.cmdline()):
                found.add(one)
    return found


def test_processes_that_are_killed_fail_what_is_in_flight_and_the_health(
    model_folder: Path, prompts: Prompts
) -> None:
    others = cores()
    engine = VllmEngine(model_folder, SMALL)

    async def kill_in_between() -> None:
        stream = engine.generate("one", prompts[0], Sampling(3000))
        await anext(stream)
        for process in cores() - others:
            process.kill()
        async for _ in stream:
            pass

    with pytest.raises(EngineFailed, match="EngineDeadError"):
        asyncio.run(asyncio.wait_for(kill_in_between(), 60))
    with pytest.raises(EngineFailed, match="vLLM has ended"):
        engine.health()
    with pytest.raises(EngineFailed):
        engine.generate_all([[5, 6]], Sampling(3))
    engine.close()


def test_closing_fails_what_is_in_flight(model_folder: Path, prompts: Prompts) -> None:
    engine = VllmEngine(model_folder, SMALL)

    async def close_in_between() -> None:
        stream = engine.generate("one", prompts[0], Sampling(3000))
        await anext(stream)
        await asyncio.to_thread(engine.close)
        async for _ in stream:
            pass

    with pytest.raises(EngineFailed, match="closed"):
        asyncio.run(asyncio.wait_for(close_in_between(), 60))
    with pytest.raises(EngineFailed):
        engine.health()


def test_nothing_is_left_running_when_its_process_is_killed(
    model_folder: Path, tmp_path: Path
) -> None:
    script = tmp_path / "owner.py"
    script.write_text(
        "import time\n"
        "from bayling.engines.options import EngineOptions\n"
        "from bayling.engines.vllm import VllmEngine\n"
        "if __name__ == '__main__':\n"
        f"    engine = VllmEngine({str(model_folder)!r}, EngineOptions(threads=1))\n"
        "    print('up', flush=True)\n"
        "    time.sleep(600)\n"
    )
    owner = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    assert any(line == "up\n" for line in owner.stdout)
    family = psutil.Process(owner.pid).children(recursive=True)
    assert cores(owner.pid)
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    deadline = time.monotonic() + 10
    while left := [one for one in family if one.is_running() and one.status() != "zombie"]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (replace(SMALL, context_length=CONTEXT + 1), f"was made for {CONTEXT} positions"),
        (replace(SMALL, quantization="no-such-method"), "no-such-method"),
        (replace(SMALL, device="cuda"), "was built for cpu, and the device is cuda"),
        (replace(SMALL, adapters={"formal": "/nowhere"}), "/nowhere has no adapter_model"),
        (replace(SMALL, tensor_parallel=3), "3"),
        (replace(SMALL, kv_cache_gib=1e-6), "raise serve.kv_cache_gib"),
    ],
)
def test_what_cannot_be_started_is_told_in_a_sentence(
    model_folder: Path, options: EngineOptions, told: str
) -> None:
    with pytest.raises(UserError, match=told) as caught:
        VllmEngine(model_folder, options)
    assert "\n" not in str(caught.value)


def test_an_adapter_of_too_large_a_rank_is_refused(
    model_folder: Path, adapters: dict[str, str], tmp_path: Path
) -> None:
    folder = shutil.copytree(adapters["formal"], tmp_path / "large")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "r": 1024}))
    with pytest.raises(UserError, match="rank 1024"):
        VllmEngine(model_folder, replace(SMALL, adapters={"large": str(folder)}))
