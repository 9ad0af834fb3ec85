"""The files of the page at `/`, and how they are sent."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from page_files import complaints

from bayling.serve import playground

FOLDER = Path(playground.__file__).with_name("playground")
pytestmark = pytest.mark.unit


def get(path: str, method: str = "GET", **headers: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        app = FastAPI()
        app.include_router(playground.router())
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            return await http.request(method, path, headers=headers)

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/playground/app.js", "text/javascript; charset=utf-8"),
        ("/playground/style.css", "text/css; charset=utf-8"),
        ("/playground/base.css", "text/css; charset=utf-8"),
        ("/playground/icon.svg", "image/svg+xml"),
    ],
)
def test_a_file_may_run_and_fetch_nothing_from_elsewhere(path: str, media_type: str) -> None:
    response = get(path)
    assert (response.status_code, response.headers["content-type"]) == (200, media_type)
    policy = response.headers["content-security-policy"].split("; ")
    assert "default-src 'none'" in policy and "script-src 'self'" in policy
    assert not any("unsafe" in rule or "http" in rule or "*" in rule for rule in policy)
    assert response.headers["x-content-type-options"] == "nosniff"


def test_a_file_that_is_unchanged_is_not_sent_again() -> None:
    first = get("/")
    assert first.headers["cache-control"] == "no-cache"
    for tags in (first.headers["etag"], f'"other", W/{first.headers["etag"]}'):
        again = get("/", **{"if-none-match": tags})
        assert (again.status_code, again.content) == (304, b"")
    assert get("/", **{"if-none-match": '"other"'}).status_code == 200
    assert (get("/", "HEAD").status_code, get("/", "HEAD").content) == (200, b"")


def test_there_are_no_other_files() -> None:
    for path in ("/playground/", "/playground/index.html", "/playground/../playground.py"):
        assert get(path).status_code == 404


def test_the_page_has_no_inline_code_and_names_only_its_own_files() -> None:
    assert complaints(FOLDER) == []


def test_what_a_page_must_not_have_is_found(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(
        '<script>1</script><p style="top: 0" onclick="1"></p><img src="gone.svg">'
        '<script src="https://cdn.example.org/base.css"></script>'
    )
    found = complaints(tmp_path)
    assert found[:3] == ["inline script", "inline style", "inline onclick"]
    assert found[3:] == ["gone.svg leads nowhere", "index.html: https://cdn.example.org"]
