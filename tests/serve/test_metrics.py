"""The figures that Prometheus reads."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from one_request import one_request
from prometheus_client.parser import text_string_to_metric_families

from bayling.serve.metrics import Metrics
from bayling.serve.observed import Observed
from bayling.serve.reporting import Batch, EngineState

pytestmark = pytest.mark.unit


def values(metrics: Metrics, name: str, **labels: str) -> dict[tuple[str, ...], float]:
    """The samples of a name that have these labels, by their other labels but the model's."""
    found = {}
    for family in text_string_to_metric_families(metrics.text().decode()):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                others = sorted(set(sample.labels) - set(labels) - {"model"})
                found[tuple(sample.labels[label] for label in others)] = sample.value
    return found


def counted(*requests: Observed) -> Metrics:
    metrics = Metrics("bayling")
    metrics.apply(Batch("a", 0, requests))
    return metrics


def test_requests_and_tokens_count_by_version_caller_endpoint_and_status() -> None:
    metrics = counted(
        one_request(),
        one_request(),
        one_request(key="lab", version="8", status=504, error="timeout"),
        one_request(endpoint="/v1/translations", finish_reasons=("stop", "length")),
    )
    by_status = values(metrics, "bayling_requests_total")
    assert by_status == {
        ("/v1/chat/completions", "app", "200", "7"): 2,
        ("/v1/chat/completions", "lab", "504", "8"): 1,
        ("/v1/translations", "app", "200", "7"): 1,
    }
    assert values(metrics, "bayling_prompt_tokens_total", key="app") == {
        ("/v1/chat/completions", "7"): 20,
        ("/v1/translations", "7"): 10,
    }
    assert values(metrics, "bayling_prompt_tokens_cached_total", version="8") == {
        ("/v1/chat/completions", "lab"): 3
    }
    assert values(metrics, "bayling_generation_tokens_total", version="8") == {
        ("/v1/chat/completions", "lab"): 5
    }
    assert values(metrics, "bayling_answers_total", version="7") == {("stop",): 3, ("length",): 1}


def test_times_fall_into_buckets_and_sum_up() -> None:
    metrics = counted(one_request(ttft_s=0.03), one_request(ttft_s=0.3), one_request(ttft_s=None))
    name = "bayling_time_to_first_token_seconds"
    labels = {"version": "7", "endpoint": "/v1/chat/completions"}
    assert values(metrics, f"{name}_count", **labels) == {(): 2}
    assert values(metrics, f"{name}_sum", **labels) == {(): pytest.approx(0.33)}
    buckets = values(metrics, f"{name}_bucket", **labels)
    assert (buckets[("0.02",)], buckets[("0.04",)], buckets[("0.5",)]) == (0, 1, 2)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"error": "rate_limit_exceeded", "limit": "tokens_per_minute"}, "tokens_per_minute"),
        ({"error": "overloaded"}, "overloaded"),
    ],
)
def test_requests_that_are_one_too_many_count_by_the_reason(
    fields: dict[str, str], reason: str
) -> None:
    metrics = counted(one_request(status=429, version="", **fields))
    assert values(metrics, "bayling_rate_limited_total") == {("app", reason): 1}


def test_a_key_that_let_nobody_in_is_no_label_and_labels_have_a_bound() -> None:
    metrics = counted(
        one_request(key="", status=401, version=""),
        *(one_request(key=f"key-{number}") for number in range(1000)),
    )
    by_key = values(
        metrics,
        "bayling_requests_total",
        status="200",
        version="7",
        endpoint="/v1/chat/completions",
    )
    assert len(by_key) <= 501 and by_key[("-",)] == 1000 - (len(by_key) - 1)
    assert values(metrics, "bayling_requests_total", status="401", version="") == {
        ("/v1/chat/completions", ""): 1
    }


class Fleet:
    """Replicas that report at moments that a test chooses."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.metrics = Metrics("bayling", clock=lambda: self.now)
        self._numbers: dict[str, int] = {}

    def report(self, source: str, version: str, running: int = 0, waiting: int = 0) -> None:
        number = self._numbers.get(source, -1) + 1
        self._numbers[source] = number
        state = EngineState(version, running, waiting, 0.25 * running, 4.0)
        self.metrics.apply(Batch(source, number, state=state))

    def gauge(self, name: str) -> dict[tuple[str, ...], float]:
        return values(self.metrics, f"bayling_{name}")


def test_gauges_are_of_all_replicas_of_a_version_and_forget_those_that_are_gone() -> None:
    fleet = Fleet()
    fleet.report("a", "7", running=3, waiting=2)
    fleet.report("b", "7", running=1)
    fleet.report("c", "8")
    fleet.report("a", "7", running=2)
    assert fleet.gauge("replicas") == {("7",): 2, ("8",): 1}
    assert fleet.gauge("requests_running") == {("7",): 3, ("8",): 0}
    assert fleet.gauge("requests_waiting") == {("7",): 0, ("8",): 0}
    assert fleet.gauge("kv_cache_usage_ratio") == {("7",): 0.5, ("8",): 0}
    fleet.now += 8
    fleet.report("b", "7")
    fleet.now += 8
    assert fleet.gauge("replicas") == {("7",): 1}


def test_a_cold_start_is_one_with_no_other_replica_of_its_version() -> None:
    fleet = Fleet()

    def starts() -> Callable[[str], float]:
        cold = fleet.gauge("cold_starts_total")
        return lambda version: cold.get((version,), 0)

    fleet.report("a", "7")
    fleet.report("a", "7")
    fleet.report("b", "7")
    fleet.report("c", "8")
    assert (starts()("7"), starts()("8")) == (1, 1)
    assert fleet.gauge("replica_start_seconds_count") == {("7",): 2, ("8",): 1}
    fleet.now += 60  # scaled to zero
    fleet.report("d", "7")
    assert starts()("7") == 2


def test_replicas_that_a_new_ledger_finds_have_not_started_just_now() -> None:
    fleet = Fleet()
    fleet.report("a", "7")
    fleet.metrics = Metrics("bayling", clock=lambda: fleet.now)
    fleet.report("a", "7")
    assert fleet.gauge("replicas") == {("7",): 1}
    assert fleet.gauge("cold_starts_total") == {}


def test_what_got_lost_on_the_way_is_told() -> None:
    metrics = Metrics("bayling")
    metrics.apply(Batch("a", 0, (), {"requests": 3, "mlflow_traces": 1}))
    dropped = values(metrics, "bayling_records_dropped_total")
    assert dropped == {("requests",): 3, ("mlflow_traces",): 1}
