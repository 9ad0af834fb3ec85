"""What runs in Ray Serve: the API, and an autoscaled engine for each version of the model.

Every version is an application of its own, so that one can come and go beside the others; the
API finds them by name. Ray Serve imports the builders at the end by their path, with arguments
in JSON: the same description works on this machine and in a RayService.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.config import AutoscalingConfig

from bayling import engines
from bayling.engines.protocol import Chunk, EngineFailed, Sampling, Scored
from bayling.model_folder import Serving, load_chat
from bayling.registry.pages import version_page
from bayling.serve import front
from bayling.serve.answering import Answering, Limits
from bayling.serve.app import create_app
from bayling.serve.application import Arguments, engine_application
from bayling.serve.fleet import Fleet, Version
from bayling.serve.listener import Listener
from bayling.serve.readiness import Readiness
from bayling.serve.remote import RemoteTokens

log = logging.getLogger(__name__)

API_REPLICAS = 1
"""Each of them watches over its share of the callers' limits."""
_ENGINE_HEALTH_PERIOD_S = 2.0
_TELL_WITHIN_S = 0.5
"""What a replica whose engine has ended gives its requests to be told so."""


class Engine:
    """A replica with one version of the model in it. Tokens in, tokens out."""

    def __init__(self, arguments: Arguments, version: str) -> None:
        config = arguments.config
        folder = arguments.served.folder(version)
        self._engine = engines.load(
            config.engine.value,
            folder,
            device=arguments.device,
            dtype=config.dtype.value,
            max_batch=config.max_batch,
            context_length=Serving.read(folder).context_length,
            threads=config.engine_cpus,
        )
        # A replica that cannot generate must not become ready.
        self._engine.generate_all([[0]], Sampling(max_new_tokens=2))

    async def generate(
        self, request_id: str, token_ids: list[int], sampling: Sampling, every_s: float
    ) -> AsyncIterator[Chunk]:
        """As the engine's, after an empty chunk that says that the request has arrived.

        Serve cancels this when the caller goes away, and so the engine's work on it ends.
        """
        yield Chunk([])
        try:
            async for chunk in self._engine.generate(
                request_id, token_ids, sampling, every_s=every_s
            ):
                yield chunk
        except EngineFailed:
            self._end_if_broken()
            raise

    async def score(self, request_id: str, token_ids: list[int], top: int) -> list[Scored]:
        """As the engine's."""
        try:
            return await self._engine.score(request_id, token_ids, top)
        except EngineFailed:
            self._end_if_broken()
            raise

    async def ongoing(self) -> int:
        """How many requests this replica generates for or has waiting."""
        return self._engine.ongoing()

    def check_health(self) -> None:
        """Asked by Serve, which replaces the replica when this raises."""
        self._engine.health()

    def _end_if_broken(self) -> None:
        """Make room for a replica with an engine that works.

        Serve would ask for the health three times before it does, and a replica that fails
        everything at once looks like the least busy one meanwhile.
        """
        try:
            self._engine.health()
        except EngineFailed as error:
            log.error("this replica ends: %s", error)
            asyncio.get_running_loop().call_later(_TELL_WITHIN_S, os._exit, 1)


class Api:
    """The HTTP side: text, templates and errors. Needs no accelerator."""

    def __init__(self, arguments: Arguments) -> None:
        self._arguments = arguments
        self._fleet = Fleet(arguments.served.name, self._version)
        readiness = Readiness()

        async def ready() -> None:
            await readiness.check(engine_application(self._fleet.main.version))

        self._fastapi = create_app(self._fleet, ready, arguments.config)
        front.install(
            self._fastapi,
            arguments.config,
            self._fleet.main_version,
            share=1 / API_REPLICAS,
            name_requests=arguments.listen,
        )
        self._listener: Listener | None = None

    async def reconfigure(self, plan: dict[str, Any]) -> None:
        """What Serve calls at the start and with every new plan.

        Args:
            plan: under `shares` each version's share of the traffic.
        """
        await asyncio.to_thread(self._fleet.update, plan["shares"])
        if self._arguments.listen and self._listener is None:
            config = self._arguments.config
            self._listener = await Listener.start(self._fastapi, config.host, config.port)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """What Serve calls, where it listens itself, for the ASGI application to run."""
        return self._fastapi

    def check_health(self) -> None:
        """Asked by Serve, which replaces the replica when this raises."""
        if self._listener is not None:
            self._listener.check()

    def _version(self, version: str) -> Version:
        config = self._arguments.config
        folder = self._arguments.served.folder(version)
        serving = Serving.read(folder)
        answering = Answering(
            load_chat(folder, serving.template),
            RemoteTokens(engine_application(version), config.cold_start_wait_s),
            Limits(
                context_length=serving.context_length,
                max_new_tokens=config.max_new_tokens,
                stream_interval_s=config.stream_interval_s,
                timeout_s=config.request_timeout_s,
            ),
            config.identity.by_placeholder(),
        )
        served = self._arguments.served
        page = version_page(config.mlflow_url or served.tracking_uri, served.name, version)
        return Version(served.name, version, serving.languages, answering, page)


def engine(arguments: dict[str, Any]) -> serve.Application:
    """The engines of one version: `{"version": …}` beside the arguments of all."""
    version = str(arguments["version"])
    own = Arguments.read(arguments)
    config = own.config
    return (
        serve.deployment(Engine)
        .options(
            name="Engine",
            ray_actor_options={"num_cpus": config.engine_cpus, "num_gpus": own.gpus},
            max_ongoing_requests=config.max_ongoing_requests,
            max_queued_requests=config.max_queued_requests,
            max_constructor_retry_count=1,
            health_check_period_s=_ENGINE_HEALTH_PERIOD_S,
            # A replica that is to go finishes what it has begun.
            graceful_shutdown_timeout_s=config.request_timeout_s,
            autoscaling_config=AutoscalingConfig(
                min_replicas=config.min_replicas,
                # One in any case: a version that does not even load is to be found out now.
                initial_replicas=max(1, config.min_replicas),
                max_replicas=config.max_replicas,
                target_ongoing_requests=config.target_ongoing_requests,
                look_back_period_s=config.look_back_s,
                upscale_delay_s=config.upscale_delay_s,
                downscale_delay_s=config.downscale_delay_s,
                downscale_to_zero_delay_s=config.downscale_to_zero_delay_s,
            ),
        )
        .bind(own, version)
    )


def api(arguments: dict[str, Any]) -> serve.Application:
    """The API before the engines of all versions."""
    own = Arguments.read(arguments)
    config = own.config
    deployed = serve.deployment(Api if own.listen else serve.ingress()(Api))
    return deployed.options(
        name="Api",
        num_replicas=API_REPLICAS,
        ray_actor_options={"num_cpus": 0},
        # More than it takes: it refuses the rest itself, with a body that clients understand, and
        # Serve's own refusal has none.
        max_ongoing_requests=config.capacity + 1000,
        max_constructor_retry_count=1,
    ).bind(own)
