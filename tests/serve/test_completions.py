"""Text completions, log-probabilities and several answers, over real HTTP."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from bayling.engines.options import EngineOptions
from bayling.engines.protocol import Scored
from bayling.engines.transformers import TransformersEngine
from bayling.model_folder import load_chat

TEXT = "Der 21. März 2024 war ein Donnerstag. 今天"
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def ids(model_folder: Path) -> list[int]:
    return list(load_chat(model_folder, "bayling").tokenizer(TEXT)["input_ids"])


@pytest.fixture(scope="module")
def expected(model_folder: Path, ids: list[int]) -> list[Scored]:
    """The scores of the text, from an engine in this process."""
    engine = TransformersEngine(model_folder, EngineOptions(threads=1))
    scores = asyncio.run(engine.score("expected", ids, 2))
    engine.close()
    return scores


def complete(http: httpx.Client, **fields: Any) -> dict[str, Any]:
    response = http.post("/v1/completions", json={"model": "bayling", **fields})
    assert response.is_success, response.text
    answer: dict[str, Any] = response.json()
    return answer


def streamed(http: httpx.Client, path: str, **fields: Any) -> list[dict[str, Any]]:
    body = {"model": "bayling", "stream": True, **fields}
    with http.stream("POST", path, json=body) as response:
        lines = [line for line in response.iter_lines() if line.startswith("data: ")]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line[6:]) for line in lines[:-1]]


@pytest.mark.parametrize("as_ids", [False, True])
def test_echo_and_logprobs_score_a_prompt(
    http: httpx.Client, ids: list[int], expected: list[Scored], as_ids: bool
) -> None:
    prompt = [ids] if as_ids else TEXT
    answer = complete(http, prompt=prompt, echo=True, logprobs=2, max_tokens=0)
    [choice] = answer["choices"]
    assert choice["text"] == TEXT
    logprobs = choice["logprobs"]
    assert "".join(TEXT[offset : offset + 1] for offset in logprobs["text_offset"][:1]) == TEXT[0]
    assert logprobs["token_logprobs"][0] is None
    assert logprobs["token_logprobs"][1:] == pytest.approx([s.logprob for s in expected], abs=1e-3)
    for top, score in zip(logprobs["top_logprobs"][1:], expected, strict=True):
        assert max(top.values()) == pytest.approx(score.top[0][1], abs=1e-3)
    assert answer["usage"]["prompt_tokens"] == len(ids)
    assert answer["usage"]["completion_tokens"] == 0


def test_what_is_added_to_an_echoed_prompt_is_scored_like_the_prompt_of_a_longer_one(
    http: httpx.Client, ids: list[int]
) -> None:
    [added] = complete(http, prompt=ids, echo=True, logprobs=1, max_tokens=5)["choices"]
    assert len(added["logprobs"]["tokens"]) == len(ids) + 5
    again = complete(http, prompt=added["text"], echo=True, logprobs=1, max_tokens=0)
    assert again["choices"][0]["text"] == added["text"]
    # The most likely token of each of the five is the one that was taken.
    for token, top in zip(
        added["logprobs"]["tokens"][-5:], added["logprobs"]["top_logprobs"][-5:], strict=True
    ):
        assert list(top) == [token]


def test_characters_of_several_tokens_have_their_bytes_told(http: httpx.Client) -> None:
    choice = complete(http, prompt="ظ ೪", echo=True, logprobs=0, max_tokens=0)["choices"][0]
    pieces = choice["logprobs"]["tokens"]
    assert any(piece.startswith("bytes:\\x") for piece in pieces)
    assert choice["text"] == "ظ ೪"


def test_several_prompts_and_several_answers_come_in_order(
    gpt: openai.OpenAI, http: httpx.Client
) -> None:
    answer = gpt.completions.create(
        model="bayling", prompt=["Hello", "Guten Tag"], n=2, temperature=1.3, seed=5, max_tokens=6
    )
    texts = [choice.text for choice in answer.choices]
    assert [choice.index for choice in answer.choices] == list(range(4))
    assert len(set(texts[:2])) == 2, "each answer has draws of its own"
    again = complete(http, prompt="Guten Tag", n=2, temperature=1.3, seed=5, max_tokens=6)
    assert [choice["text"] for choice in again["choices"]] == texts[2:]


def test_a_completion_streams_the_text_that_it_would_give_at_once(http: httpx.Client) -> None:
    fields: dict[str, Any] = {"prompt": "Hello", "max_tokens": 20, "temperature": 0.8, "seed": 1}
    whole = complete(http, **fields, n=2)
    events = streamed(http, "/v1/completions", **fields, n=2, echo=True)
    for index, choice in enumerate(whole["choices"]):
        mine = [e["choices"][0] for e in events if e["choices"][0]["index"] == index]
        assert "".join(piece["text"] for piece in mine) == "Hello" + choice["text"]
        assert mine[-1]["finish_reason"] == choice["finish_reason"]


def test_chat_gives_the_log_probabilities_of_what_it_says(gpt: openai.OpenAI) -> None:
    answer = gpt.chat.completions.create(
        model="bayling", messages=HELLO, logprobs=True, top_logprobs=3, max_tokens=8
    )
    [choice] = answer.choices
    assert choice.logprobs is not None and choice.logprobs.content is not None
    content = choice.logprobs.content
    assert len(content) == answer.usage.completion_tokens == 8
    for token in content:
        assert len(token.top_logprobs) == 3
        assert token.top_logprobs[0].token == token.token  # greedy
        assert token.logprob == pytest.approx(token.top_logprobs[0].logprob)
    spoken = b"".join(bytes(token.bytes or ()) for token in content)
    assert spoken.decode(errors="replace").strip() == (choice.message.content or "").strip()


def test_several_chat_answers_stream_side_by_side(http: httpx.Client) -> None:
    fields: dict[str, Any] = {
        "messages": HELLO,
        "n": 2,
        "temperature": 1.2,
        "seed": 9,
        "max_tokens": 12,
        "logprobs": True,
    }
    events = streamed(http, "/v1/chat/completions", **fields)
    whole = http.post("/v1/chat/completions", json={"model": "bayling", **fields}).json()
    for index, choice in enumerate(whole["choices"]):
        mine = [e["choices"][0] for e in events if e["choices"][0]["index"] == index]
        text = "".join(piece["delta"].get("content", "") for piece in mine)
        assert text == choice["message"]["content"]
        scored = sum(len(piece["logprobs"]["content"]) for piece in mine if piece["logprobs"])
        assert scored == len(choice["logprobs"]["content"])


def test_a_version_can_be_named(http: httpx.Client) -> None:
    body = {"model": "bayling@7", "messages": HELLO, "max_tokens": 3}
    assert http.post("/v1/chat/completions", json=body).headers["x-bayling-model-version"] == "7"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt.0"),
        ({"prompt": [[100_000]]}, None),
        ({"prompt": [[-1]]}, "prompt.0.0"),
        ({"prompt": ["a", 5]}, "prompt.1"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "a", "max_tokens": 10**9}, "max_tokens"),
        ({"prompt": "a", "logprobs": 21}, "logprobs"),
        ({"prompt": "a", "best_of": 3}, "best_of"),
        ({"prompt": "a", "suffix": "b"}, "suffix"),
        ({"prompt": "a", "stream": True, "echo": True, "logprobs": 1}, "stream"),
        ({"prompt": "a", "stream_options": {}}, "stream_options"),
    ],
)
def test_what_is_wrong_with_a_completion_is_told_by_name(
    http: httpx.Client, fields: dict[str, Any], param: str | None
) -> None:
    response = http.post("/v1/completions", json={"model": "bayling", **fields})
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, param), error
    assert error["type"] == "invalid_request_error"
