"""A server with keys and limits over real HTTP, through Ray Serve, from a real model."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from tiny_model import CONTEXT
from tiny_server import small

from bayling.errors import UserError
from bayling.scale import ScaleConfig
from bayling.serve import client, keys, run
from bayling.serve.application import ServedModel

HELLO: Any = [{"role": "user", "content": "Hello"}]
CHAT: dict[str, Any] = {"model": "bayling", "messages": HELLO, "max_tokens": 4}
BODY_TIMEOUT_S = 2.0


@dataclass
class Guarded:
    """A server that asks for keys, and the file that they are in."""

    url: str
    file: Path

    def key(self, name: str, **limits: int | None) -> str:
        """A new key, once the server knows it."""
        full, key = keys.make(name, None, limits)
        keys.add(self.file, key)
        assert within(5, lambda: self.get(full).status_code == 200), "the server knows no new key"
        return full

    def get(self, key: str) -> httpx.Response:
        headers = {"authorization": f"Bearer {key}"}
        return httpx.get(f"{self.url}/v1/models", headers=headers, timeout=30, trust_env=False)

    def chat(self, key: str, **fields: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {key}"}
        url = f"{self.url}/v1/chat/completions"
        body = {**CHAT, **fields}
        return httpx.post(url, json=body, headers=headers, timeout=60, trust_env=False)

    def openai(self, key: str) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0)

    def raw(self, *parts: str | bytes) -> bytes:
        """Bytes as they are; what comes back until the server closes or is silent."""
        host, port = self.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=BODY_TIMEOUT_S + 3) as connection:
            for part in parts:
                connection.sendall(part.encode() if isinstance(part, str) else part)
            got = b""
            while True:
                try:
                    more = connection.recv(65536)
                except TimeoutError:
                    return got + b"[open]"
                except ConnectionResetError:
                    # Closed by a server that had answered before it read the last part.
                    return got + b"[closed]"
                if not more:
                    return got + b"[closed]"
                got += more
                if b"[DONE]" in got or got.endswith(b"}"):
                    connection.settimeout(0.3)


def within(seconds: float, true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@pytest.fixture(scope="module")
def guarded(
    ray_cluster: None, model_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guarded]:
    file = tmp_path_factory.mktemp("guarded") / "keys.jsonl"
    keys.add(file, keys.make("first")[1])
    config = small()
    config.host = "0.0.0.0"
    config.keys_file = str(file)
    config.body_timeout_s = BODY_TIMEOUT_S
    served = ServedModel("sqlite:///unused", "bayling", {"7": str(model_folder)})
    yield Guarded(run.deploy(config, served, {"7": 1.0}, ScaleConfig()), file)
    run.shutdown()


@pytest.fixture(scope="module")
def full(guarded: Guarded) -> str:
    """A key without limits."""
    return guarded.key("unlimited")


def test_openais_client_raises_what_its_users_expect(guarded: Guarded, full: str) -> None:
    answer = guarded.openai(full).chat.completions.create(**CHAT)
    assert answer.choices[0].message.content
    with pytest.raises(openai.AuthenticationError) as refused:
        guarded.openai("sk-wrong").chat.completions.create(**CHAT)
    assert refused.value.code == "invalid_api_key" and "not valid" in str(refused.value)
    limited = guarded.openai(guarded.key("twice", requests_per_minute=2))
    limited.models.list()
    with pytest.raises(openai.RateLimitError) as early:
        limited.models.list()
    assert early.value.code == "rate_limit_exceeded"
    assert int(early.value.response.headers["retry-after"]) in range(1, 31)
    assert early.value.response.headers["x-ratelimit-remaining-requests"] == "0"


def test_a_key_that_was_taken_back_lets_nobody_in_a_moment_later(guarded: Guarded) -> None:
    short = guarded.key("short-lived")
    keys.remove(guarded.file, "short-lived")
    assert within(3, lambda: guarded.get(short).status_code == 401)


def test_an_answer_costs_the_tokens_that_it_says(guarded: Guarded) -> None:
    limit = 6000
    key = guarded.key("counted", tokens_per_minute=limit)
    answer = guarded.chat(key)
    used = answer.json()["usage"]["total_tokens"]
    assert answer.headers["x-ratelimit-limit-tokens"] == str(limit)
    assert answer.headers["x-ratelimit-remaining-tokens"] == str(limit - used)
    time.sleep(2)  # 100 tokens a second flow back
    body = {"text": ["Good morning", "Good night"], "target": "de", "max_tokens": 4}
    headers = {"authorization": f"Bearer {key}"}
    url = f"{guarded.url}/v1/translations"
    several = httpx.post(url, json=body, headers=headers, timeout=60, trust_env=False)
    used = several.json()["usage"]["total_tokens"]
    left = int(several.headers["x-ratelimit-remaining-tokens"])
    assert limit - used <= left < limit - used + 20


def test_a_client_that_leaves_a_stream_has_paid_for_it_and_its_place_is_free(
    guarded: Guarded,
) -> None:
    key = guarded.key("leaving", tokens_per_minute=60, concurrent_requests=1)
    body = {**CHAT, "max_tokens": CONTEXT - 1000, "stream": True}
    headers = {"authorization": f"Bearer {key}"}
    with (
        httpx.Client(base_url=guarded.url, timeout=60, trust_env=False) as leaving,
        leaving.stream("POST", "/v1/chat/completions", json=body, headers=headers) as response,
    ):
        lines = response.iter_lines()  # to let go of it would close the connection
        for _ in range(40):
            next(lines)
        meanwhile = guarded.get(key)
        assert meanwhile.status_code == 429
        assert "1 requests at a time" in meanwhile.json()["error"]["message"]

    def reason() -> str:
        return str(guarded.get(key).json()["error"]["message"])

    assert within(10, lambda: "at a time" not in reason())
    # The place is free, and the tokens are on the bill.
    assert "60 tokens a minute" in reason()


def test_one_after_the_other_is_one_at_a_time(guarded: Guarded) -> None:
    """No request is refused because the answer before, which its client has, is not over yet."""
    key = guarded.key("patient", concurrent_requests=1)
    with httpx.Client(base_url=guarded.url, timeout=60, trust_env=False) as http:
        http.headers["authorization"] = f"Bearer {key}"
        for number in range(20):
            body = {**CHAT, "stream": number % 2 == 0}
            assert http.post("/v1/chat/completions", json=body).status_code == 200


def test_the_platforms_own_client_takes_the_key_from_the_environment(
    guarded: Guarded, full: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(client.API_KEY, raising=False)
    with pytest.raises(UserError, match=r"asks for an API key.*BAYLING_API_KEY"):
        client.translate(guarded.url, "Good morning", "de")
    monkeypatch.setenv(client.API_KEY, f"{full}\n")
    assert client.translate(guarded.url, "Good morning", "de").model_version == "7"


def _head(key: str, *headers: str) -> str:
    lines = ("host: x", "content-type: application/json", f"authorization: Bearer {key}", *headers)
    return "POST /v1/chat/completions HTTP/1.1\r\n" + "\r\n".join(lines) + "\r\n\r\n"


def test_a_body_that_trickles_in_is_given_up_and_the_connection_closed(
    guarded: Guarded, full: str
) -> None:
    began = time.monotonic()
    got = guarded.raw(_head(full, "content-length: 500"), "{")
    assert got.startswith(b"HTTP/1.1 408") and got.endswith(b"[closed]")
    assert b'"code":"body_timeout"' in got and b"x-request-id" in got
    assert BODY_TIMEOUT_S <= time.monotonic() - began < BODY_TIMEOUT_S + 3


def test_a_body_that_does_not_say_its_length_is_refused_at_the_limit(
    guarded: Guarded, full: str
) -> None:
    piece = b"40000\r\n" + b"x" * 0x40000 + b"\r\n"
    got = guarded.raw(_head(full, "transfer-encoding: chunked"), *[piece] * 12, "0\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 413") and b'"code":"request_too_large"' in got


def test_a_body_of_terabytes_is_refused_by_its_header(guarded: Guarded, full: str) -> None:
    got = guarded.raw(_head(full, f"content-length: {10**13}"))
    assert got.startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    "headers",
    [
        ("content-length: 5", "transfer-encoding: chunked"),
        ("content-length: 5", "content-length: 6"),
        ("content-length: -5",),
    ],
)
def test_a_body_of_two_lengths_is_refused_by_the_proxy(
    guarded: Guarded, full: str, headers: tuple[str, ...]
) -> None:
    """They are what request smuggling is made of."""
    got = guarded.raw(_head(full, *headers), "0\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 400") and got.endswith(b"[closed]")


def test_a_packed_body_is_refused(guarded: Guarded, full: str) -> None:
    got = guarded.raw(_head(full, "content-encoding: gzip", "content-length: 2"), b"\x1f\x8b")
    assert got.startswith(b"HTTP/1.1 415")
    assert b'"code":"unsupported_content_encoding"' in got


@pytest.mark.parametrize(
    "path",
    ["/playground/../v1/models", "/playground/%2e%2e/v1/models", "//v1/models", "/V1/models"],
)
def test_no_way_of_writing_a_path_leads_around_the_door(guarded: Guarded, path: str) -> None:
    got = guarded.raw(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")
    assert got.startswith((b"HTTP/1.1 401", b"HTTP/1.1 404")) and b'"object":"list"' not in got


def test_probes_need_no_key_and_get_one_request_id(guarded: Guarded) -> None:
    for path in ("/healthz", "/readyz"):
        answer = httpx.get(f"{guarded.url}{path}", trust_env=False)
        assert answer.status_code == 200
        assert len(answer.headers.get_list("x-request-id")) == 1
        assert json.loads(answer.text) == {"status": "ok"}
