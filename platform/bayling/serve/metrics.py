"""The figures that Prometheus reads, as vLLM and OpenTelemetry name them, with the prefix
`bayling_`. docs/metrics.md has the table.

Labels are few on purpose: an endpoint is one that exists, a key one that let somebody in. Times
are kept by version and endpoint, and not by key, whose number is the operator's to choose.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable

import prometheus_client
import ray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from bayling import __version__
from bayling.serve.observed import Observed
from bayling.serve.reporting import Batch, EngineState

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_KEYS = 500
"""So many keys have series of their own; the requests of others count under `_OTHERS`."""
_OTHERS = "-"
"""No key can be named so."""
_SILENT_S = 10.0
"""A replica that was not heard of for so long is gone."""

_TTFT_S = (0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.25, 0.5, 0.75, 1, 2.5, 5, 10, 20, 60)
_TPOT_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5)
_REQUEST_S = (0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 8, 12, 20, 30, 45, 60, 90, 120, 300)
_START_S = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600)


class Metrics:
    """Counters, histograms and gauges of the whole fleet.

    Args:
        model: the registered model's name.
        clock: seconds since 1970.
    """

    def __init__(self, model: str, clock: Callable[[], float] = time.time) -> None:
        # A series of its own for when each counter began tells nobody anything.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self._model = model
        self._clock = clock
        self._keys: set[str] = set()
        self._registry = CollectorRegistry()
        self._replicas = _Replicas(model, clock)
        self._registry.register(self._replicas)

        def counter(name: str, about: str, *labels: str) -> Counter:
            labels = ("model", *labels)
            return Counter(f"bayling_{name}", about, labels, registry=self._registry)

        def histogram(name: str, about: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            labels = ("model", *labels)
            return Histogram(
                f"bayling_{name}", about, labels, buckets=buckets, registry=self._registry
            )

        by_caller = ("version", "key", "endpoint")
        self._requests = counter("requests", "Requests that ended.", *by_caller, "status")
        self._prompt = counter("prompt_tokens", "Tokens of prompts.", *by_caller)
        self._cached = counter(
            "prompt_tokens_cached", "Tokens of prompts that had been read before.", *by_caller
        )
        self._generated = counter("generation_tokens", "Tokens that were generated.", *by_caller)
        self._limited = counter(
            "rate_limited",
            "Requests that were one too many: by a limit of their key, or for the engines.",
            "key",
            "reason",
        )
        self._finished = counter(
            "answers", "Answers that came to their end, by why.", "version", "finish_reason"
        )
        self._retries = counter(
            "request_retries", "Requests that went on at another replica.", "version"
        )
        self._judged = counter(
            "translations_judged", "Translations that were looked at for their language.", "version"
        )
        self._off_target = counter(
            "translations_off_target", "Of these: in another language than asked for.", "version"
        )
        self._cold = counter(
            "cold_starts", "Starts of a replica while its version had none.", "version"
        )
        self._dropped = counter(
            "records_dropped", "Records that got lost on their way to where they count.", "kind"
        )
        here = ("version", "endpoint")
        self._ttft = histogram(
            "time_to_first_token_seconds", "From the request to its first token.", _TTFT_S, *here
        )
        self._tpot = histogram(
            "time_per_output_token_seconds",
            "Mean time of a request's output tokens after the first.",
            _TPOT_S,
            *here,
        )
        self._duration = histogram(
            "request_duration_seconds",
            "From the request to the end of its answer.",
            _REQUEST_S,
            *here,
        )
        self._queued = histogram(
            "request_queue_time_seconds",
            "Waiting for an engine, one that was starting included, and for a place in its batch.",
            _REQUEST_S,
            *here,
        )
        self._starting = histogram(
            "replica_start_seconds", "What an engine replica took to load.", _START_S, "version"
        )
        build = Gauge(
            "bayling_build_info",
            "What is running.",
            ("model", "release", "python", "ray"),
            registry=self._registry,
        )
        build.labels(model, __version__, platform.python_version(), ray.__version__).set(1)

    def apply(self, batch: Batch) -> None:
        """Count what a replica has sent."""
        for observed in batch.observed:
            self._count(observed)
        for kind, number in batch.lost.items():
            self._dropped.labels(self._model, kind).inc(number)
        if batch.state is not None:
            labels = (self._model, batch.state.version)
            alone = self._replicas.heard(batch.source, batch.state)
            if batch.number == 0:  # a replica's first report; to this ledger or to one before it
                self._starting.labels(*labels).observe(batch.state.start_s)
                self._cold.labels(*labels).inc(alone)

    def text(self) -> bytes:
        """All of them, in Prometheus's text format."""
        return generate_latest(self._registry)

    def _count(self, observed: Observed) -> None:
        model, version, endpoint = self._model, observed.version, observed.endpoint
        key = self._bounded(observed.key)
        status = str(observed.status)
        self._requests.labels(model, version, key, endpoint, status).inc()
        reason = observed.limit or (observed.error if observed.status == 429 else None)
        if reason is not None:
            self._limited.labels(model, key, reason).inc()
        if not version:
            return
        self._prompt.labels(model, version, key, endpoint).inc(observed.prompt_tokens)
        self._cached.labels(model, version, key, endpoint).inc(observed.cached_tokens)
        self._generated.labels(model, version, key, endpoint).inc(observed.completion_tokens)
        for finish_reason in observed.finish_reasons:
            self._finished.labels(model, version, finish_reason).inc()
        self._retries.labels(model, version).inc(observed.retries)
        self._judged.labels(model, version).inc(observed.judged)
        self._off_target.labels(model, version).inc(observed.off_target)
        for times, seconds in (
            (self._ttft, observed.ttft_s),
            (self._tpot, observed.tpot_s),
            (self._queued, observed.queued_s),
            (self._duration, observed.total_s),
        ):
            if seconds is not None:
                times.labels(model, version, endpoint).observe(seconds)

    def _bounded(self, key: str) -> str:
        if key and key not in self._keys:
            if len(self._keys) >= _KEYS:
                return _OTHERS
            self._keys.add(key)
        return key


class _Replicas(Collector):
    """What the engine replicas are doing, from what each of them said last."""

    def __init__(self, model: str, clock: Callable[[], float]) -> None:
        self._model = model
        self._clock = clock
        self._last: dict[str, tuple[float, EngineState]] = {}

    def heard(self, source: str, state: EngineState) -> bool:
        """Note down what a replica says; returns whether its version had none but it."""
        now = self._clock()
        self._last = {
            known: said for known, said in self._last.items() if said[0] > now - _SILENT_S
        }
        alone = all(
            known == source or said[1].version != state.version
            for known, said in self._last.items()
        )
        self._last[source] = (now, state)
        return alone

    def collect(self) -> Iterable[GaugeMetricFamily]:
        now = self._clock()
        states = [state for at, state in self._last.values() if at > now - _SILENT_S]

        def gauge(name: str, about: str, of: Callable[[EngineState], float]) -> GaugeMetricFamily:
            family = GaugeMetricFamily(f"bayling_{name}", about, labels=("model", "version"))
            for version in sorted({state.version for state in states}):
                values = [of(state) for state in states if state.version == version]
                family.add_metric((self._model, version), sum(values))
            return family

        yield gauge("replicas", "Engine replicas that run.", lambda _: 1)
        yield gauge(
            "requests_running", "Requests that engines generate for.", lambda state: state.running
        )
        yield gauge(
            "requests_waiting",
            "Requests that wait in engines for a place in the batch.",
            lambda state: state.waiting,
        )
        cache = GaugeMetricFamily(
            "bayling_kv_cache_usage_ratio",
            "The share of the room for keys and values that is taken, of the fullest replica.",
            labels=("model", "version"),
        )
        used: dict[str, float] = {}
        for state in states:
            if state.cache_used is not None:
                used[state.version] = max(used.get(state.version, 0.0), state.cache_used)
        for version, share in sorted(used.items()):
            cache.add_metric((self._model, version), share)
        yield cache
