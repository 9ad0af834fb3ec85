"""A server over vLLM: adapters as models, schemas, and replicas whose vLLM dies.

Collected where vLLM is installed: `make test-vllm`.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psutil
import pytest
import torch
from openai import OpenAI
from peft import LoraConfig, get_peft_model
from running import free_port
from tiny_model import make_model
from transformers import LlamaForCausalLM

from bayling.engines.options import EngineName
from bayling.scale import ScaleConfig
from bayling.serve import run
from bayling.serve.application import ServedModel
from bayling.serve.config import Dtype, ServeConfig

HELLO: list[dict[str, Any]] = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def url(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two replicas of a model with the adapter `formal`."""
    folder = make_model(tmp_path_factory.mktemp("served") / "7")
    base = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    for key, weight in model.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(weight, std=0.5)
    model.save_pretrained(folder.parent / "formal")
    config = ServeConfig(
        port=free_port(),
        engine=EngineName.vllm,
        dtype=Dtype.float32,
        adapters=[f"formal:{folder.parent / 'formal'}"],
        max_batch=8,
        min_replicas=2,
        max_replicas=2,
        max_new_tokens=40,
        startup_timeout_s=300,
    )
    served = ServedModel("sqlite:///unused", "bayling", {"7": str(folder)})
    yield run.deploy(config, served, {"7": 1.0}, ScaleConfig())
    run.shutdown()


@pytest.fixture(scope="module")
def client(url: str) -> OpenAI:
    return OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def text(client: OpenAI, model: str) -> str:
    answer = client.chat.completions.create(model=model, messages=HELLO, max_tokens=12)
    return str(answer.choices[0].message.content)


def test_an_adapter_is_a_model_of_its_own(client: OpenAI) -> None:
    models = {model.id: model.model_dump() for model in client.models.list()}
    assert list(models) == ["bayling", "bayling:formal"]
    assert models["bayling:formal"]["parent"] == "bayling"
    assert models["bayling"]["parent"] is None
    answers = {name: text(client, name) for name in ("bayling", "bayling:formal")}
    assert answers["bayling"] != answers["bayling:formal"]
    assert text(client, "bayling@7:formal") == answers["bayling:formal"]
    assert text(client, "bayling@7") == answers["bayling"]


@pytest.mark.parametrize("name", ["bayling:casual", "bayling@8:formal", "other:formal", "bayling:"])
def test_an_unknown_adapter_is_told_the_known_ones(url: str, name: str) -> None:
    body = {"model": name, "messages": HELLO}
    response = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60)
    assert response.status_code == 404
    assert "'bayling:formal'" in response.json()["error"]["message"]


def test_an_answer_holds_to_its_schema(client: OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"sure": {"type": "boolean"}},
        "required": ["sure"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model="bayling",
        messages=HELLO,  # type: ignore[arg-type]
        max_tokens=30,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": schema, "strict": True},
        },
    )
    assert answer.choices[0].finish_reason == "stop"
    assert isinstance(json.loads(str(answer.choices[0].message.content))["sure"], bool)


def test_a_prompt_is_scored_with_its_adapter(client: OpenAI) -> None:
    def scores(model: str) -> list[float]:
        answer = client.completions.create(
            model=model, prompt="Hello there", max_tokens=0, echo=True, logprobs=1
        )
        logprobs = answer.choices[0].logprobs
        assert logprobs is not None and logprobs.token_logprobs is not None
        return [value for value in logprobs.token_logprobs if value is not None]

    assert scores("bayling") != scores("bayling:formal")


def test_requests_go_on_when_the_vllm_under_them_is_killed(url: str) -> None:
    """Two hundred requests, greedy and streamed or not, while one replica's vLLM is killed."""
    answers: Counter[str] = Counter()
    begun = threading.Semaphore(0)

    def ask(number: int) -> str:
        body = {"model": "bayling", "messages": HELLO, "max_tokens": 40, "stream": number % 2 == 0}
        begun.release()
        response = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=180)
        response.raise_for_status()
        if not body["stream"]:
            return str(response.json()["choices"][0]["message"]["content"])
        lines = [line for line in response.text.splitlines() if line.startswith("data: ")]
        assert lines.pop() == "data: [DONE]", lines[-1]
        deltas = [json.loads(line[6:])["choices"][0]["delta"] for line in lines]
        return "".join(delta.get("content", "") for delta in deltas)

    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask, number) for number in range(200)]
        for _ in range(40):
            begun.acquire()
        cores = [one for one in psutil.process_iter(["name"]) if "EngineCore" in one.info["name"]]
        assert len(cores) >= 2
        cores[0].kill()
        answers.update(one.result() for one in asked)
    assert sum(answers.values()) == 200
    assert len(answers) == 1, answers
    deadline = time.monotonic() + 120
    while len([one for one in psutil.process_iter(["name"]) if "EngineCore" in one.name()]) < 2:
        assert time.monotonic() < deadline, "the replica was not replaced"
        time.sleep(1)
