"""The HTTP API: OpenAI's, and translations of its own."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from fastapi import FastAPI

from bayling import __version__
from bayling.serve import chat, completions, errors, playground, translations
from bayling.serve.config import ServeConfig
from bayling.serve.errors import ErrorBody
from bayling.serve.fleet import Fleet, Version
from bayling.serve.schema import ModelCard, ModelList, Status

_ERRORS = (400, 401, 404, 408, 413, 415, 429, 500, 503, 504)


def create_app(fleet: Fleet, ready: Callable[[], Awaitable[None]], config: ServeConfig) -> FastAPI:
    """The API over all versions of a model that are served.

    Args:
        ready: returns when requests would be answered; raises Unavailable otherwise.
    """
    app = FastAPI(
        title="BayLing",
        version=__version__,
        description=f"The model {fleet.name}.",
        responses={status: {"model": ErrorBody} for status in _ERRORS},
    )
    errors.install(app)
    started = int(time.time())

    def card(identity: str, version: Version) -> ModelCard:
        parent, _, adapter = identity.partition(":")
        return ModelCard(
            id=identity,
            created=started,
            version=version.version,
            context_length=version.answering.limits.context_length,
            languages=version.languages,
            page=version.page,
            parent=parent if adapter else None,
        )

    @app.get("/healthz")
    async def healthz() -> Status:
        """This process is alive."""
        return Status()

    @app.get("/readyz")
    async def readyz() -> Status:
        """Requests will be answered; 503 otherwise. Wakes no engine."""
        try:
            await ready()
        except errors.Unavailable as error:
            raise errors.from_engine(error) from None
        return Status()

    @app.get("/v1/models")
    async def models() -> ModelList:
        """The model, each of its versions where there are several, and its adapters."""
        cards = [card(fleet.name, fleet.main)]
        cards += [card(f"{fleet.name}:{adapter}", fleet.main) for adapter in fleet.adapters]
        if len(fleet.versions) > 1:
            cards += [card(version.id, version) for version in fleet.versions]
        return ModelList(data=cards)

    @app.get("/v1/models/{name}")
    async def model(name: str) -> ModelCard:
        return card(name, fleet.main if name == fleet.name else fleet.choose(name, ""))

    app.include_router(chat.router(fleet, config.keep_alive_s))
    app.include_router(completions.router(fleet, config.keep_alive_s))
    # Half a batch, so that one long list leaves room for others.
    at_once = max(1, config.max_batch // 2)
    app.include_router(
        translations.router(fleet, at_once=at_once, keep_alive_s=config.keep_alive_s)
    )
    app.include_router(playground.router())
    return app
