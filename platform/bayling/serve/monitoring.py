"""`/metrics` for Prometheus; `/internal/versions` and `/internal/report` for whoever compares
versions and rolls them out."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from bayling.serve.admission import METRICS_PATH, REPORT_PATH, VERSIONS_PATH
from bayling.serve.errors import Unavailable, from_engine
from bayling.serve.ledger import RemoteLedger
from bayling.serve.metrics import CONTENT_TYPE
from bayling.serve.reporting import Reporter


def router(
    ledger: RemoteLedger, reporter: Reporter, report: Callable[[], Awaitable[dict[str, Any]]]
) -> APIRouter:
    """The routes. What other replicas saw in the last second may be missing from the answers.

    Args:
        report: what a rollout has to know of this replica.
    """
    routes = APIRouter()

    @routes.get(METRICS_PATH)
    async def metrics() -> Response:
        """Figures of the whole fleet, in Prometheus's text format."""
        await _sent(reporter)
        try:
            text = await ledger.metrics()
        except Unavailable as error:
            raise from_engine(error) from None
        return Response(text, headers={"content-type": CONTENT_TYPE})

    @routes.get(VERSIONS_PATH)
    async def versions(since: float = 0.0) -> Response:
        """What each version did since a moment."""
        try:
            return JSONResponse(await figures(ledger, reporter, since))
        except Unavailable as error:
            raise from_engine(error) from None

    @routes.get(REPORT_PATH)
    async def rollout_report() -> JSONResponse:
        """What runs, for a rollout controller that is not in the Ray cluster."""
        return JSONResponse(await report())

    return routes


async def figures(ledger: RemoteLedger, reporter: Reporter, since: float) -> dict[str, Any]:
    """What each version did since a moment, as JSON has it.

    Returns:
        `now`, in seconds since 1970, and under `versions` for each what
        `bayling.serve.stats.VersionStats` reads.

    Raises:
        Unavailable: the ledger does not answer.
    """
    await _sent(reporter)
    stats = await ledger.versions(since)
    return {
        "now": time.time(),
        "versions": {version: one.to_json() for version, one in stats.items()},
    }


async def _sent(reporter: Reporter) -> None:
    # What this replica has seen is to be in its own answer. If it cannot be sent, the question to
    # the ledger will say why.
    with suppress(Exception):
        await reporter.flush()
