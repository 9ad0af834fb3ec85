"""Errors as OpenAI's clients expect them: a status, and an object `error` in the body."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from bayling.engines.protocol import EngineFailed, PromptTooLong, RequestRefused
from bayling.serve import observed
from bayling.serve.streams import event

log = logging.getLogger(__name__)


class ErrorObject(BaseModel):
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    error: ErrorObject


class ApiError(Exception):
    """A request that gets no answer but a reason."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        if self.status == 429:
            kind = "rate_limit_error"
        error = ErrorObject(message=str(self), type=kind, param=self.param, code=self.code)
        return ErrorBody(error=error).model_dump()

    def response(self) -> JSONResponse:
        """The answer to the current request, of which it is noted down."""
        observed.current().failed(self.status, self.code)
        return JSONResponse(self.body(), self.status, self.headers)


class Overloaded(Exception):
    """As many requests wait already as may."""


class Unavailable(Exception):
    """No engine replica answers. The message says why."""


class Starting(Unavailable):
    """No replica has taken the request: one may be starting, which takes its time."""

    def __init__(self, waited_s: float) -> None:
        super().__init__(waited_s)
        self.waited_s = waited_s

    def __str__(self) -> str:
        return f"no engine took the request within {self.waited_s:g} s: one may be starting"


def from_engine(error: Exception) -> ApiError:
    """The answer to a request that the engine, or the way to it, failed."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, PromptTooLong):
        return ApiError(400, str(error), param="messages", code="context_length_exceeded")
    if isinstance(error, RequestRefused):
        return ApiError(400, str(error))
    if isinstance(error, Overloaded):
        return ApiError(
            429,
            "the model has as many requests waiting as it takes: try again in a moment",
            code="overloaded",
            headers={"retry-after": "1"},
        )
    if isinstance(error, TimeoutError):
        return ApiError(504, "the answer took longer than the server allows", code="timeout")
    if isinstance(error, Starting):
        return ApiError(503, str(error), code="starting", headers={"retry-after": "10"})
    if isinstance(error, Unavailable):
        return ApiError(503, str(error), code="unavailable", headers={"retry-after": "5"})
    if isinstance(error, EngineFailed):
        return ApiError(500, str(error), code="engine_failed")
    log.error("a request failed", exc_info=error)
    return unexpected()


def broken_off(error: ApiError) -> str:
    """The server-sent event that ends the current request's stream with an error."""
    observed.current().failed(error.status, error.code)
    log.warning("a stream broke off: %s", error)
    return event(error.body())


def unexpected() -> ApiError:
    return ApiError(500, "the server failed on this request; its log says why", code="internal")


def _validation(error: RequestValidationError) -> ApiError:
    details = error.errors()
    if details[0]["type"] == "json_invalid":
        reason = details[0].get("ctx", {}).get("error", details[0]["msg"])
        return ApiError(400, f"the body is not JSON: {reason}", code="invalid_json")
    # Where a field may be one thing or another there are errors for each; the one with the
    # fewest is what was meant, and of its errors the one that is farthest in the body.
    places = [_place(detail["loc"], error.body) for detail in details]
    variants = [
        tuple(set(detail["loc"]) - set(place))
        for detail, place in zip(details, places, strict=True)
    ]

    def likelihood(index: int) -> tuple[int, int, int]:
        place = places[index]
        last = place[-1] if place and isinstance(place[-1], int) else -1
        return -variants.count(variants[index]), len(place), last

    meant = max(range(len(places)), key=likelihood)
    param = ".".join(map(str, places[meant])) or None
    message = str(details[meant]["msg"]).removeprefix("Value error, ")
    return ApiError(400, f"{param}: {message}" if param else message, param=param)


def _place(location: Sequence[Any], body: Any) -> list[str | int]:
    """The path in the body: ("body", "text", "list[str]", 0) is text.0 to whoever wrote it."""
    if location[0] != "body":  # in the query: there is nothing to look at
        return list(location[1:])
    place: list[str | int] = []
    for part in location[1:]:
        if isinstance(body, dict) and isinstance(part, str):
            body = body.get(part)
        elif isinstance(body, list) and isinstance(part, int):
            body = body[part]
        else:
            continue  # pydantic's name for one of the things that the field may be
        place.append(part)
    return place


def install(app: FastAPI) -> None:
    """Make every error of an app, FastAPI's own included, an OpenAI error object."""

    @app.exception_handler(ApiError)
    async def api_error(_: Request, error: ApiError) -> JSONResponse:
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def validation_error(request: Request, error: RequestValidationError) -> JSONResponse:
        # Nothing else is read as JSON: a page of another site could send it unasked.
        media_type = request.headers.get("content-type", "").partition(";")[0].strip()
        if request.method == "POST" and media_type != "application/json":
            message = "the body must be JSON: send it with content-type: application/json"
            return ApiError(415, message, code="unsupported_media_type").response()
        return _validation(error).response()

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        path, method = request.url.path, request.method
        messages = {404: f"there is nothing at {path}", 405: f"{path} does not take {method}"}
        codes = {404: "not_found", 405: "method_not_allowed"}
        message = messages.get(error.status_code, str(error.detail))
        code = codes.get(error.status_code)
        return ApiError(error.status_code, message, code=code, headers=error.headers).response()
