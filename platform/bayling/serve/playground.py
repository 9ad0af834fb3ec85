"""The page at `/` on which a person tries the model. Plain files, and nothing from elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import Response

_FOLDER = Path(__file__).with_name("playground")
_PAGE = "index.html"
_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# The page may run its own files and talk to its own server, and to nobody else.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    # Kept, but asked for each time: a server that was updated must not meet an old page.
    "cache-control": "no-cache",
}


def router() -> APIRouter:
    """`/`, and the page's files below `/playground/`; read once, from the package."""
    routes = APIRouter(include_in_schema=False)
    for path in sorted(_FOLDER.iterdir()):
        where = "/" if path.name == _PAGE else f"/playground/{path.name}"
        routes.add_api_route(where, _file(path), methods=["GET", "HEAD"])
    return routes


def _file(path: Path) -> Callable[[Request], Awaitable[Response]]:
    content = path.read_bytes()
    tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    headers = {**_HEADERS, "etag": tag}
    media_type = _MEDIA_TYPES[path.suffix]

    async def answer(request: Request) -> Response:
        known = request.headers.get("if-none-match", "")
        if tag in (one.strip().removeprefix("W/") for one in known.split(",")):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=media_type)

    return answer
