"""The API over real HTTP, through Ray Serve, from a real model."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types import CompletionUsage
from tiny_model import CONTEXT
from tiny_server import comes_to_rest, ongoing, small

from bayling.engines.options import EngineOptions
from bayling.engines.protocol import Sampling
from bayling.engines.transformers import TransformersEngine
from bayling.errors import UserError
from bayling.model_folder import load_chat
from bayling.prompts import translate_prompt
from bayling.scale import ScaleConfig
from bayling.serve import client, run
from bayling.serve.application import ServedModel
from bayling.templates import Message

HELLO = [{"role": "user", "content": "Hello"}]
CHAT = {"model": "bayling", "messages": HELLO}


@pytest.fixture(scope="module")
def expected(model_folder: Path) -> dict[str, str]:
    """What the model answers by itself: to a chat, and to a translation into German."""
    engine = TransformersEngine(model_folder, EngineOptions(threads=1))
    chat = load_chat(model_folder, "bayling")
    texts = {"chat": "Hello", "translation": translate_prompt("Good morning", "de", "en")}
    prompts = [chat.prompt_ids([Message("user", text)]) for text in texts.values()]
    answers = engine.generate_all(prompts, Sampling(40, stop_ids=tuple(chat.stop_ids)))
    engine.close()
    decoded = [chat.tokenizer.decode(answer.ids, skip_special_tokens=True) for answer in answers]
    return dict(zip(texts, decoded, strict=True))


def test_openais_client_chats_and_streams_the_same_answer(
    gpt: openai.OpenAI, expected: dict[str, str]
) -> None:
    assert [model.id for model in gpt.models.list()] == ["bayling"]
    assert gpt.models.retrieve("bayling").id == "bayling"
    whole = gpt.chat.completions.create(model="bayling", messages=HELLO)
    assert whole.choices[0].message.content == expected["chat"]
    assert whole.choices[0].finish_reason in ("stop", "length")
    assert whole.usage is not None
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens

    events = list(
        gpt.chat.completions.create(
            model="bayling", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
    )
    streamed = "".join(e.choices[0].delta.content or "" for e in events if e.choices)
    assert streamed == expected["chat"]
    assert events[0].choices[0].delta.role == "assistant"
    assert events[-1].usage is not None and not events[-1].choices
    assert events[-1].usage.total_tokens == whole.usage.total_tokens


@pytest.mark.parametrize("stream", [False, True])
def test_a_conversation_that_goes_on_says_how_much_of_it_was_known(
    gpt: openai.OpenAI, stream: bool
) -> None:
    messages: Any = [{"role": "user", "content": f"Translate {stream}: " + "good morning, " * 20}]

    def answered() -> tuple[str, CompletionUsage]:
        asked: Any = {"model": "bayling", "messages": messages, "max_tokens": 20}
        if not stream:
            whole = gpt.chat.completions.create(**asked)
            assert whole.usage is not None
            return whole.choices[0].message.content or "", whole.usage
        options = {"include_usage": True}
        *events, last = gpt.chat.completions.create(**asked, stream=True, stream_options=options)
        return "".join(event.choices[0].delta.content or "" for event in events), last.usage

    answer, first = answered()
    messages += [
        {"role": "assistant", "content": answer},
        {"role": "user", "content": "Shorter, please."},
    ]
    _, second = answered()
    known = [
        usage.prompt_tokens_details.cached_tokens
        for usage in (first, second)
        if usage.prompt_tokens_details is not None
    ]
    # Less at first, and the last tokens of what was asked: they are known by blocks of 16.
    assert known[0] < 0.5 * first.prompt_tokens
    assert first.prompt_tokens - 16 <= known[1] < second.prompt_tokens


def test_a_stream_ends_with_done_and_has_no_broken_characters(http: httpx.Client) -> None:
    body = {**CHAT, "stream": True, "temperature": 1.5, "seed": 3, "max_tokens": 60}
    with http.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    streamed = "".join(
        json.loads(line[6:])["choices"][0]["delta"].get("content", "") for line in lines[:-1]
    )
    body["stream"] = False
    whole = http.post("/v1/chat/completions", json=body).json()
    assert streamed == whole["choices"][0]["message"]["content"]


def test_a_stop_string_ends_the_answer_before_it(
    gpt: openai.OpenAI, expected: dict[str, str]
) -> None:
    text = expected["chat"]
    stop = text[5:8]
    for stream in (False, True):
        answer: Any = gpt.chat.completions.create(
            model="bayling", messages=HELLO, stop=["never to be seen", stop], stream=stream
        )
        if stream:
            events = list(answer)
            cut = "".join(event.choices[0].delta.content or "" for event in events)
            reason = events[-1].choices[0].finish_reason
        else:
            cut, reason = answer.choices[0].message.content, answer.choices[0].finish_reason
        assert cut == text[: text.find(stop)]
        assert reason == "stop"


def test_a_seed_repeats_an_answer(gpt: openai.OpenAI) -> None:
    def ask(seed: int) -> str | None:
        answer = gpt.chat.completions.create(
            model="bayling", messages=HELLO, temperature=1.2, top_p=0.9, seed=seed
        )
        return answer.choices[0].message.content

    assert ask(1) == ask(1) != ask(2)


def test_translations_of_one_text_and_of_several(
    http: httpx.Client, expected: dict[str, str]
) -> None:
    one = http.post("/v1/translations", json={"text": "Good morning", "target": "deu"}).json()
    [translation] = one["translations"]
    assert translation["text"] == expected["translation"]
    assert (translation["target"], translation["source"]) == ("de", "en")
    assert one["model"] == "bayling"
    several = http.post(
        "/v1/translations",
        json={"text": ["Good morning", "Good night"], "source": "en", "target": "de"},
    ).json()
    assert [t["source"] for t in several["translations"]] == ["en", "en"]
    assert several["translations"][0]["text"] == expected["translation"]
    assert several["usage"]["prompt_tokens"] > one["usage"]["prompt_tokens"]


def test_instructions_follow_the_prompt_on_a_new_line_and_a_history_goes_on_as_it_is(
    http: httpx.Client,
) -> None:
    limits = {"max_tokens": 12}
    first = translate_prompt("Good morning", "de", "zh")

    def chat(*turns: str) -> str:
        roles = ("user", "assistant")
        messages = [{"role": roles[n % 2], "content": turn} for n, turn in enumerate(turns)]
        answer = http.post("/v1/chat/completions", json={**CHAT, **limits, "messages": messages})
        return str(answer.json()["choices"][0]["message"]["content"])

    def translate(**fields: Any) -> str:
        answer = http.post("/v1/translations", json={**limits, **fields})
        return str(answer.json()["translations"][0]["text"])

    chinese = {"text": "Good morning", "target": "de", "prompt_language": "zh"}
    assert translate(**chinese) == chat(first)
    assert translate(**chinese, instructions="确保包含这些词：Tag") == chat(
        f"{first}\n确保包含这些词：Tag"
    )
    history = [{"role": "user", "content": first}, {"role": "assistant", "content": "Guten Tag"}]
    assert translate(text="Make it shorter.", history=history) == chat(
        first, "Guten Tag", "Make it shorter."
    )


def test_every_answer_names_the_model_version_and_one_request_id(http: httpx.Client) -> None:
    for response in (
        http.get("/healthz", headers={"x-request-id": "mine-1"}),
        http.get("/nowhere", headers={"x-request-id": "mine-1"}),
        http.post("/v1/translations", content=b"{", headers={"x-request-id": "mine-1"}),
    ):
        assert response.headers["x-bayling-model-version"] == "7"
        assert response.headers["x-request-id"] == "mine-1"
    assert len(http.get("/readyz").headers["x-request-id"]) > 8


JSON_OBJECT = {"type": "json_object"}
WITHOUT_MODEL = {"messages": HELLO}
PAIR = "\\ud83d"  # half of one


@pytest.mark.parametrize(
    ("path", "body", "status", "param", "code"),
    [
        ("/v1/chat/completions", "{bad", 400, None, "invalid_json"),
        ("/v1/chat/completions", "[]", 400, None, None),
        ("/v1/chat/completions", "", 400, None, None),
        ("/v1/chat/completions", WITHOUT_MODEL, 400, "model", None),
        ("/v1/chat/completions", {**CHAT, "model": "gpt-4"}, 404, "model", "model_not_found"),
        ("/v1/chat/completions", {**CHAT, "messages": []}, 400, "messages", None),
        ("/v1/chat/completions", {**CHAT, "model": "bayling@8"}, 404, "model", "model_not_found"),
        ("/v1/chat/completions", {**CHAT, "n": 17}, 400, "n", None),
        ("/v1/chat/completions", {**CHAT, "top_logprobs": 2}, 400, "top_logprobs", None),
        ("/v1/chat/completions", {**CHAT, "seed": 2**70}, 400, "seed", None),
        ("/v1/chat/completions", {**CHAT, "response_format": JSON_OBJECT}, 400, None, None),
        ("/v1/chat/completions", {**CHAT, "tools": [{}]}, 400, "tools", None),
        ("/v1/chat/completions", {**CHAT, "presence_penalty": 1}, 400, "presence_penalty", None),
        ("/v1/chat/completions", {**CHAT, "temprature": 1}, 400, "temprature", "unknown_parameter"),
        ("/v1/chat/completions", {**CHAT, "temperature": -1}, 400, "temperature", None),
        ("/v1/chat/completions", {**CHAT, "temperature": "hot"}, 400, "temperature", None),
        ("/v1/chat/completions", {**CHAT, "top_p": 0}, 400, "top_p", None),
        ("/v1/chat/completions", {**CHAT, "max_tokens": 0}, 400, "max_tokens", None),
        ("/v1/chat/completions", {**CHAT, "stop": ""}, 400, "stop", None),
        (
            "/v1/chat/completions",
            {**CHAT, "max_tokens": 3, "max_completion_tokens": 4},
            400,
            "max_tokens",
            None,
        ),
        ("/v1/chat/completions", {**CHAT, "stream_options": {}}, 400, "stream_options", None),
        (
            "/v1/chat/completions",
            {**CHAT, "messages": [{"role": "tool", "content": "x"}]},
            400,
            "messages.0.role",
            None,
        ),
        (
            "/v1/chat/completions",
            {**CHAT, "messages": [*HELLO, *HELLO]},
            400,
            "messages",
            None,
        ),
        (
            "/v1/chat/completions",
            {**CHAT, "messages": [{"role": "user", "content": "a</s>b"}]},
            400,
            "messages",
            None,
        ),
        ("/v1/translations", {"text": "x"}, 400, "target", None),
        ("/v1/translations", {"text": "x", "target": "dex"}, 400, "target", "unknown_language"),
        ("/v1/translations", {"text": [], "target": "de"}, 400, "text", None),
        ("/v1/translations", {"text": ["a", 5], "target": "de"}, 400, "text.1", None),
        ("/v1/translations", {"text": ["a", "b"], "history": HELLO}, 400, "text", None),
        ("/v1/translations", f'{{"text": "{PAIR}", "target": "de"}}', 400, "text", None),
    ],
)
def test_what_is_wrong_with_a_request_is_told_by_name(
    http: httpx.Client, path: str, body: Any, status: int, param: str | None, code: str | None
) -> None:
    content = body if isinstance(body, str) else json.dumps(body)
    response = http.post(path, content=content, headers={"content-type": "application/json"})
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (status, param), error
    assert error["message"] and error["type"] == "invalid_request_error"
    if code is not None:
        assert error["code"] == code


def test_neutral_values_of_unsupported_fields_are_fine(http: httpx.Client) -> None:
    neutral = {
        "n": 1,
        "logprobs": False,
        "tools": None,
        "presence_penalty": 0.0,
        "response_format": {"type": "text"},
        "user": "someone",
    }
    assert http.post("/v1/chat/completions", json={**CHAT, **neutral}).is_success


def test_unknown_paths_and_methods_get_error_objects(http: httpx.Client) -> None:
    missing, wrong = http.get("/v2/nothing"), http.get("/v1/chat/completions")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "POST"


def test_a_body_that_does_not_call_itself_json_is_refused(http: httpx.Client) -> None:
    """As `curl -d` sends it, and as a form on any web page could."""
    for path in ("/v1/chat/completions", "/v1/translations"):
        response = http.post(path, data={"a": "b"})
        assert response.status_code == 415
        assert "content-type: application/json" in response.json()["error"]["message"]


def test_a_prompt_beyond_the_context_is_told_both_numbers(http: httpx.Client) -> None:
    body = {"text": "Good morning " * CONTEXT, "target": "de"}
    response = http.post("/v1/translations", json=body)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (400, "context_length_exceeded")
    assert str(CONTEXT) in error["message"] and "in the prompt" in error["message"]


def test_a_body_of_megabytes_is_refused(http: httpx.Client) -> None:
    response = http.post("/v1/translations", content=b"x" * (3 * 2**20))
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "request_too_large"


def test_the_api_describes_itself(http: httpx.Client) -> None:
    paths = http.get("/openapi.json").json()["paths"]
    assert {"/v1/chat/completions", "/v1/translations", "/v1/models"} <= set(paths)


def test_more_than_the_server_takes_is_answered_429_and_the_rest_in_full(server: str) -> None:
    body = {**CHAT, "max_tokens": 150}

    def ask(_: int) -> httpx.Response:
        return httpx.post(f"{server}/v1/chat/completions", json=body, timeout=60, trust_env=False)

    with ThreadPoolExecutor(16) as pool:
        responses = list(pool.map(ask, range(16)))
    refused = [response for response in responses if response.status_code == 429]
    assert {response.status_code for response in responses} == {200, 429}, responses[-1].text
    for response in refused:
        assert response.json()["error"]["code"] == "overloaded"
        assert int(response.headers["retry-after"]) >= 1
        assert response.headers["x-bayling-model-version"] == "7"
    assert httpx.get(f"{server}/readyz", trust_env=False).status_code == 200


def test_a_burst_that_an_idle_server_has_room_for_is_answered(server: str) -> None:
    config = small()
    room = config.max_ongoing_requests + config.max_queued_requests
    together = threading.Barrier(room)

    def ask(_: int) -> int:
        with httpx.Client(base_url=server, timeout=60, trust_env=False) as client:
            client.get("/readyz")  # connected
            together.wait()
            return client.post("/v1/chat/completions", json=CHAT).status_code

    with ThreadPoolExecutor(room) as pool:
        for _ in range(5):
            assert list(pool.map(ask, range(room))) == [200] * room


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_place_at_once(server: str, stream: bool) -> None:
    """The answer would take far longer than the engine takes to be at rest again."""
    body = {**CHAT, "max_tokens": CONTEXT - 1000, "stream": stream}
    with httpx.Client(base_url=server, timeout=60 if stream else 3, trust_env=False) as leaving:
        if stream:
            with leaving.stream("POST", "/v1/chat/completions", json=body) as response:
                lines = response.iter_lines()  # to let go of it would close the connection
                next(lines)
                assert ongoing() == 1
        else:
            with pytest.raises(httpx.ReadTimeout):
                leaving.post("/v1/chat/completions", json=body)
    assert comes_to_rest(within_s=15)


def test_the_client_gives_the_translation_or_the_servers_reason(
    server: str, expected: dict[str, str]
) -> None:
    answer = client.translate(server, "Good morning", "de")
    assert (answer.text, answer.model_version) == (expected["translation"], "7")
    with pytest.raises(UserError, match="klingon"):
        client.translate(server, "Good morning", "klingon")


def test_a_port_in_use_is_told_before_anything_starts(server: str, model_folder: Path) -> None:
    taken = small(port=int(server.rsplit(":", 1)[1]))
    with pytest.raises(UserError, match=r"serve\.port"):
        run.deploy(
            taken, ServedModel("", "bayling", {"8": str(model_folder)}), {"8": 1.0}, ScaleConfig()
        )
