"""That every request is accounted for, however it ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.types import Message

from bayling.engines.protocol import Chunk, EngineFailed, Sampling, Scored, Timing
from bayling.model_folder import load_chat
from bayling.serve import accounting, front, keys
from bayling.serve.answering import Answering, Limits
from bayling.serve.app import create_app
from bayling.serve.config import ServeConfig
from bayling.serve.errors import Overloaded
from bayling.serve.fleet import Fleet, Version
from bayling.serve.observed import Exchange, Observed

CHAT: dict[str, Any] = {"model": "bayling", "messages": [{"role": "user", "content": "Guten Tag"}]}
TIMEOUT_S = 0.4


class Tokens:
    """An engine that gives its tokens in two pieces and ends as `then` says."""

    def __init__(
        self,
        then: Exception | None = None,
        *,
        hangs: bool = False,
        ids: Sequence[int] = (5, 6, 7, 8),
    ) -> None:
        self._ids = list(ids)
        self._then = then
        self._hangs = hangs

    async def generate(
        self, request_id: str, token_ids: Sequence[int], sampling: Sampling, *, every_s: float
    ) -> AsyncIterator[Chunk]:
        yield Chunk(self._ids[:1])
        await asyncio.sleep(0.02)
        if self._hangs:
            await asyncio.Event().wait()
        if self._then is not None:
            raise self._then
        yield Chunk(self._ids[1:], "length", timing=Timing(0.0, 0.02))

    async def score(
        self, request_id: str, token_ids: Sequence[int], top: int, adapter: str | None
    ) -> list[Scored]:
        return [Scored(-1.0)] * (len(token_ids) - 1)


class Refusing(Tokens):
    async def generate(
        self, request_id: str, token_ids: Sequence[int], sampling: Sampling, *, every_s: float
    ) -> AsyncIterator[Chunk]:
        raise Overloaded
        yield


class Server:
    """The API over an engine of a test's making, and what it has accounted for."""

    def __init__(self, folder: Path, tokens: Tokens, config: ServeConfig | None = None) -> None:
        self.config = config or ServeConfig()
        self.observed: list[Observed] = []
        self.texts: list[Sequence[Exchange]] = []
        limits = Limits(
            context_length=1000, max_new_tokens=50, stream_interval_s=0, timeout_s=TIMEOUT_S
        )
        answering = Answering(load_chat(folder, "bayling"), tokens, limits)
        fleet = Fleet("bayling", lambda version: Version("bayling", version, ["de"], answering))
        fleet.take({"7": 1.0})
        fleet.load()

        async def ready() -> None: ...

        self.app: FastAPI = create_app(fleet, ready, self.config)
        front.install(self.app, self.config, fleet.main_version, sinks=[self._take])

        @self.app.get("/failing")
        async def failing() -> None:
            raise RuntimeError("on purpose")

    def _take(self, observed: Observed, exchanges: Sequence[Exchange]) -> None:
        self.observed.append(observed)
        self.texts.append(exchanges)

    def ask(
        self,
        path: str,
        body: Any = None,
        leave_when: Callable[[bytes], bool] = lambda _: False,
        **headers: str,
    ) -> Observed:
        """One request; what was accounted for it."""
        asyncio.run(self._ask(path, body, leave_when, headers))
        return self.observed[-1]

    async def _ask(
        self, path: str, body: Any, leave_when: Callable[[bytes], bool], headers: dict[str, str]
    ) -> None:
        content = b"" if body is None else json.dumps(body).encode()
        sent = b""
        gone = asyncio.Event()
        received = False

        async def receive() -> Message:
            nonlocal received
            if not received:
                received = True
                return {"type": "http.request", "body": content, "more_body": False}
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            nonlocal sent
            sent += message.get("body", b"")
            if leave_when(sent):
                gone.set()
            # As a server's does, which writes to a socket.
            await asyncio.sleep(0)

        every = {"host": "localhost", "content-type": "application/json", **headers}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET" if body is None else "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "client": ("127.0.0.1", 1),
            "server": ("localhost", 80),
            "headers": [
                (name.replace("_", "-").encode(), value.encode()) for name, value in every.items()
            ],
        }
        await self.app(scope, receive, send)


@pytest.fixture
def server(model_folder: Path) -> Server:
    return Server(model_folder, Tokens())


def test_an_answer_is_known_by_version_tokens_times_and_its_clients_id(server: Server) -> None:
    seen = server.ask("/v1/chat/completions", CHAT, x_request_id="mine-1")
    assert (seen.request_id, seen.endpoint, seen.version) == (
        "mine-1",
        "/v1/chat/completions",
        "7",
    )
    assert (seen.status, seen.error, seen.key, seen.streamed) == (200, None, "anybody", False)
    assert seen.prompt_tokens > 20 and seen.completion_tokens == 4
    assert seen.finish_reasons == ("length",)
    assert seen.ttft_s is not None and seen.tpot_s is not None
    assert 0 < seen.ttft_s < seen.total_s and seen.tpot_s >= 0.02 / 3


def test_a_stream_and_several_answers_are_one_request_each(server: Server) -> None:
    body = {**CHAT, "stream": True, "n": 3}
    seen = server.ask("/v1/chat/completions", body)
    assert seen.streamed and seen.completion_tokens == 12
    assert seen.finish_reasons == ("length",) * 3
    whole = server.ask("/v1/chat/completions", {**CHAT, "n": 3})
    assert (whole.prompt_tokens, whole.completion_tokens) == (seen.prompt_tokens, 12)
    assert len(server.observed) == 2


def test_scoring_a_text_costs_it_once(server: Server) -> None:
    body = {"model": "bayling", "prompt": [5, 6, 7], "echo": True, "logprobs": 0, "max_tokens": 0}
    assert server.ask("/v1/completions", body).prompt_tokens == 3


def test_translations_are_judged_by_the_language_that_was_asked_for(model_folder: Path) -> None:
    german = load_chat(model_folder, "bayling").tokenizer("Guten Tag")["input_ids"]
    server = Server(model_folder, Tokens(ids=german))
    for target, off_target in (("de", 0), ("zh", 2)):
        body = {"text": ["Good morning", "Good night"], "target": target}
        seen = server.ask("/v1/translations", body)
        assert (seen.judged, seen.off_target) == (2, off_target)
    history = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    seen = server.ask("/v1/translations", {"text": "Shorter.", "history": history})
    assert (seen.status, seen.judged) == (200, 0)  # nobody says what language it is to be in


def test_a_client_that_leaves_a_stream_is_no_error_of_the_server(model_folder: Path) -> None:
    server = Server(model_folder, Tokens(hangs=True))
    body = {**CHAT, "stream": True}
    seen = server.ask("/v1/chat/completions", body, lambda sent: b'"content": ' in sent)
    assert (seen.status, seen.error) == (499, "client_left")
    assert seen.completion_tokens == 1 and seen.prompt_tokens > 20


def test_a_client_that_does_not_wait_for_its_answer_has_left(model_folder: Path) -> None:
    server = Server(model_folder, Tokens(hangs=True))

    async def impatient() -> None:
        asking = asyncio.create_task(server._ask("/v1/chat/completions", CHAT, lambda _: False, {}))
        await asyncio.sleep(0.1)
        asking.cancel()  # as Ray Serve's proxy lets it be known
        with pytest.raises(asyncio.CancelledError):
            await asking

    asyncio.run(impatient())
    assert [(one.status, one.error) for one in server.observed] == [(499, "client_left")]


@pytest.mark.parametrize("stream", [False, True])
def test_a_timeout_is_one_before_and_within_a_stream(model_folder: Path, stream: bool) -> None:
    server = Server(model_folder, Tokens(hangs=True))
    seen = server.ask("/v1/chat/completions", {**CHAT, "stream": stream})
    assert (seen.status, seen.error, seen.streamed) == (504, "timeout", stream)
    assert seen.version == "7"


@pytest.mark.parametrize("stream", [False, True])
def test_an_engine_that_fails_is_an_error_also_after_a_stream_began(
    model_folder: Path, stream: bool
) -> None:
    server = Server(model_folder, Tokens(EngineFailed("on purpose")))
    seen = server.ask("/v1/chat/completions", {**CHAT, "stream": stream})
    assert (seen.status, seen.error) == (500, "engine_failed")


def test_what_nobody_expected_is_accounted_for_too(server: Server) -> None:
    seen = server.ask("/failing")
    assert (seen.status, seen.error, seen.endpoint) == (500, "internal", "other")


def test_mistakes_and_refusals_have_their_own_codes(model_folder: Path) -> None:
    server = Server(model_folder, Refusing())
    overloaded = server.ask("/v1/chat/completions", CHAT)
    assert (overloaded.status, overloaded.error) == (429, "overloaded")
    assert overloaded.prompt_tokens == 0
    wrong = server.ask("/v1/chat/completions", {**CHAT, "model": "gpt-4"})
    assert (wrong.status, wrong.error, wrong.version) == (404, "model_not_found", "")


def test_a_key_that_is_not_valid_is_nobodys_and_one_that_is_has_its_name(
    model_folder: Path, tmp_path: Path
) -> None:
    full, key = keys.make("app", None, {"requests_per_minute": 1})
    file = tmp_path / "keys.jsonl"
    keys.add(file, key)
    server = Server(model_folder, Tokens(), ServeConfig(keys_file=str(file)))
    stranger = server.ask("/v1/models", authorization="Bearer bl-nobody")
    assert (stranger.status, stranger.error, stranger.key) == (401, "invalid_api_key", "")
    known = server.ask("/v1/models", authorization=f"Bearer {full}")
    assert (known.status, known.key, known.limit) == (200, "app", None)
    early = server.ask("/v1/models", authorization=f"Bearer {full}")
    assert (early.status, early.key) == (429, "app")
    assert (early.error, early.limit) == ("rate_limit_exceeded", "requests_per_minute")


def test_probes_and_the_figures_themselves_are_not_counted(server: Server) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/internal/versions", "/internal/report"):
        asyncio.run(server._ask(path, None, lambda _: False, {}))
    assert server.observed == []


@pytest.mark.unit
def test_paths_count_under_a_few_names() -> None:
    names = {
        "/v1/chat/completions": "/v1/chat/completions",
        "/v1/models": "/v1/models",
        "/v1/models/bayling@7": "/v1/models",
        "/v1/modelsx": "other",
        "/v1/": "other",
        "/.env": "other",
    }
    assert {path: accounting.endpoint(path) for path in names} == names


def test_texts_are_kept_only_where_the_configuration_says_so(model_folder: Path) -> None:
    quiet = Server(model_folder, Tokens())
    quiet.ask("/v1/chat/completions", CHAT)
    assert quiet.texts == [[]]
    telling = Server(model_folder, Tokens(), ServeConfig(log_texts=True))
    telling.ask("/v1/chat/completions", {**CHAT, "n": 2})
    first, second = telling.texts[0]
    assert first.prompt == second.prompt and "Guten Tag" in first.prompt
    assert "### Response:" in first.prompt and first.answer
