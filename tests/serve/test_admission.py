"""Who gets in, how often, and that nobody is kept out by what is over."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.responses import StreamingResponse

from bayling.serve import keys
from bayling.serve.admission import Admission, Asking
from bayling.serve.keyring import KeyRing
from bayling.serve.limits import Limits

pytestmark = pytest.mark.unit

Ask = Callable[..., Awaitable[httpx.Response]]


class Site:
    """A small app behind an admission, whose answers a test lets end."""

    def __init__(
        self,
        keyring: KeyRing | None,
        limits: Limits | None = None,
        capacity: int = 1000,
        **options: Any,
    ) -> None:
        self.begun = asyncio.Event()
        self.end = asyncio.Event()
        app = FastAPI()

        async def name(asking: Asking) -> dict[str, str]:
            return {"name": asking.name}

        pages = ("/", "/healthz", "/readyz", "/metrics", "/internal/versions", "/internal/report")
        for path in (*pages, "/playground/app.js", "/v1/models"):
            app.get(path)(name)

        @app.post("/v1/cost/{tokens}")
        async def cost(tokens: int, asking: Asking) -> None:
            asking.charge(tokens)

        @app.post("/v1/waiting")
        async def waiting() -> None:
            self.begun.set()
            await self.end.wait()

        @app.post("/v1/failing")
        async def failing() -> None:
            raise RuntimeError("on purpose")

        @app.post("/v1/stream")
        async def stream(asking: Asking) -> StreamingResponse:
            async def pieces() -> AsyncIterator[str]:
                try:
                    yield "one "
                    yield "two"
                finally:
                    asking.charge(50)

            return StreamingResponse(pieces())

        app.add_middleware(Admission, keyring, limits or Limits(), capacity, **options)
        self.app = app

    def visit(self, work: Callable[[Ask], Awaitable[None]]) -> None:
        """Run requests against the app; `ask(path, key)` sends one."""

        async def run() -> None:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:

                async def ask(path: str, key: str | None = None) -> httpx.Response:
                    method = "POST" if re.match("/v1/(?!models)", path) else "GET"
                    headers = {} if key is None else {"authorization": f"Bearer {key}"}
                    return await client.request(method, path, headers=headers)

                await work(ask)

        asyncio.run(run())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.jsonl"


def kept(file: Path, name: str = "app", **limits: int | None) -> str:
    full, key = keys.make(name, None, limits)
    keys.add(file, key)
    return full


def test_a_caller_is_known_by_the_name_of_the_key(file: Path) -> None:
    full, other = kept(file), kept(file, "other")

    async def work(ask: Ask) -> None:
        assert (await ask("/v1/models", full)).json() == {"name": "app"}
        assert (await ask("/v1/models", other)).json() == {"name": "other"}

    Site(KeyRing(file)).visit(work)


def test_who_has_no_key_is_told_how_to_send_one_and_who_has_a_wrong_one_is_told_no_more(
    file: Path,
) -> None:
    full = kept(file)
    past, key = keys.make("past", datetime.now(UTC) - timedelta(days=1))
    keys.add(file, key)
    wrong = [full[:-2] + "xx", past, keys.make("unknown")[0], "sk-1234", "x" * 10_000]

    async def work(ask: Ask) -> None:
        missing = await ask("/v1/models")
        assert "authorization: Bearer KEY" in missing.json()["error"]["message"]
        refused = [await ask("/v1/models", key) for key in wrong]
        assert len({answer.text for answer in refused}) == 1
        for answer in (missing, *refused):
            error = answer.json()["error"]
            assert answer.status_code == 401
            assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_api_key")
            assert answer.headers["www-authenticate"] == "Bearer"

    Site(KeyRing(file)).visit(work)


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Bearer {}", 200),
        ("bearer  {} ", 200),
        ("{}", 401),
        ("Basic {}", 401),
        ("Bearer", 401),
        ("Bearer {} {}", 401),
    ],
)
def test_a_key_is_a_bearer_token(file: Path, header: str, status: int) -> None:
    full = kept(file)
    transport = httpx.ASGITransport(Site(KeyRing(file)).app)

    async def run() -> int:
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            value = header.replace("{}", full)
            answer = await client.get("/v1/models", headers={"authorization": value})
            return answer.status_code

    assert asyncio.run(run()) == status


def test_probes_and_the_playgrounds_files_need_no_key_and_everything_else_does(file: Path) -> None:
    kept(file)

    async def work(ask: Ask) -> None:
        for path in ("/", "/healthz", "/readyz", "/playground/app.js"):
            assert (await ask(path)).status_code == 200
        for path in ("/metrics", "/docs", "/openapi.json", "/nowhere", "/playground"):
            assert (await ask(path)).status_code == 401

    Site(KeyRing(file)).visit(work)


def test_metrics_are_open_where_they_were_opened(file: Path) -> None:
    kept(file)

    async def work(ask: Ask) -> None:
        for path in ("/metrics", "/internal/versions"):
            assert (await ask(path)).status_code == 200
        for path in ("/v1/models", "/internal/report"):
            assert (await ask(path)).status_code == 401

    Site(KeyRing(file), open_metrics=True).visit(work)


def test_a_websocket_is_no_way_around(file: Path) -> None:
    kept(file)
    sent: list[Any] = []

    async def run() -> None:
        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        scope = {"type": "websocket", "path": "/v1/models", "headers": []}
        await Site(KeyRing(file)).app(scope, receive, send)

    asyncio.run(run())
    assert [message["type"] for message in sent] == ["websocket.close"]


def test_who_asks_too_often_is_told_when_to_come_again(file: Path) -> None:
    full, other = kept(file, requests_per_minute=2), kept(file, "other")

    async def work(ask: Ask) -> None:
        answers = [await ask("/v1/models", full) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        left = [answer.headers["x-ratelimit-remaining-requests"] for answer in answers]
        assert left == ["1", "0", "0"]
        assert {answer.headers["x-ratelimit-limit-requests"] for answer in answers} == {"2"}
        error = answers[-1].json()["error"]
        assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
        assert "2 requests a minute" in error["message"]
        assert answers[-1].headers["retry-after"] == "30"
        assert re.fullmatch(r"(59\.\d+s|1m0s)", answers[-1].headers["x-ratelimit-reset-requests"])
        free = await ask("/v1/models", other)
        assert free.status_code == 200 and not any("ratelimit" in name for name in free.headers)

    Site(KeyRing(file)).visit(work)


def test_a_key_of_its_own_limits_has_the_others_from_the_configuration(file: Path) -> None:
    usual = kept(file)
    unlimited = kept(file, "unlimited", requests_per_minute=None)

    async def work(ask: Ask) -> None:
        assert (await ask("/v1/models", usual)).headers["x-ratelimit-limit-requests"] == "5"
        headers = (await ask("/v1/models", unlimited)).headers
        assert headers["x-ratelimit-limit-tokens"] == "70"
        assert "x-ratelimit-limit-requests" not in headers

    Site(KeyRing(file), Limits(requests_per_minute=5, tokens_per_minute=70)).visit(work)


def test_who_is_in_debt_with_tokens_waits(file: Path) -> None:
    full = kept(file, tokens_per_minute=60)

    async def work(ask: Ask) -> None:
        answer = await ask("/v1/cost/90", full)
        assert answer.headers["x-ratelimit-remaining-tokens"] == "0"
        refused = await ask("/v1/models", full)
        assert refused.status_code == 429 and refused.headers["retry-after"] == "30"
        assert "60 tokens a minute" in refused.json()["error"]["message"]

    Site(KeyRing(file)).visit(work)


def test_a_stream_is_charged_when_it_ends(file: Path) -> None:
    full = kept(file, tokens_per_minute=60)

    async def work(ask: Ask) -> None:
        assert (await ask("/v1/stream", full)).text == "one two"
        left = (await ask("/v1/models", full)).headers["x-ratelimit-remaining-tokens"]
        assert left == "10"

    Site(KeyRing(file)).visit(work)


def test_a_place_is_free_again_after_an_answer_an_error_and_a_client_that_left(file: Path) -> None:
    full = kept(file, concurrent_requests=1)
    site = Site(KeyRing(file))

    async def work(ask: Ask) -> None:
        inside = asyncio.create_task(ask("/v1/waiting", full))
        await site.begun.wait()
        refused = await ask("/v1/models", full)
        assert refused.status_code == 429 and refused.headers["retry-after"] == "1"
        assert "1 requests at a time" in refused.json()["error"]["message"]
        assert (await ask("/healthz", full)).status_code == 200
        inside.cancel()
        with pytest.raises(asyncio.CancelledError):
            await inside
        for path in ("/v1/models", "/v1/failing", "/v1/stream", "/nowhere", "/v1/models"):
            assert (await ask(path, full)).status_code != 429

    site.visit(work)


def test_where_nobody_is_asked_for_a_key_the_limits_are_for_all_together() -> None:
    async def work(ask: Ask) -> None:
        first, second = await ask("/v1/models"), await ask("/v1/models", "sk-whatever")
        assert first.json() == {"name": "anybody"}
        assert (first.status_code, second.status_code) == (200, 429)

    Site(None, Limits(requests_per_minute=1)).visit(work)


def test_beyond_the_capacity_of_all_requests_are_refused_unread_whoever_sends_them() -> None:
    site = Site(None, capacity=1)

    async def work(ask: Ask) -> None:
        inside = asyncio.create_task(ask("/v1/waiting"))
        await site.begun.wait()
        refused = await ask("/v1/stream")
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "overloaded")
        assert refused.headers["retry-after"] == "1"
        assert (await ask("/v1/models")).status_code == 200  # which costs no engine anything
        inside.cancel()
        with pytest.raises(asyncio.CancelledError):
            await inside
        assert (await ask("/v1/stream")).status_code == 200

    site.visit(work)
