"""The files of the page at `/`, and how they are sent."""

from __future__ import annotations

import asyncio
import re
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

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


class Inline(HTMLParser):
    """Finds what a strict policy forbids, and every address."""

    def __init__(self) -> None:
        super().__init__()
        self.forbidden: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "style" or (tag == "script" and "src" not in given):
            self.forbidden.append(tag)
        self.forbidden += [name for name in given if name == "style" or name.startswith("on")]
        self.addresses += [str(given[name]) for name in ("src", "href") if name in given]


def test_the_page_has_no_inline_code_and_names_only_its_own_files() -> None:
    page = Inline()
    page.feed((FOLDER / "index.html").read_text("utf-8"))
    assert not page.forbidden
    for address in page.addresses:
        assert address.startswith("#") or (FOLDER / Path(address).name).exists(), address
    for path in FOLDER.iterdir():
        found = re.findall(r"(?:https?:)?//[\w.-]+\.[\w.-]+", path.read_text("utf-8"))
        assert set(found) <= {"http://www.w3.org"}, f"{path.name}: {found}"
