"""The Ray Serve application: an API deployment before an autoscaled engine deployment."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.config import AutoscalingConfig
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from bayling import engines
from bayling.engines.protocol import Chunk, Sampling
from bayling.model_folder import Serving, load_chat
from bayling.scale import ScaleConfig
from bayling.serve.answering import Answering
from bayling.serve.app import About, create_app
from bayling.serve.config import ServeConfig
from bayling.serve.errors import Overloaded, Unavailable

_READY_WITHIN_S = 2.0
_HEARD_LATELY_S = 5.0


@dataclass(frozen=True)
class ServedModel:
    """A version of a registered model, and where its files are."""

    tracking_uri: str
    name: str
    version: str
    folder: str | None = None
    """The exported folder on every node; without one each replica fetches the files."""

    def local_folder(self) -> Path:
        """The exported folder on this machine."""
        if self.folder is not None:
            return Path(self.folder)
        from bayling.registry import models

        return models.fetch(self.tracking_uri, self.name, self.version)


class Engine:
    """A replica with the model in it. Tokens in, tokens out."""

    def __init__(self, served: ServedModel, config: ServeConfig, device: str) -> None:
        folder = served.local_folder()
        self._engine = engines.load(
            config.engine.value,
            folder,
            device=device,
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
        """Serve cancels this when the caller goes away, and so the engine's work on it ends."""
        async for chunk in self._engine.generate(request_id, token_ids, sampling, every_s=every_s):
            yield chunk

    async def ongoing(self) -> int:
        """How many requests this replica generates for or has waiting."""
        return self._engine.ongoing()

    async def ready(self) -> None:
        self._engine.health()

    def check_health(self) -> None:
        """Asked by Serve, which replaces the replica when this raises."""
        self._engine.health()


class RemoteTokens:
    """`Tokens` from the replicas of the engine deployment."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle
        self._streams = handle.options(stream=True)
        self._heard = -math.inf

    async def generate(
        self, request_id: str, token_ids: Sequence[int], sampling: Sampling, *, every_s: float
    ) -> AsyncIterator[Chunk]:
        chunks = self._streams.generate.remote(request_id, list(token_ids), sampling, every_s)
        finished = False
        try:
            async for chunk in chunks:
                self._heard = time.monotonic()
                finished = chunk.finish_reason is not None
                yield chunk
        except (RayError, RayServeException) as error:
            raise _own(error) from error
        except BaseException:
            if not finished:  # whoever wanted the rest has left
                chunks.cancel()
            raise

    async def ready(self) -> None:
        # Under load the question would wait behind the requests that prove the answer.
        if time.monotonic() - self._heard < _HEARD_LATELY_S:
            return
        try:
            async with asyncio.timeout(_READY_WITHIN_S):
                await self._handle.ready.remote()
        except TimeoutError:
            raise Unavailable(f"no engine answered within {_READY_WITHIN_S:g} s") from None
        except BackPressureError:
            return
        except Exception as error:
            raise Unavailable(f"no engine is ready: {_own(error)}") from error


def _own(error: Exception) -> Exception:
    """What the engine raised, without the wrapping it travelled in."""
    if isinstance(error, BackPressureError):
        return Overloaded()
    if isinstance(error, RayTaskError) and isinstance(error.cause, Exception):
        return error.cause
    return Unavailable("the engine that worked on this request is gone")


class Api:
    """The HTTP side: text, templates and errors. Needs no accelerator."""

    def __init__(self, served: ServedModel, config: ServeConfig, engine: DeploymentHandle) -> None:
        folder = served.local_folder()
        serving = Serving.read(folder)
        answering = Answering(
            load_chat(folder, serving.template),
            RemoteTokens(engine),
            context_length=serving.context_length,
            max_new_tokens=config.max_new_tokens,
            stream_interval_s=config.stream_interval_s,
            timeout_s=config.request_timeout_s,
        )
        about = About(served.name, served.version, serving.context_length, serving.languages)
        # One long list takes half a replica, and so leaves room for everybody else.
        self._fastapi = create_app(about, answering, at_once=max(1, config.max_batch // 2))

    def __serve_build_asgi_app__(self) -> FastAPI:
        """What Serve calls, after the constructor, for the ASGI application to run."""
        return self._fastapi


def application(config: ServeConfig, served: ServedModel, scale: ScaleConfig) -> serve.Application:
    """The bound application, for `serve.run`."""
    engine = (
        serve.deployment(Engine)
        .options(
            ray_actor_options={"num_cpus": config.engine_cpus, "num_gpus": scale.gpus_per_worker},
            max_ongoing_requests=config.max_ongoing_requests,
            max_queued_requests=config.max_queued_requests,
            autoscaling_config=AutoscalingConfig(
                min_replicas=config.min_replicas,
                max_replicas=config.max_replicas,
                target_ongoing_requests=config.target_ongoing_requests,
                upscale_delay_s=config.upscale_delay_s,
                downscale_delay_s=config.downscale_delay_s,
            ),
            max_constructor_retry_count=1,
        )
        .bind(served, config, scale.device.value)
    )
    # The API holds every request that the engines hold or have queued, and refuses the rest
    # itself, with a body that clients understand; Serve's own refusal has none.
    held = config.max_replicas * config.max_ongoing_requests + config.max_queued_requests
    return (
        serve.deployment(serve.ingress()(Api))
        .options(
            num_replicas=1,
            ray_actor_options={"num_cpus": 0},
            max_ongoing_requests=held + 1000,
            max_constructor_retry_count=1,
        )
        .bind(served, config, engine)
    )
