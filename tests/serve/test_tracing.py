"""Spans of a request, as a collector gets them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from bayling.engines.protocol import Chunk, EngineFailed, Sampling, Timing
from bayling.errors import UserError
from bayling.serve.config import TracingConfig
from bayling.serve.tracing import NOWHERE, Tracing

pytestmark = pytest.mark.unit

CALLERS = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
WORK = ("mine-1", 12, Sampling(max_new_tokens=20, temperature=0.5, seed=3))


class Collected:
    def __init__(self, share: float = 1.0) -> None:
        self.exporter = InMemorySpanExporter()
        config = TracingConfig(share=share)
        self.tracing = Tracing.start(config, "bayling", "Api", "replica-1", self.exporter)

    def spans(self) -> Iterator[object]:
        self.tracing._tracer.span_processor.force_flush()  # type: ignore[attr-defined]
        return iter(self.exporter.get_finished_spans())


def test_one_trace_goes_from_the_caller_through_the_api_into_the_engine() -> None:
    collected = Collected()
    tracing = collected.tracing
    request = tracing.request("POST", "/v1/chat/completions", CALLERS)
    tracing.prompt(request).end()
    call = tracing.call(request, "/v1/chat/completions", "7", WORK)
    work = tracing.work(call.headers(), "7", WORK)
    work.made(Chunk([1]))
    work.made(Chunk([2, 3], "stop"))
    work.end()
    call.end()
    request.end()
    spans = {span.name: span for span in collected.spans()}  # type: ignore[attr-defined]
    assert set(spans) == {"POST /v1/chat/completions", "prompt", "chat bayling", "generate"}
    assert {span.context.trace_id for span in spans.values()} == {
        0x0AF7651916CD43DD8448EB211C80319C
    }
    root, inner = spans["POST /v1/chat/completions"], spans["generate"]
    assert root.parent.span_id == 0xB7AD6B7169203331
    assert spans["prompt"].parent.span_id == root.context.span_id
    assert spans["chat bayling"].parent.span_id == root.context.span_id
    assert inner.parent.span_id == spans["chat bayling"].context.span_id
    assert tracing.trace_id(request) == "0af7651916cd43dd8448eb211c80319c"

    expected = {
        "gen_ai.request.model": "bayling",
        "gen_ai.response.model": "bayling@7",
        "gen_ai.request.max_tokens": 20,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.seed": 3,
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 3,
        "bayling.request_id": "mine-1",
    }
    assert expected.items() <= dict(inner.attributes).items()
    assert inner.attributes["gen_ai.response.finish_reasons"] == ("stop",)
    assert spans["chat bayling"].attributes["gen_ai.operation.name"] == "chat"
    assert root.resource.attributes["service.name"] == "bayling"
    assert root.resource.attributes["bayling.deployment"] == "Api"


def test_the_first_token_of_an_answer_in_one_piece_is_where_the_engine_made_it() -> None:
    collected = Collected()
    request = collected.tracing.request("POST", "/v1/completions", {})
    call = collected.tracing.call(request, "/v1/completions", "7", WORK)
    call.made(Chunk([1, 2, 3], "length", timing=Timing(0.0, decoding_s=30.0)))
    call.end()
    [span] = collected.spans()
    [event] = span.events  # type: ignore[attr-defined]
    assert event.name == "first_token"
    assert span.end_time - event.timestamp == pytest.approx(30e9, rel=0.01)  # type: ignore[attr-defined]


def test_a_failure_is_named_by_its_kind_and_not_by_its_words() -> None:
    collected = Collected()
    request = collected.tracing.request("POST", "/v1/completions", {})
    call = collected.tracing.call(request, "/v1/completions", "7", WORK)
    call.failed(EngineFailed("on 'Geheimnis'"))
    call.end()
    [span] = collected.spans()
    assert span.attributes["error.type"] == "EngineFailed"  # type: ignore[attr-defined]
    assert not span.status.is_ok and "Geheimnis" not in span.to_json()  # type: ignore[attr-defined]


def test_callers_who_trace_decide_for_their_own_requests() -> None:
    collected = Collected(share=0.0)
    collected.tracing.request("POST", "/v1/completions", {}).end()
    collected.tracing.request("POST", "/v1/completions", CALLERS).end()
    off = {"traceparent": CALLERS["traceparent"][:-2] + "00"}
    collected.tracing.request("POST", "/v1/completions", off).end()
    assert len(list(collected.spans())) == 1


def test_without_a_collector_a_callers_trace_still_reaches_the_log_and_the_engine() -> None:
    tracing = Tracing.start(TracingConfig(), "bayling", "Api", "replica-1")
    assert tracing is NOWHERE
    request = tracing.request("POST", "/v1/completions", CALLERS)
    assert tracing.trace_id(request) == "0af7651916cd43dd8448eb211c80319c"
    headers = tracing.call(request, "/v1/completions", "7", WORK).headers()
    assert "0af7651916cd43dd8448eb211c80319c" in headers["traceparent"]
    untraced = tracing.request("POST", "/v1/completions", {})
    assert tracing.trace_id(untraced) is None
    assert tracing.call(untraced, "/v1/completions", "7", WORK).headers() == {}


def test_a_missing_exporter_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    name = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
    monkeypatch.setitem(sys.modules, name, None)
    config = TracingConfig(endpoint="http://127.0.0.1:4318/v1/traces")
    with pytest.raises(UserError, match=r"serve\.tracing\.endpoint .*bayling-platform\[tracing\]"):
        Tracing.start(config, "bayling", "Api", "replica-1")
