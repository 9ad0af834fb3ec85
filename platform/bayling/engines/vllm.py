"""The engine that runs a model with vLLM.

vLLM schedules, batches and computes in processes of its own. Its client lives on an event loop in
a thread here, so that callers need none and none of theirs is kept busy.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import threading
import time
from collections.abc import Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from bayling.engines import vllm_args
from bayling.engines.folder import check_context
from bayling.engines.intake import Intake, Request, Text, in_short
from bayling.engines.options import EngineOptions
from bayling.engines.protocol import EngineFailed, Load, RequestRefused, Scored, Stopped
from bayling.errors import StageFailed, UserError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig
    from vllm.lora.request import LoRARequest
    from vllm.outputs import CompletionOutput, RequestOutput
    from vllm.v1.engine.async_llm import AsyncLLM

log = logging.getLogger(__name__)

_Any = TypeVar("_Any")

_CLOSE_WITHIN_S = 10.0


class VllmEngine(Intake):
    """An `Engine` over one model in vLLM's processes."""

    def __init__(self, folder: str | Path, options: EngineOptions) -> None:
        """
        Raises:
            UserError: the folder holds no model that vLLM can run, or vLLM does not take an
                option.
            StageFailed: vLLM could not start; its log says why.
        """
        folder = Path(folder)
        config = vllm_args.read_config(folder)
        context_length = options.context_length or int(config.max_position_embeddings)
        super().__init__(context_length, int(config.vocab_size))
        check_context(folder, context_length, config)
        vllm_args.set_environment(options)
        built_for = vllm_args.built_for()
        if built_for != options.device:
            raise UserError(
                f"the vLLM that is installed was built for {built_for}, and the device is "
                f"{options.device}: install the other one, or choose engine=transformers"
            )
        self._adapters = _lora_requests(options.adapters)
        self._max_batch = options.max_batch
        self._tasks: dict[Request | Text, asyncio.Task[Any]] = {}
        """Only the loop's thread touches it."""
        self._seen = _Seen()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="engine", daemon=True)
        self._thread.start()
        try:
            self._llm = self._on_loop(self._start(folder, config, options))
        except BaseException:
            self._stop_loop()
            raise
        atexit.register(self.close)

    def load(self) -> Load:
        known = self.ongoing()
        if not known:
            return Load(0, 0, 0.0)
        running = min(known, self._max_batch, self._seen.running)
        return Load(running, known - running, self._seen.cache_used)

    def health(self) -> None:
        if self._closing or not self._thread.is_alive():
            raise EngineFailed("the engine is closed")
        if self._llm.errored:
            raise EngineFailed(f"vLLM has ended ({in_short(self._llm.dead_error)})")

    def close(self) -> None:
        with self._change:
            if self._closing:
                return
            self._closing = True
        self._on_loop(self._end())
        self._stop_loop()
        del self._llm  # its destructor would look for what the interpreter has taken down
        atexit.unregister(self.close)

    def _begin(self, requests: Sequence[Request | Text]) -> None:
        self._loop.call_soon_threadsafe(self._create_tasks, list(requests))

    def _cancel(self, request: Request | Text) -> None:
        with self._change:
            known = self._known.get(request.id) is request and not self._closing
        if known:
            self._loop.call_soon_threadsafe(self._cancel_task, request)

    def _check_own(self, request: Request) -> None:
        """Nothing: what vLLM refuses it refuses when it is given it."""

    def _check_adapter(self, adapter: str | None) -> None:
        if adapter is not None and adapter not in self._adapters:
            known = ", ".join(self._adapters) or "none"
            raise RequestRefused(f"there is no adapter {adapter!r}; there are: {known}")

    # --- on the loop's thread ----------------------------------------------------------------

    async def _start(
        self, folder: Path, config: PreTrainedConfig, options: EngineOptions
    ) -> AsyncLLM:
        args = vllm_args.engine_args(folder, config, self._context_length, options)
        from vllm.v1.engine.async_llm import AsyncLLM

        try:
            whole = args.create_engine_config()
        # What vLLM raises for networks, types and layouts that it does not know.
        except (ValueError, OSError, KeyError, NotImplementedError) as error:
            raise UserError(f"vLLM cannot run the model in {folder}: {_reason(error)}") from error
        try:
            return AsyncLLM.from_vllm_config(
                whole, stat_loggers=[self._seen.logger()], enable_log_requests=False
            )
        except Exception as error:
            raise StageFailed(
                f"vLLM did not start with the model in {folder} ({in_short(error)}); what it says "
                "above tells why, and engine=transformers may run it"
            ) from error

    async def _end(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        self._llm.shutdown(timeout=_CLOSE_WITHIN_S)
        self._fail(list(self._known.values()), "the engine was closed while it worked on this")

    def _create_tasks(self, requests: Sequence[Request | Text]) -> None:
        for request in requests:
            work = self._generate if isinstance(request, Request) else self._score
            task: asyncio.Task[Any] = self._loop.create_task(work(request))  # type: ignore[arg-type]
            self._tasks[request] = task
            task.add_done_callback(partial(self._settle, request))

    def _cancel_task(self, request: Request | Text) -> None:
        if request in self._tasks:
            self._tasks[request].cancel()

    async def _generate(self, request: Request) -> str:
        """Work on a request; returns the finish reason."""
        from vllm.inputs.engine import tokens_input

        sampling = request.sampling
        outputs = self._llm.generate(
            tokens_input(request.token_ids),
            vllm_args.sampling_params(sampling, request.every_s == float("inf")),
            request.id,
            lora_request=self._adapters[sampling.adapter] if sampling.adapter else None,
        )
        reason = "stop"
        async for output in outputs:
            [answer] = output.outputs
            _note_down(request, output)
            self._add(request, answer)
            if answer.finish_reason is not None:
                reason = answer.finish_reason
            else:
                request.hand_over(time.monotonic())
        if reason not in ("stop", "length"):
            raise EngineFailed(f"vLLM ended the answer with {reason!r}")
        return reason

    @staticmethod
    def _add(request: Request, answer: CompletionOutput) -> None:
        ids, top = answer.token_ids, request.sampling.logprobs
        scores: Sequence[Scored | None] = [None] * len(ids)
        if top is not None and ids:
            assert answer.logprobs is not None
            scores = [
                _scored(token, known, top)
                for token, known in zip(ids, answer.logprobs, strict=True)
            ]
        # A token that ends the answer comes with it.
        stopped = answer.finish_reason == "stop" and ids and ids[-1] in request.sampling.stop_ids
        if stopped:
            request.stopped_by = Stopped(ids[-1], scores[-1])
        for token, score in list(zip(ids, scores, strict=True))[: -1 if stopped else None]:
            request.add(token, score)

    async def _score(self, text: Text) -> list[Scored]:
        """Work on a text; returns its scores."""
        from vllm.inputs.engine import tokens_input

        outputs = self._llm.generate(
            tokens_input(text.token_ids),
            vllm_args.scoring_params(text.top),
            text.id,
            lora_request=self._adapters[text.adapter] if text.adapter else None,
        )
        scores: list[Scored] = []
        async for output in outputs:
            known = output.prompt_logprobs
            assert known is not None
            # Of the first token there is nothing to say.
            scores = [
                _scored(token, one or {}, text.top)
                for token, one in zip(text.token_ids[1:], known[1:], strict=True)
            ]
        return scores

    def _settle(self, request: Request | Text, task: asyncio.Task[Any]) -> None:
        """A task is over: tell who waits for it."""
        del self._tasks[request]
        if self._known.get(request.id) is not request:
            if not task.cancelled():
                task.exception()  # so that nobody is told that it was not looked at
            return
        self._forget([request])
        if task.cancelled():
            if isinstance(request, Request):
                request.finish("cancelled")
            else:
                request.fail(EngineFailed("the request was cancelled"))
            return
        error = task.exception()
        if error is not None:
            request.fail(self._failure(error))
        elif isinstance(request, Request):
            request.finish(task.result())
        else:
            request.deliver(task.result())

    def _failure(self, error: BaseException) -> EngineFailed | RequestRefused:
        from vllm.exceptions import VLLMClientError

        if isinstance(error, EngineFailed | RequestRefused):
            return error
        if isinstance(error, VLLMClientError | ValueError) and not self._llm.errored:
            return RequestRefused(f"vLLM does not take this request: {_reason(error)}")
        log.error("vLLM failed on a request: %s", in_short(error))
        return EngineFailed(f"vLLM failed ({in_short(error)})")

    def _on_loop(self, work: Coroutine[Any, Any, _Any]) -> _Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CLOSE_WITHIN_S)


class _Seen:
    """The newest of what vLLM's scheduler says of itself."""

    running = 0
    cache_used = 0.0

    def logger(self) -> Any:
        """What vLLM makes its loggers of statistics with."""
        from vllm.v1.metrics.loggers import StatLoggerBase

        seen = self

        class Logger(StatLoggerBase):  # type: ignore[misc]
            def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
                pass

            def record(self, scheduler_stats: Any, *_: Any, **__: Any) -> None:
                if scheduler_stats is not None:
                    seen.running = scheduler_stats.num_running_reqs
                    seen.cache_used = scheduler_stats.kv_cache_usage

            def log_engine_initialized(self) -> None:
                pass

        return Logger


def _note_down(request: Request, output: RequestOutput) -> None:
    """When it got its place and its first token, and what of it was known. vLLM's processes are on
    this machine, and their monotonic clock is this one's."""
    request.cached_tokens = output.num_cached_tokens or 0
    times: Any = output.metrics
    if times is not None and times.scheduled_ts and times.first_token_ts:
        request.admitted = max(request.arrived, times.scheduled_ts)
        request.first = times.first_token_ts


def _scored(token: int, known: Mapping[int, Any], top: int) -> Scored:
    """vLLM's log-probabilities of one place: of the token, and of the likeliest in its place."""
    ranked = sorted((one.rank, other, one.logprob) for other, one in known.items())
    best = tuple((other, logprob) for rank, other, logprob in ranked if rank <= top)
    return Scored(known[token].logprob, best)


def _lora_requests(adapters: Mapping[str, str]) -> dict[str, LoRARequest]:
    if not adapters:
        return {}
    from vllm.lora.request import LoRARequest

    return {
        name: LoRARequest(name, number, str(folder))
        for number, (name, folder) in enumerate(adapters.items(), 1)
    }


def _reason(error: BaseException) -> str:
    """What is to be read in vLLM's, or pydantic's, message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("Value error, ")]
    return (
        (told or lines or [type(error).__name__])[0]
        .removeprefix("Value error, ")
        .split(" [type=")[0]
    )
