"""Everything that stands before the routes, in the order in which a request meets it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from bayling.serve.accounting import Accounting, Sink
from bayling.serve.admission import Admission
from bayling.serve.body import WholeBody
from bayling.serve.config import LOCAL_HOSTS, ServeConfig
from bayling.serve.envelope import Envelope
from bayling.serve.keyring import KeyRing
from bayling.serve.leaving import LastAnswers
from bayling.serve.local_names import LocalNamesOnly
from bayling.serve.presence import WhileAwaited
from bayling.serve.tracing import NOWHERE, Tracing

_READABLE_BY_SCRIPTS = (
    "retry-after",
    "x-bayling-model-version",
    "x-request-id",
    *(
        f"x-ratelimit-{what}-{kind}"
        for what in ("limit", "remaining", "reset")
        for kind in ("requests", "tokens")
    ),
)


def install(
    app: FastAPI,
    config: ServeConfig,
    version: Callable[[], str],
    *,
    share: float = 1.0,
    name_requests: bool = True,
    sinks: Sequence[Sink] = (),
    tracing: Tracing = NOWHERE,
    leaving: Callable[[str], bool] | None = None,
) -> None:
    """Put it before an app's routes.

    Args:
        version: the model's, for answers that no version has been chosen for.
        share: the part of each caller's limits that holds in this process.
        name_requests: whether answers are given an `x-request-id` here.
        sinks: who is told of each request that is over.
        leaving: whether the node with an address is about to go.

    Raises:
        UserError: the keys cannot be read.
    """
    keys = None
    if config.needs_keys:
        assert config.keys_file is not None  # validate() saw to it
        keys = KeyRing(Path(config.keys_file))
    # The last one added is the first that a request meets.
    app.add_middleware(WhileAwaited)
    app.add_middleware(WholeBody, timeout_s=config.body_timeout_s)
    app.add_middleware(
        Admission,
        keys,
        config.limits,
        config.capacity,
        share=share,
        open_metrics=config.open_metrics,
    )
    if config.cors_origins:
        # Before admission: a browser asks without a key whether it may send one.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=config.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=_READABLE_BY_SCRIPTS,
        )
    if keys is None and config.host in LOCAL_HOSTS:
        app.add_middleware(LocalNamesOnly)
    if leaving is not None:
        app.add_middleware(LastAnswers, leaving)
    app.add_middleware(Envelope, version=version, name_requests=name_requests)
    app.add_middleware(Accounting, sinks, tracing, config.log_texts)
