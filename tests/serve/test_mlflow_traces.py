"""Traces in MLflow: of some requests, beside all of them, linked to the version that answered."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import mlflow
import pytest
from one_request import one_request

from bayling.registry import models, runs
from bayling.serve.mlflow_traces import MlflowTraces
from bayling.serve.observed import Exchange
from bayling.stage import TrackedRun

MODEL = "bayling"


@dataclass
class Store:
    uri: str
    experiment: str
    model_id: str

    def traces(self) -> list[mlflow.entities.Trace]:
        found = runs.client(self.uri).search_traces(locations=[self.experiment])
        return sorted(found, key=lambda trace: trace.info.request_time)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given back after each test: in a replica's own process it may be changed for good."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_TRACE_LOGGING", "")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A tracking store with version 1 of the model."""
    tmp_path = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = runs.client(uri)
    experiment = client.create_experiment("traced", artifact_location=str(tmp_path / "artifacts"))
    run = client.create_run(experiment).info.run_id
    exported = tmp_path / "exported"
    exported.mkdir()
    (exported / "README.md").write_text("a model")
    tracked = TrackedRun(uri, experiment, run)
    model_id = models.log_model(tracked, name="model", folder=exported, params={})
    models.register(uri, MODEL, model_id, run)
    return Store(uri, experiment, model_id)


def within(seconds: float, true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def test_a_trace_has_the_requests_times_and_is_linked_to_the_model(store: Store) -> None:
    lost: list[None] = []
    traces = MlflowTraces(store.uri, MODEL, 1.0, lambda: lost.append(None))
    at = time.time()
    traces.add(one_request(at=at, version="1", request_id="mine-1"), [])
    traces.add(one_request(at=at, version="", status=401), [])  # no version answered that
    failed = one_request(at=at + 1, version="1", status=504, error="timeout", ttft_s=None)
    traces.add(failed, [Exchange("### Instruction: Hallo", "Guten Tag")])
    assert within(60, lambda: len(store.traces()) == 2), lost
    first, second = store.traces()
    assert first.info.trace_metadata["mlflow.modelId"] == store.model_id
    assert first.info.tags["bayling.version"] == "1"
    assert first.info.tags["bayling.request_id"] == "mine-1"
    assert first.info.execution_duration == pytest.approx(180, abs=2)
    [span] = first.data.spans
    assert span.attributes["gen_ai.usage.output_tokens"] == 5
    assert [event.name for event in span.events] == ["first_token"]
    # Without texts there are none; they come where they are kept.
    assert (span.inputs, span.outputs) == (None, None)
    [span] = second.data.spans
    assert (span.inputs, span.outputs) == (["### Instruction: Hallo"], ["Guten Tag"])
    assert str(second.info.state) == "ERROR"
    assert lost == []


def test_a_share_of_the_requests_is_traced(store: Store) -> None:
    traces = MlflowTraces(store.uri, MODEL, 0.1, lambda: None)
    taken: list[object] = []
    traces._waiting.put_nowait = taken.append  # type: ignore[method-assign]
    for _ in range(2000):
        traces.add(one_request(version="1"), [])
    assert 120 < len(taken) < 290


def test_a_store_that_is_away_costs_traces_and_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    lost: list[None] = []
    traces = MlflowTraces("http://127.0.0.1:9", MODEL, 1.0, lambda: lost.append(None))
    began = time.monotonic()
    for _ in range(1000):
        traces.add(one_request(version="1"), [])
    assert time.monotonic() - began < 1
    assert len(lost) >= 700  # those that could not wait
    before = len(lost)
    assert within(60, lambda: len(lost) > before)  # and the first of those that did


def test_a_version_that_mlflow_does_not_know_costs_its_traces(store: Store) -> None:
    lost: list[None] = []
    traces = MlflowTraces(store.uri, MODEL, 1.0, lambda: lost.append(None))
    before = len(store.traces())
    traces.add(one_request(version="99"), [])
    traces.add(one_request(at=time.time(), version="1"), [])
    assert within(60, lambda: len(store.traces()) == before + 1)
    assert len(lost) == 1
