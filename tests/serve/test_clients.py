"""Clients that know OpenAI's API and nothing of this server work as they are."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langchain_openai import ChatOpenAI, OpenAI
from pydantic import SecretStr


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
    # Three in one moment may be more than the two that the server lets wait.
    at_once: RunnableConfig = {"max_concurrency": 2}
    answers = chat.batch(["Good morning", "Good evening", "Good night"], at_once)
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
