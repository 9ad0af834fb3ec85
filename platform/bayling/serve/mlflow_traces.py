"""Traces of some requests in MLflow, each linked to the version of the model that answered.

They are written by a thread. What it cannot keep up with is dropped and counted; a tracking
server that is away costs traces and nothing else.
"""

from __future__ import annotations

import logging
import os
import queue
import random
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from bayling.registry import models
from bayling.registry.runs import client
from bayling.serve.observed import Exchange, Observed

log = logging.getLogger(__name__)

_WAITING = 256
"""So many traces wait to be written."""


class MlflowTraces:
    """A sink of requests that are over, beside the requests that go on.

    Args:
        model: the registered model's name.
        share: of the requests, 0 to 1.
        lost: told of each trace that is dropped; from any thread.
    """

    def __init__(
        self,
        tracking_uri: str,
        model: str,
        share: float,
        lost: Callable[[], object],
    ) -> None:
        self._tracking_uri = tracking_uri
        self._model = model
        self._share = share
        self._lost = lost
        self._waiting: queue.Queue[tuple[Observed, Sequence[Exchange]]] = queue.Queue(_WAITING)
        self._linked = lru_cache(maxsize=16)(self._link)
        threading.Thread(target=self._write_all, name="mlflow-traces", daemon=True).start()

    def add(self, observed: Observed, exchanges: Sequence[Exchange]) -> None:
        """Take a request into the sample, or not."""
        if not observed.version or random.random() >= self._share:
            return
        try:
            self._waiting.put_nowait((observed, exchanges))
        except queue.Full:
            self._lost()

    def _write_all(self) -> None:
        # MLflow has a queue and a thread for this, too, and tells nobody what it drops.
        os.environ["MLFLOW_ENABLE_ASYNC_TRACE_LOGGING"] = "false"
        import mlflow

        mlflow.set_tracking_uri(self._tracking_uri)
        away = False
        while True:
            observed, exchanges = self._waiting.get()
            try:
                self._write(observed, exchanges)
                away = False
            except Exception as error:
                self._lost()
                if not away:  # once, not for every request
                    log.warning("MLflow takes no traces: %s: %s", type(error).__name__, error)
                away = True

    def _write(self, observed: Observed, exchanges: Sequence[Exchange]) -> None:
        import mlflow
        from mlflow.entities import SpanType

        experiment, model_id = self._linked(observed.version)
        begun = int((observed.at - observed.total_s) * 1e9)
        span = mlflow.start_span_no_context(
            observed.endpoint,
            span_type=SpanType.CHAT_MODEL,
            inputs=_texts(exchanges, "prompt"),
            attributes=_attributes(observed),
            tags={"bayling.version": observed.version, "bayling.request_id": observed.request_id},
            metadata={"mlflow.modelId": model_id} if model_id else None,
            experiment_id=experiment,
            start_time_ns=begun,
        )
        if observed.ttft_s is not None:
            from mlflow.entities import SpanEvent

            at = begun + int(observed.ttft_s * 1e9)
            span.add_event(SpanEvent("first_token", timestamp=at))
        span.end(
            outputs=_texts(exchanges, "answer"),
            status="ERROR" if observed.error else "OK",
            end_time_ns=int(observed.at * 1e9),
        )
        # MLflow only warns of what it could not write.
        client(self._tracking_uri).get_trace(span.trace_id, display=False)

    def _link(self, version: str) -> tuple[str, str | None]:
        """The experiment that a version came out of, and its logged model."""
        found = models.by_version(self._tracking_uri, self._model, version)
        mlflow = client(self._tracking_uri)
        if found.model_id is not None:
            return str(mlflow.get_logged_model(found.model_id).experiment_id), found.model_id
        return str(mlflow.get_run(found.run_id).info.experiment_id), None


def _texts(exchanges: Sequence[Exchange], which: str) -> Any:
    return [getattr(exchange, which) for exchange in exchanges] or None


def _attributes(observed: Observed) -> dict[str, Any]:
    """A request without its texts, named as OpenTelemetry names such things."""
    known = {
        "bayling.key": observed.key,
        "bayling.error": observed.error,
        "bayling.time_to_first_token_s": observed.ttft_s,
        "bayling.time_per_output_token_s": observed.tpot_s,
        "bayling.retries": observed.retries,
        "http.response.status_code": observed.status,
        "gen_ai.usage.input_tokens": observed.prompt_tokens,
        "gen_ai.usage.output_tokens": observed.completion_tokens,
        "gen_ai.response.finish_reasons": list(observed.finish_reasons),
    }
    return {name: value for name, value in known.items() if value is not None}
