"""What the platform's pages in a browser have in common: how they are sent, and how they look.

A page is a folder of plain files with an `index.html`, and loads nothing from elsewhere. The files
beside this module (colours, buttons, the theme, names of languages) are every page's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

COMMON = Path(__file__).parent
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


def routes(folder: Path) -> list[BaseRoute]:
    """`/`, and the page's and the common files below `/NAME/`, where NAME is the folder's.

    Each file is read once, now.
    """
    files = {path.name: path for place in (COMMON, folder) for path in sorted(place.iterdir())}
    return [
        Route("/" if name == _PAGE else f"/{folder.name}/{name}", _file(path))
        for name, path in files.items()
        if path.suffix in _MEDIA_TYPES
    ]


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
