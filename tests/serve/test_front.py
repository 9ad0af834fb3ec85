"""All that stands before the routes, together and in its order."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from bayling.errors import UserError
from bayling.serve import front, keys
from bayling.serve.config import Auth, ServeConfig
from bayling.serve.local_names import is_local

pytestmark = pytest.mark.unit

SITE = "https://example.org"


def app(config: ServeConfig) -> FastAPI:
    made = FastAPI()

    @made.get("/v1/models")
    async def models() -> dict[str, str]:
        return {}

    @made.get("/failing")
    async def failing() -> None:
        raise RuntimeError("on purpose")

    front.install(made, config, lambda: "7")
    return made


@pytest.fixture
def guarded(tmp_path: Path) -> tuple[ServeConfig, str]:
    """A configuration with keys, and one of them."""
    full, key = keys.make("app")
    keys.add(tmp_path / "keys.jsonl", key)
    return ServeConfig(host="0.0.0.0", keys_file=str(tmp_path / "keys.jsonl")), full


def ask(config: ServeConfig, path: str = "/v1/models", method: str = "GET", **headers: str) -> Any:
    names = {name.replace("_", "-"): value for name, value in headers.items()}

    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(app(config), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.request(method, path, headers=names)

    return asyncio.run(run())


def test_every_answer_tells_a_browser_what_not_to_do_with_it(
    guarded: tuple[ServeConfig, str],
) -> None:
    config, full = guarded
    key = f"Bearer {full}"
    answers = [
        ask(config, authorization=key),
        ask(config),
        ask(config, "/nowhere", authorization=key),
        ask(config, "/failing", authorization=key),
        ask(ServeConfig(), host="evil.example"),
    ]
    assert [answer.status_code for answer in answers] == [200, 401, 404, 500, 421]
    for answer in answers:
        assert answer.headers["x-bayling-model-version"] == "7"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in answer.headers


def test_a_page_of_another_site_may_ask_where_its_site_is_named(
    guarded: tuple[ServeConfig, str],
) -> None:
    config, full = guarded
    config.cors_origins = [SITE]
    preflight = {
        "access_control_request_method": "POST",
        "access_control_request_headers": "authorization, content-type, x-stainless-lang",
    }
    allowed = ask(config, method="OPTIONS", origin=SITE, **preflight)
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == SITE
    assert "authorization" in allowed.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in allowed.headers
    other = ask(config, method="OPTIONS", origin="https://example.com", **preflight)
    assert other.status_code == 400
    # Its script can read why it was refused, too.
    refused = ask(config, origin=SITE)
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, SITE)
    assert "x-request-id" in refused.headers["access-control-expose-headers"]
    assert ask(config, origin=SITE, authorization=f"Bearer {full}").status_code == 200


def test_without_sites_no_page_may_ask(guarded: tuple[ServeConfig, str]) -> None:
    config, _ = guarded
    asked = ask(config, method="OPTIONS", origin=SITE, access_control_request_method="POST")
    assert asked.status_code == 401 and "access-control-allow-origin" not in asked.headers


def test_a_server_without_keys_answers_to_localhosts_names_only() -> None:
    """What a page sees whose own name was made to lead to this machine."""
    open_ = ServeConfig()
    for host in ("127.0.0.1:8000", "localhost:9000", "[::1]:8000", "LOCALHOST"):
        assert ask(open_, host=host).status_code == 200
    for host in ("evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", ""):
        answer = ask(open_, host=host)
        assert answer.status_code == 421
        assert "serve.auth=on" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1@evil", "evil:127.0.0.1", "[::1].evil", "[::1", "::1x", "127.0.0.1:", "localhost:a"],
)
def test_a_name_that_only_looks_local_is_not(host: str) -> None:
    assert not is_local(host)


def test_a_server_with_keys_answers_to_any_name(guarded: tuple[ServeConfig, str]) -> None:
    config, full = guarded
    for local in (False, True):
        config.host = "127.0.0.1" if local else "0.0.0.0"
        answer = ask(config, host="api.example.org", authorization=f"Bearer {full}")
        assert answer.status_code == 200


def test_a_server_that_was_opened_to_everybody_asks_nobody() -> None:
    assert ask(ServeConfig(host="0.0.0.0", auth=Auth.off), host="any").status_code == 200


def test_nothing_is_read_from_a_caller_who_is_not_let_in(guarded: tuple[ServeConfig, str]) -> None:
    config, _ = guarded
    sent: list[Any] = []

    async def run() -> None:
        async def receive() -> Any:
            raise AssertionError("the body was asked for")

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"content-length", b"1000"), (b"host", b"x")]
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/models",
            "headers": headers,
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "server": ("x", 80),
        }
        await app(config)(scope, receive, send)

    asyncio.run(run())
    assert sent[0]["status"] == 401


def test_a_server_without_its_keys_does_not_start(tmp_path: Path) -> None:
    config = ServeConfig(keys_file=str(tmp_path / "keys.jsonl"))
    with pytest.raises(UserError, match=r"keys\.jsonl"):
        app(config)
