"""Clients that know OpenAI's API and nothing of this server work as they are."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_openai import ChatOpenAI, OpenAI
from pydantic import SecretStr

TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list:
  - metric: acc
  - metric: acc_norm
"""
WORDS = [
    *("Guten Morgen", "Good morning", "April", "meters", "hours", "2037", "17", "the", "of", "and"),
    *("中国", "日本", "नमस्ते", "दुनिया", "مرحبا", "people", "translate", "into", "Chinese"),
]


@pytest.fixture(scope="module")
def chat(server: str) -> ChatOpenAI:
    return ChatOpenAI(
        base_url=f"{server}/v1",
        api_key=SecretStr("none"),
        model="bayling",
        max_completion_tokens=8,
        max_retries=0,
    )


def test_langchain_asks_streams_and_goes_on(chat: ChatOpenAI) -> None:
    asked = HumanMessage("Translate into German: Good morning")
    answer = chat.invoke([asked])
    assert isinstance(answer, AIMessage) and answer.text
    assert answer.usage_metadata is not None and answer.usage_metadata["output_tokens"] == 8
    pieces = [piece.text for piece in chat.stream([asked])]
    assert "".join(pieces) == answer.text and len(pieces) > 1
    assert chat.invoke([asked, AIMessage(answer.text), HumanMessage("Now in Chinese.")]).text


def test_langchain_asks_many_at_a_time_and_for_log_probabilities(chat: ChatOpenAI) -> None:
    answers = chat.batch(["Good morning", "Good evening", "Good night"])
    assert all(answer.text for answer in answers)
    told = chat.bind(logprobs=True, top_logprobs=2).invoke("Good morning")
    logprobs = told.response_metadata["logprobs"]["content"]
    assert len(logprobs) == 8 and len(logprobs[0]["top_logprobs"]) == 2


def test_langchain_completes_text(server: str) -> None:
    model = OpenAI(
        base_url=f"{server}/v1", api_key=SecretStr("none"), model="bayling", max_tokens=8
    )
    assert model.invoke("Good morning")


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_curl_streams(server: str) -> None:
    body = {
        "model": "bayling",
        "messages": [{"role": "user", "content": "Good morning"}],
        "max_tokens": 8,
        "stream": True,
    }
    told = subprocess.run(
        [
            *("curl", "-sN", f"{server}/v1/chat/completions"),
            *("-H", "content-type: application/json", "-d", json.dumps(body)),
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    lines = [line for line in told.split("\n") if line]
    assert lines[-1] == "data: [DONE]"
    assert all(line.startswith("data: {") for line in lines[:-1])


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A multiple-choice task of sixty questions, whose answers differ in length."""
    folder = tmp_path_factory.mktemp("task")
    rng = random.Random(3)
    with (folder / "questions.jsonl").open("w", encoding="utf-8") as file:
        for _ in range(60):
            question = " ".join(rng.choices(WORDS, k=rng.randrange(3, 12)))
            choices = [" ".join(rng.choices(WORDS, k=rng.randrange(1, 5))) for _ in range(4)]
            row = {"question": question, "choices": choices, "answer": rng.randrange(4)}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    task = TASK.format(name="choose", file=folder / "questions.jsonl")
    (folder / "choose.yaml").write_text(task, "utf-8")
    return folder


@pytest.mark.parametrize("batch_size", [1, 16])
def test_lm_eval_finds_the_accuracy_of_its_own_backend_over_http(
    server: str, model_folder: Path, task: Path, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "HF_HOME", str(task / "home"))
    monkeypatch.setitem(os.environ, "OPENAI_API_KEY", "none")
    import lm_eval
    from lm_eval.tasks import TaskManager

    tasks = TaskManager(include_path=str(task), include_defaults=False)

    def evaluate(model: str, arguments: dict[str, Any]) -> tuple[dict[str, float], list[float]]:
        told = lm_eval.simple_evaluate(
            model=model,
            model_args=arguments,
            tasks=["choose"],
            task_manager=tasks,
            batch_size=batch_size,
            device="cpu",
            bootstrap_iters=0,
            verbosity="ERROR",
        )
        scores = told["results"]["choose"]
        samples = sorted(told["samples"]["choose"], key=lambda sample: sample["doc_id"])
        likelihoods = [float(one[0]) for sample in samples for one in sample["filtered_resps"]]
        return {key: scores[f"{key},none"] for key in ("acc", "acc_norm")}, likelihoods

    own, own_likelihoods = evaluate("hf", {"pretrained": str(model_folder), "dtype": "float32"})
    served, likelihoods = evaluate(
        "local-completions",
        {
            "base_url": f"{server}/v1/completions",
            "model": "bayling",
            "tokenizer": str(model_folder),
            "tokenizer_backend": "huggingface",
            "tokenized_requests": True,
            "num_concurrent": 1,
        },
    )
    assert served == own
    assert 0 < own["acc"] < 1
    assert likelihoods == pytest.approx(own_likelihoods, abs=1e-3)
