"""OpenTelemetry traces: the request, the making of its prompt, each engine's work on it.

Names and attributes are those of the semantic conventions for HTTP and for generative AI. Spans
hold no text. They are started and ended by hand, without a current span: an answer is made in
several tasks and ends in whichever closes it.

The provider is one of our own and not the process's, where Ray Serve and MLflow have theirs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import (
    INVALID_SPAN,
    NoOpTracer,
    Span,
    SpanKind,
    StatusCode,
    Tracer,
    format_trace_id,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from bayling import __version__
from bayling.engines.protocol import Chunk, Sampling
from bayling.errors import UserError
from bayling.serve.config import TracingConfig

if TYPE_CHECKING:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import SpanExporter

_EXPORT_EVERY_MS = 1000
_HEADERS = ("traceparent", "tracestate")
_W3C = TraceContextTextMapPropagator()
_OPERATIONS = {
    "/v1/completions": "text_completion",
    "/v1/chat/completions": "chat",
    "/v1/translations": "chat",
}
"""Endpoint → `gen_ai.operation.name`."""


class Tracing:
    """Where the spans of this process go."""

    def __init__(self, tracer: Tracer, model: str = "") -> None:
        """See `start`."""
        self._tracer = tracer
        self._model = model

    @staticmethod
    def start(
        config: TracingConfig,
        model: str,
        deployment: str,
        replica: str,
        exporter: SpanExporter | None = None,
    ) -> Tracing:
        """Spans to the configured collector from now on, in batches from a thread of its own.

        Args:
            model: the registered model's name.
            exporter: where they go instead.

        Raises:
            UserError: the package that sends them is not installed.
        """
        if config.endpoint is None and exporter is None:
            return NOWHERE
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

        if exporter is None:
            exporter = _exporter()(endpoint=config.endpoint)
        resource = {
            "service.name": "bayling",
            "service.version": __version__,
            "service.instance.id": replica,
            "bayling.deployment": deployment,
        }
        provider = TracerProvider(
            # A caller who traces decides for its own requests.
            sampler=ParentBased(TraceIdRatioBased(config.share)),
            resource=Resource.create(resource),
        )
        provider.add_span_processor(
            BatchSpanProcessor(exporter, schedule_delay_millis=_EXPORT_EVERY_MS)
        )
        return Tracing(provider.get_tracer("bayling.serve", __version__), model)

    @staticmethod
    def nothing() -> Span:
        """The span of what is not traced."""
        return INVALID_SPAN

    def request(self, method: str, endpoint: str, headers: Mapping[str, str]) -> Span:
        """The span of an HTTP request, below the caller's where its headers name one."""
        return self._tracer.start_span(
            f"{method} {endpoint}",
            _W3C.extract({name: headers[name] for name in _HEADERS if name in headers}),
            SpanKind.SERVER,
            {"http.request.method": method, "http.route": endpoint},
        )

    def prompt(self, request: Span) -> Span:
        """The span of a conversation's way into tokens."""
        return self._tracer.start_span("prompt", set_span_in_context(request))

    def call(self, request: Span, endpoint: str, version: str, work: Work) -> EngineSpan:
        """The span of a call to an engine, as the caller sees it."""
        operation = _OPERATIONS.get(endpoint, "text_completion")
        attributes = {"gen_ai.operation.name": operation, **self._attributes(version, work)}
        return EngineSpan(
            self._tracer.start_span(
                f"{operation} {self._model}",
                set_span_in_context(request),
                SpanKind.CLIENT,
                attributes,
            )
        )

    def work(self, headers: Mapping[str, str], version: str, work: Work) -> EngineSpan:
        """The span of an engine's work, as the engine sees it.

        Args:
            headers: what `EngineSpan.headers` gave the caller.
        """
        if not headers:  # a trace begins with a request, not here
            return EngineSpan(INVALID_SPAN)
        parent = _W3C.extract(headers)
        span = self._tracer.start_span(
            "generate", parent, SpanKind.SERVER, self._attributes(version, work)
        )
        return EngineSpan(span)

    @staticmethod
    def trace_id(span: Span) -> str | None:
        """As logs and collectors write it; None for what is not traced."""
        context = span.get_span_context()
        return format_trace_id(context.trace_id) if context.is_valid else None

    def _attributes(self, version: str, work: Work) -> dict[str, Any]:
        request_id, prompt_tokens, sampling = work
        attributes: dict[str, Any] = {
            "bayling.request_id": request_id,
            "bayling.model_version": version,
            "gen_ai.provider.name": "bayling",
            "gen_ai.request.model": self._model,
            "gen_ai.response.model": f"{self._model}@{version}",
            "gen_ai.request.max_tokens": sampling.max_new_tokens,
            "gen_ai.request.temperature": sampling.temperature,
            "gen_ai.request.top_p": sampling.top_p,
            "gen_ai.usage.input_tokens": prompt_tokens,
        }
        if sampling.seed is not None:
            attributes["gen_ai.request.seed"] = sampling.seed
        return attributes


Work = tuple[str, int, Sampling]
"""What an engine is asked: the request's id, the tokens of its prompt, and how to answer."""


class EngineSpan:
    """The span of an engine's work on one answer."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self._tokens = 0

    def headers(self) -> dict[str, str]:
        """What lets the other side go on with the trace; nothing where it is not traced."""
        carrier: dict[str, str] = {}
        _W3C.inject(carrier, set_span_in_context(self._span))
        return carrier

    def made(self, chunk: Chunk) -> None:
        """Tokens have come."""
        if not self._span.is_recording():
            return
        if chunk.ids and not self._tokens:
            ago_s = 0.0 if chunk.timing is None else chunk.timing.decoding_s
            self._span.add_event("first_token", timestamp=time.time_ns() - int(ago_s * 1e9))
        self._tokens += len(chunk.ids)
        if chunk.finish_reason is not None:
            self._span.set_attribute("gen_ai.response.finish_reasons", [chunk.finish_reason])

    def failed(self, error: Exception) -> None:
        """It breaks off with an error, of which the kind is kept."""
        self._span.set_attribute("error.type", type(error).__name__)
        self._span.set_status(StatusCode.ERROR)

    def end(self) -> None:
        """It is over, or nobody waits for it any more."""
        self._span.set_attribute("gen_ai.usage.output_tokens", self._tokens)
        self._span.end()


NOWHERE = Tracing(NoOpTracer())
"""Where spans go when nobody collects them."""


def _exporter() -> type[OTLPSpanExporter]:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        raise UserError(
            "serve.tracing.endpoint needs the package that sends traces: install "
            "'bayling-platform[tracing]' wherever the model is served"
        ) from None
    return OTLPSpanExporter
