"""The page's HTTP side: its files, and a handful of JSON routes that know no system's name.

Who may ask: on localhost the programs of this machine, under localhost's names, which keeps away
pages of other sites whose name was made to lead here. Elsewhere whoever has the token.
"""

from __future__ import annotations

import hmac
import json
import logging
import threading
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bayling import page
from bayling.rating.session import Refused, Session, rater_name

log = logging.getLogger(__name__)

LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
_LOCAL_NAMES = (*LOCAL_HOSTS, "[::1]")
"""As they stand in a Host header."""
_FOLDER = Path(__file__).with_name("rate")
_LONGEST_BODY = 4096

_Handler = Callable[[Request], Awaitable[Response]]


def application(
    session: Session,
    *,
    token: str | None = None,
    rater: str | None = None,
    when_paused: Callable[[], object] = lambda: None,
) -> Starlette:
    """The app.

    Args:
        token: what callers must know; None on localhost, where its names are asked for instead.
        rater: whose votes these are; None to have each rater say their name.
        when_paused: called, in a thread of its own, when a rater pauses or has judged everything.
    """

    def guarded(work: Callable[[Request], Awaitable[Any]]) -> _Handler:
        async def answer(request: Request) -> Response:
            try:
                if token is not None and not _knows(request, token):
                    raise HTTPException(401, "open the link that `bayling rate` has printed")
                return _json(await work(request))
            except Refused as error:
                return _json({"error": str(error)}, 400)
            except HTTPException as error:
                return _json({"error": error.detail}, error.status_code)
            except OSError as error:
                log.exception("a vote could not be kept")
                reason = error.strerror or error
                return _json({"error": f"the vote could not be saved: {reason}"}, 507)

        return answer

    def named(text: Any) -> str:
        if rater is not None:
            return rater
        if not isinstance(text, str):
            raise Refused("say who you are: rater is a text")
        return rater_name(text)

    def asking(request: Request) -> str:
        return named(request.query_params.get("rater"))

    async def overview(request: Request) -> Any:
        return {**session.overview(), "rater": rater}

    async def progress(request: Request) -> Any:
        who = asking(request)
        return {"rater": who, "items": session.progress(who)}

    async def item(request: Request) -> Any:
        return session.item(request.path_params["number"], asking(request))

    async def vote(request: Request) -> Any:
        sent = await _body(request)
        await run_in_threadpool(
            session.vote,
            request.path_params["number"],
            named(sent.get("rater")),
            sent.get("ranks"),
            sent.get("bad"),
            sent.get("seconds"),
        )
        return {}

    async def withdraw(request: Request) -> Any:
        await run_in_threadpool(
            session.withdraw,
            request.path_params["number"],
            named((await _body(request)).get("rater")),
        )
        return {}

    async def pause(request: Request) -> Any:
        await _body(request)
        # The rater does not wait for a tracking store.
        threading.Thread(target=when_paused, daemon=True).start()
        return {}

    routes = [
        *page.routes(_FOLDER),
        Route("/api/overview", guarded(overview)),
        Route("/api/progress", guarded(progress)),
        Route("/api/items/{number:int}", guarded(item)),
        Route("/api/items/{number:int}/vote", guarded(vote), methods=["PUT"]),
        Route("/api/items/{number:int}/vote", guarded(withdraw), methods=["DELETE"]),
        Route("/api/pause", guarded(pause), methods=["POST"]),
    ]
    guards = []
    if token is None:
        guards.append(
            Middleware(TrustedHostMiddleware, allowed_hosts=_LOCAL_NAMES, www_redirect=False)
        )
    return Starlette(routes=routes, middleware=guards)


def _knows(request: Request, token: str) -> bool:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.encode(), token.encode())


async def _body(request: Request) -> dict[str, Any]:
    # A page of another site cannot send this type without being asked whether it may.
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(415, "content-type is to be application/json")
    length = request.headers.get("content-length", "")
    if not length.isdecimal():
        raise HTTPException(411, HTTPStatus.LENGTH_REQUIRED.phrase)
    if int(length) > _LONGEST_BODY:
        raise HTTPException(413, f"more than {_LONGEST_BODY} bytes")
    try:
        sent = json.loads(await request.body())
    except ValueError:
        raise Refused("the body is no JSON") from None
    if not isinstance(sent, dict):
        raise Refused("the body is no object")
    return sent


def _json(content: Any, status: int = 200) -> Response:
    headers = {
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        "cross-origin-resource-policy": "same-origin",
    }
    return JSONResponse(content, status, headers)
