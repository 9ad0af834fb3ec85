"""What runs in Ray Serve: the API, and an autoscaled engine for each version of the model.

Every version is an application of its own, so that one can come and go beside the others; the
API finds them by name. Ray Serve imports the builders at the end by their path, with arguments
in JSON: the same description works on this machine and in a RayService.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.config import AutoscalingConfig
from ray.serve.handle import DeploymentHandle

from bayling.engines.options import EngineOptions
from bayling.engines.protocol import Chunk, EngineFailed, Sampling, Scored
from bayling.model_folder import Serving, load_chat
from bayling.registry.pages import version_page
from bayling.serve import front, logs, monitoring, replica_engine, routing
from bayling.serve.accounting import Sink, write_down
from bayling.serve.answering import Answering, Limits
from bayling.serve.app import create_app
from bayling.serve.application import Arguments, engine_application
from bayling.serve.config import TEXTS_ARE_LOGGED
from bayling.serve.errors import ApiError
from bayling.serve.fleet import Fleet, Version
from bayling.serve.leaving import Nodes
from bayling.serve.ledger import LEDGER, Ledger, RemoteLedger
from bayling.serve.listener import Listener
from bayling.serve.mlflow_traces import MlflowTraces
from bayling.serve.readiness import Readiness
from bayling.serve.remote import RemoteTokens
from bayling.serve.reporting import EngineState, Reporter
from bayling.serve.schema import SamplingFields
from bayling.serve.tracing import Tracing
from bayling.templates import Message

log = logging.getLogger(__name__)

API_REPLICAS = 1
"""Each of them watches over its share of the callers' limits."""
_ENGINE_HEALTH_PERIOD_S = 2.0
_A_PLACE = 0.001
"""Of the resource that the API's nodes have: room for as many as there may be."""
_TELL_WITHIN_S = 0.5
"""What a replica whose engine has ended gives its requests to be told so."""


class Engine:
    """A replica with one version of the model in it. Tokens in, tokens out."""

    def __init__(self, arguments: Arguments, version: str) -> None:
        began = time.monotonic()
        config = arguments.config
        self._version = version
        self._tracing = _begin("Engine", arguments)
        folder = arguments.served.folder(version)
        self._engine = replica_engine.load(
            config.engine,
            folder,
            EngineOptions(
                device=arguments.device,
                dtype=config.dtype.value,
                max_batch=config.max_batch,
                context_length=Serving.read(folder).context_length,
                threads=config.engine_cpus,
                kv_cache_gib=config.kv_cache_gib,
                tensor_parallel=config.tensor_parallel,
                quantization=config.quantization,
                adapters=config.adapter_folders,
            ),
            _replica(),
        )
        # A replica that cannot generate must not become ready.
        self._engine.generate_all([[0]], Sampling(max_new_tokens=2))
        self._start_s = time.monotonic() - began
        Reporter(RemoteLedger.of_api().take, self._state).start()

    async def generate(
        self,
        request_id: str,
        token_ids: list[int],
        sampling: Sampling,
        every_s: float,
        trace: Mapping[str, str],
    ) -> AsyncIterator[Chunk]:
        """As the engine's, after an empty chunk that says that the request has arrived.

        Serve cancels this when the caller goes away, and so the engine's work on it ends.

        Args:
            trace: the headers of the trace that it belongs to.
        """
        logs.about(request_id)
        tokens, last = 0, Chunk([])
        span = self._tracing.work(trace, self._version, (request_id, len(token_ids), sampling))
        yield Chunk([])
        try:
            async for chunk in self._engine.generate(
                request_id, token_ids, sampling, every_s=every_s
            ):
                span.made(chunk)
                tokens, last = tokens + len(chunk.ids), chunk
                yield chunk
        except EngineFailed as error:
            span.failed(error)
            log.error("the engine failed on a request: %s", error)
            self._end_if_broken()
            raise
        finally:
            span.end()
            fields = {
                "engine_id": request_id,
                "version": self._version,
                "prompt_tokens": len(token_ids),
                "completion_tokens": tokens,
                "finish_reason": last.finish_reason,
                "cached_tokens": last.cached_tokens,
                **(asdict(last.timing) if last.timing else {}),
            }
            log.info("generated", extra={logs.FIELDS: fields})

    async def score(
        self, request_id: str, token_ids: list[int], top: int, adapter: str | None
    ) -> list[Scored]:
        """As the engine's."""
        try:
            return await self._engine.score(request_id, token_ids, top, adapter)
        except EngineFailed:
            self._end_if_broken()
            raise

    async def ongoing(self) -> int:
        """How many requests this replica generates for or has waiting."""
        return self._engine.ongoing()

    def check_health(self) -> None:
        """Asked by Serve, which replaces the replica when this raises."""
        self._engine.health()

    def _state(self) -> EngineState:
        load = self._engine.load()
        return EngineState(
            self._version, load.running, load.waiting, load.cache_used, self._start_s
        )

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

    def __init__(self, arguments: Arguments, ledger: DeploymentHandle) -> None:
        self._arguments = arguments
        tracing = _begin("Api", arguments)
        if arguments.config.log_texts:
            log.warning(TEXTS_ARE_LOGGED)
        self._ledger = RemoteLedger(lambda: ledger)
        self._reporter = Reporter(self._ledger.take)
        self._reporter.start()
        self._fleet = Fleet(
            arguments.served.name, self._version, tuple(arguments.config.adapter_folders)
        )
        self._ongoing: Counter[str] = Counter()
        self._started = False
        self._loading: set[asyncio.Task[None]] = set()
        self._readiness = Readiness()

        async def ready() -> None:
            await self._readiness.check(engine_application(self._fleet.main.version))

        self._fastapi = create_app(self._fleet, ready, arguments.config)
        front.install(
            self._fastapi,
            arguments.config,
            self._fleet.main_version,
            share=1 / API_REPLICAS,
            name_requests=arguments.listen,
            sinks=self._sinks(),
            tracing=tracing,
            leaving=Nodes().leaving,
        )
        self._fastapi.include_router(
            monitoring.router(self._ledger, self._reporter, self._report_with_engines)
        )
        self._listener: Listener | None = None

    async def reconfigure(self, plan: dict[str, Any]) -> None:
        """What Serve calls at the start and with every new plan.

        Args:
            plan: under `shares` each version's share of the traffic; none where no version is
                promoted yet.
        """
        self._fleet.take(plan["shares"])
        loading = asyncio.create_task(asyncio.to_thread(self._fleet.load))
        if not self._started:
            await loading
            self._started = True
        else:
            # Ray Serve sends this replica nothing until the call is over, and a version's files
            # may have to come from far away. `report` says what has been taken up.
            self._loading.add(loading)
            loading.add_done_callback(self._loaded)
        if self._arguments.listen and self._listener is None:
            config = self._arguments.config
            self._listener = await Listener.start(self._fastapi, config.host, config.port)

    def _loaded(self, loading: asyncio.Task[None]) -> None:
        self._loading.discard(loading)
        if not loading.cancelled():
            loading.exception()  # the fleet has logged it, and `report` says it

    def __serve_build_asgi_app__(self) -> FastAPI:
        """What Serve calls, where it listens itself, for the ASGI application to run."""
        return self._fastapi

    def check_health(self) -> None:
        """Asked by Serve, which replaces the replica when this raises."""
        if self._listener is not None:
            self._listener.check()

    def _sinks(self) -> list[Sink]:
        """Who is told of a request that is over."""
        config, reporter = self._arguments.config, self._reporter
        sinks: list[Sink] = [lambda observed, _: reporter.add(observed), write_down]
        if config.mlflow_traces:
            loop = asyncio.get_running_loop()
            served = self._arguments.served
            traces = MlflowTraces(
                served.tracking_uri,
                served.name,
                config.mlflow_traces,
                lambda: loop.call_soon_threadsafe(reporter.lose, "mlflow_traces"),
            )
            sinks.append(traces.add)
        return sinks

    async def report(self) -> dict[str, Any]:
        """What a rollout has to know of this replica, as JSON has it.

        Returns the `shares` that hold; the `troubles` with versions that could not be loaded; each
        version's `languages`; and how many requests are `ongoing` for each, those included that
        are not served to anybody new.
        """
        return {
            "shares": self._fleet.shares,
            "troubles": self._fleet.troubles,
            "languages": {one.version: one.languages for one in self._fleet.versions},
            "ongoing": dict(self._ongoing),
        }

    async def _report_with_engines(self) -> dict[str, Any]:
        """The report, and what Ray Serve says of the `engines` of each application by name."""
        return {**await self.report(), "engines": await self._readiness.engines()}

    async def figures(self, since: float) -> dict[str, Any]:
        """What each version did since a moment, in the whole fleet: see `monitoring.figures`."""
        return await monitoring.figures(self._ledger, self._reporter, since)

    async def ask(self, model: str, prompt: str, max_tokens: int) -> dict[str, Any]:
        """An answer as a request over HTTP would get it, without a key and counted for nobody.

        Returns its `text`, or the `status` that the request would have got and the `error`.
        """
        try:
            version = self._fleet.choose(model, prompt)
            fields = SamplingFields.model_validate({"max_tokens": max_tokens})
            asked = version.answering.prompt([Message("user", prompt)], fields)
            answer = await version.answering.answer(asked, lambda tokens: None)
        except ApiError as error:
            return {"status": error.status, "error": str(error)}
        return {"text": answer.text}

    def _version(self, version: str) -> Version:
        config = self._arguments.config
        folder = self._arguments.served.folder(version, weights=False)
        serving = Serving.read(folder)
        application = engine_application(version)
        answering = Answering(
            load_chat(folder, serving.template),
            RemoteTokens(application, config.cold_start_wait_s, partial(self._count, version)),
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

    def _count(self, version: str, more: int) -> None:
        self._ongoing[version] += more


def _begin(deployment: str, arguments: Arguments) -> Tracing:
    """What comes first in a replica: its log, and where its spans go."""
    replica = _replica()
    logs.install(deployment, replica)
    return Tracing.start(arguments.config.tracing, arguments.served.name, deployment, replica)


def _replica() -> str:
    return str(serve.get_replica_context().replica_id.to_full_id_str())


def engine(arguments: dict[str, Any]) -> serve.Application:
    """The engines of one version: `{"version": …}` beside the arguments of all."""
    version = str(arguments["version"])
    own = Arguments.read(arguments)
    config = own.config
    return (
        serve.deployment(Engine)
        .options(
            name="Engine",
            ray_actor_options={"num_cpus": own.cpus, "num_gpus": own.gpus},
            max_ongoing_requests=config.max_ongoing_requests,
            # Serve counts those on their way to a replica with room as waiting ones: with the bound
            # alone, a burst that finds an idle replica would be turned away.
            max_queued_requests=config.max_queued_requests + config.max_ongoing_requests,
            max_constructor_retry_count=1,
            request_router_config=routing.config(config),
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
    place: dict[str, Any] = {"num_cpus": 0}
    if own.api_on is not None:
        place["resources"] = {own.api_on: _A_PLACE}
    ledger = (
        serve.deployment(Ledger)
        .options(name=LEDGER, num_replicas=1, ray_actor_options=place)
        .bind(own.served.name)
    )
    deployed = serve.deployment(Api if own.listen else serve.ingress()(Api))
    return deployed.options(
        name="Api",
        num_replicas=API_REPLICAS,
        ray_actor_options=place,
        # More than it takes: it refuses the rest itself, with a body that clients understand, and
        # Serve's own refusal has none.
        max_ongoing_requests=config.capacity + 1000,
        max_constructor_retry_count=1,
    ).bind(own, ledger)
