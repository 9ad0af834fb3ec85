"""The figures, the log and the traces of a real fleet: two versions, one API, over HTTP."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray
from collector import Collector, collecting
from prometheus_client.parser import text_string_to_metric_families
from running import free_port
from tiny_model import CONTEXT
from tiny_server import small

from bayling.scale import ScaleConfig
from bayling.serve import keys, run
from bayling.serve.application import ServedModel
from bayling.serve.stats import VersionStats

TIMEOUT_S = 6.0
CHAT = "/v1/chat/completions"
MARKER = "Geheimnis-4711"


@dataclass
class Fleet:
    """A server with versions 7 and 8, and what is known of it."""

    url: str
    keys: dict[str, str]
    logs: Path
    collector: Collector

    def client(self, key: str, timeout: float = 60) -> httpx.Client:
        headers = {"authorization": f"Bearer {self.keys.get(key, key)}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=timeout, trust_env=False)

    def chat(self, key: str, /, **fields: Any) -> httpx.Response:
        headers = fields.pop("headers", {})
        with self.client(key) as http:
            return http.post(CHAT, json={**chat(), **fields}, headers=headers)

    def metrics(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        with self.client("watcher") as http:
            text = http.get("/metrics").raise_for_status().text
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def total(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        return sum(
            value
            for (found, having), value in self.metrics().items()
            if found == f"bayling_{name}" and labels.items() <= dict(having).items()
        )

    def versions(self, since: float) -> dict[str, VersionStats]:
        with self.client("watcher") as http:
            body = http.get("/internal/versions", params={"since": since}).raise_for_status().json()
        assert abs(body["now"] - time.time()) < 5
        return {version: VersionStats.from_json(one) for version, one in body["versions"].items()}

    def lines(self, request_id: str) -> list[dict[str, Any]]:
        """What all replicas have logged about a request."""
        written = [path.read_text(errors="replace") for path in self.logs.glob("worker-*.err")]
        lines = [line for text in written for line in text.splitlines() if request_id in line]
        return [json.loads(line) for line in lines]


def chat(content: str = "Hello") -> dict[str, Any]:
    messages = [{"role": "user", "content": content}]
    return {"model": "bayling", "messages": messages, "max_tokens": 8}


def within(seconds: float, true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def replica(deployment: str) -> Any:
    """The actor of a deployment's one replica."""
    [found] = [
        actor
        for actor in ray.util.list_named_actors(all_namespaces=True)
        if f"#{deployment}#" in actor["name"] or f"::{deployment}#" in actor["name"]
    ]
    return ray.get_actor(found["name"], namespace=found["namespace"])


@pytest.fixture(scope="module")
def fleet(
    ray_cluster: None, model_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    file = tmp_path_factory.mktemp("watched") / "keys.jsonl"
    limits: dict[str, dict[str, int | None]] = {"limited": {"requests_per_minute": 2}}
    made = {
        name: keys.make(name, None, limits.get(name))
        for name in ("app", "lab", "limited", "watcher")
    }
    for _, key in made.values():
        keys.add(file, key)
    config = small()
    config.keys_file = str(file)
    config.request_timeout_s = TIMEOUT_S
    port = free_port()
    config.tracing.endpoint = f"http://127.0.0.1:{port}/v1/traces"
    served = ServedModel("", "bayling", {"7": str(model_folder), "8": str(model_folder)})
    logs = Path(ray._private.worker._global_node.get_logs_dir_path())
    with collecting(port) as collector:
        url = run.deploy(config, served, {"7": 1.0, "8": 0.0}, ScaleConfig())
        fleet = Fleet(url, {name: full for name, (full, _) in made.items()}, logs, collector)
        assert within(30, lambda: fleet.chat("app", model="bayling@8").is_success)
        # The engines have said that they are there, and what went before is over.
        assert within(10, lambda: fleet.total("requests_total", version="8", status="200") == 1)
        assert within(10, lambda: fleet.total("replicas") == 2)
        yield fleet
        run.shutdown()


def test_requests_and_tokens_are_exact_by_version_and_caller(fleet: Fleet) -> None:
    since = time.time()
    before = fleet.metrics()
    used: dict[tuple[str, str, str], list[dict[str, Any]]] = {}

    def note(version: str, key: str, endpoint: str, usage: dict[str, Any]) -> None:
        used.setdefault((version, key, endpoint), []).append(usage)

    for _ in range(3):
        note("7", "app", CHAT, fleet.chat("app").json()["usage"])
    note("8", "lab", CHAT, fleet.chat("lab", model="bayling@8", n=2).json()["usage"])
    options = {"stream": True, "stream_options": {"include_usage": True}}
    events = fleet.chat("app", **options).text
    note("7", "app", CHAT, json.loads(re.findall(r"data: (\{.*\})", events)[-1])["usage"])
    with fleet.client("lab") as http:
        body = {"text": ["Good morning", "Good night"], "target": "de", "max_tokens": 6}
        answer = http.post("/v1/translations", json=body)
        note("7", "lab", "/v1/translations", answer.json()["usage"])
        body = {"model": "bayling", "prompt": ["Guten", "Tag"], "max_tokens": 3}
        answer = http.post("/v1/completions", json=body)
        note("7", "lab", "/v1/completions", answer.json()["usage"])
    assert within(5, lambda: fleet.versions(since)["7"].requests == 6)

    after = fleet.metrics()
    grown = {sample: value - before.get(sample, 0) for sample, value in after.items()}

    def growth(name: str, version: str, key: str, endpoint: str, **more: str) -> float:
        labels = {"model": "bayling", "version": version, "key": key, "endpoint": endpoint, **more}
        return grown.get((f"bayling_{name}", tuple(sorted(labels.items()))), 0)

    for (version, key, endpoint), usages in used.items():
        where = (version, key, endpoint)
        assert growth("requests_total", *where, status="200") == len(usages)
        prompt = sum(usage["prompt_tokens"] for usage in usages)
        assert growth("prompt_tokens_total", *where) == prompt
        cached = sum(usage["prompt_tokens_details"]["cached_tokens"] for usage in usages)
        assert growth("prompt_tokens_cached_total", *where) == cached
        made = sum(usage["completion_tokens"] for usage in usages)
        assert growth("generation_tokens_total", *where) == made
    of_callers = {
        dict(labels)["key"]
        for (name, labels), value in grown.items()
        if name == "bayling_requests_total" and value
    }
    assert of_callers == {"app", "lab"}  # who reads the figures is in none of them

    stats = fleet.versions(since)
    assert (stats["7"].requests, stats["8"].requests) == (6, 1)
    assert (stats["7"].errors, stats["7"].judged) == (0, 2)
    everything = [usage["completion_tokens"] for usages in used.values() for usage in usages]
    assert sum(one.completion_tokens for one in stats.values()) == sum(everything)


def test_times_are_those_that_a_client_sees(fleet: Fleet) -> None:
    since = time.time()
    took = []
    for stream in (False, True, False, True):
        began = time.monotonic()
        assert fleet.chat("app", stream=stream, max_tokens=40).is_success
        took.append(time.monotonic() - began)
    assert within(5, lambda: fleet.versions(since)["7"].requests == 4)
    stats = fleet.versions(since)["7"]
    # Also of answers that came in one piece.
    assert len(stats.ttft_s) == len(stats.tpot_s) == 4
    for whole, first, pace in zip(took, stats.ttft_s, stats.tpot_s, strict=True):
        assert since < first.at < time.time()
        assert 0 < first.seconds < first.seconds + 39 * pace.seconds < whole
    name = "time_to_first_token_seconds"
    labels = {"version": "7", "endpoint": CHAT}
    assert 0 < fleet.total(f"{name}_sum", **labels) < 60
    assert fleet.total(f"{name}_bucket", le="+Inf", **labels) == fleet.total(
        f"{name}_count", **labels
    )


def test_a_caller_who_comes_too_often_is_counted_by_name_and_limit(fleet: Fleet) -> None:
    with fleet.client("limited") as http:
        statuses = [http.get("/v1/models").status_code for _ in range(5)]
    assert statuses == [200, 200, 429, 429, 429]
    limited = {"key": "limited", "reason": "requests_per_minute"}
    assert within(5, lambda: fleet.total("rate_limited_total", **limited) == 3)
    assert fleet.total("requests_total", key="limited", status="429", endpoint="/v1/models") == 3


def test_a_client_that_leaves_is_counted_and_is_no_error(fleet: Fleet) -> None:
    since = time.time()
    body = {**chat(), "max_tokens": CONTEXT - 1000, "stream": True}
    with fleet.client("app") as http, http.stream("POST", CHAT, json=body) as response:
        lines = response.iter_lines()  # to let go of it would close the connection
        for _ in range(20):
            next(lines)
        # The engines say every second what they are doing.
        assert within(5, lambda: fleet.total("requests_running", version="7") == 1)
        assert fleet.total("kv_cache_usage_ratio", version="7") > 0
    assert within(5, lambda: fleet.total("requests_total", status="499", key="app") == 1)
    assert within(5, lambda: fleet.total("requests_running", version="7") == 0)
    stats = fleet.versions(since)["7"]
    assert (stats.requests, stats.errors) == (1, 0)
    assert stats.completion_tokens > 5 and len(stats.ttft_s) == 1


def test_a_timeout_is_an_error_also_of_a_stream_that_had_begun(fleet: Fleet) -> None:
    since = time.time()

    def endless(stream: bool) -> httpx.Response:
        return fleet.chat("lab", stream=stream, max_tokens=CONTEXT - 1000)

    with ThreadPoolExecutor(2) as pool:
        whole, stream = pool.map(endless, (False, True))
    assert (whole.status_code, stream.status_code) == (504, 200)
    assert '"code": "timeout"' in stream.text
    assert within(5, lambda: fleet.versions(since)["7"].errors == 2)
    assert fleet.total("requests_total", status="504", key="lab", version="7") == 2


def test_the_figures_are_for_those_with_a_key_and_strangers_are_no_label(fleet: Fleet) -> None:
    for path in ("/metrics", "/internal/versions", "/internal/report"):
        assert httpx.get(f"{fleet.url}{path}", trust_env=False).status_code == 401
    before = fleet.total("requests_total", status="401")
    with fleet.client("bl-stranger") as http:
        assert http.get("/v1/models").status_code == 401
    assert within(5, lambda: fleet.total("requests_total", status="401") == before + 1)
    known = {dict(labels).get("key", "") for _, labels in fleet.metrics()}
    assert known <= {"", "app", "lab", "limited", "watcher"}


def test_a_controller_elsewhere_learns_what_runs(fleet: Fleet) -> None:
    with fleet.client("watcher") as http:
        report = http.get("/internal/report").raise_for_status().json()
    assert report["shares"] == {"7": 1.0, "8": 0.0}
    assert set(report["languages"]) == {"7", "8"}
    one = {"running": 1, "starting": 0}
    assert report["engines"]["bayling-v7"] == report["engines"]["bayling-v8"] == one
    assert report["troubles"] == {}


def test_since_what_is_told_in_one_sentence(fleet: Fleet) -> None:
    with fleet.client("watcher") as http:
        wrong = http.get("/internal/versions", params={"since": "yesterday"})
    assert wrong.status_code == 400 and wrong.json()["error"]["param"] == "since"


def test_a_request_is_found_by_its_id_in_the_logs_of_all_its_replicas(fleet: Fleet) -> None:
    answer = fleet.chat("app", headers={"x-request-id": "mine-4711"})
    assert answer.headers["x-request-id"] == "mine-4711"
    assert within(5, lambda: len(fleet.lines("mine-4711")) == 2)
    lines = {line["deployment"]: line for line in fleet.lines("mine-4711")}
    api, engine = lines["Api"], lines["Engine"]
    assert api["request_id"] == engine["request_id"] == "mine-4711"
    assert (api["status"], api["key"], api["version"]) == (200, "app", "7")
    assert api["completion_tokens"] == engine["completion_tokens"] == 8
    assert engine["finish_reason"] == "length" and engine["decoding_s"] > 0


def test_no_word_of_a_prompt_or_an_answer_is_kept_anywhere(fleet: Fleet) -> None:
    sent = f"{MARKER} Guten Tag"
    answers = [
        fleet.chat("app", **chat(sent)),
        fleet.chat("app", **chat(sent), stream=True),
        fleet.chat("app", **chat(f"{sent}</s>")),
        fleet.chat("app", **chat(sent), temperature=MARKER),
        fleet.chat("app", **chat(sent), **{MARKER: 1}),
    ]
    with fleet.client("lab", timeout=60) as http:
        fields: dict[str, Any]
        for fields in ({"target": "de"}, {"target": MARKER}, {"target": "de", "source": MARKER}):
            body = {"text": [sent], "max_tokens": 4, **fields}
            answers.append(http.post("/v1/translations", json=body))
        answers.append(http.post("/v1/completions", json={"model": "bayling", "prompt": sent}))
        answers.append(http.post("/v1/completions", content=b'{"prompt": ' + MARKER.encode()))
    assert {answer.status_code for answer in answers} == {200, 400, 415}
    text = answers[0].json()["choices"][0]["message"]["content"]
    request_id = answers[-1].headers["x-request-id"]
    assert within(5, lambda: bool(fleet.lines(request_id)))
    time.sleep(1.5)  # spans and reports are on their way for a second
    written = [path for path in fleet.logs.rglob("*") if path.is_file()]
    assert any("replica_bayling_Api" in path.name for path in written)
    for path in written:
        content = path.read_bytes()
        assert MARKER.encode() not in content, path
        assert text.encode() not in content, path
    known = json.dumps([list(map(str, sample)) for sample in fleet.metrics()])
    assert MARKER not in known and MARKER.encode() not in fleet.collector.bodies


def test_no_key_is_in_the_log(fleet: Fleet) -> None:
    fleet.chat("app")
    fleet.chat("bl-000000000000-" + "x" * 43)
    secrets = [full.encode() for full in fleet.keys.values()] + [b"x" * 43]
    for path in fleet.logs.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not any(secret in content for secret in secrets), path


def test_a_callers_trace_goes_on_in_the_engines_replica(fleet: Fleet) -> None:
    trace_id, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    headers = {"traceparent": f"00-{trace_id}-{parent}-01", "x-request-id": "traced-1"}
    assert fleet.chat("app", stream=True, headers=headers).is_success
    assert within(10, lambda: len(fleet.collector.of(trace_id)) >= 4)
    spans = {one.span.name: one for one in fleet.collector.of(trace_id)}
    request, call, work = (spans[n] for n in (f"POST {CHAT}", "chat bayling", "generate"))
    assert request.span.parent_span_id.hex() == parent
    assert spans["prompt"].span.parent_span_id == request.span.span_id
    assert call.span.parent_span_id == request.span.span_id
    assert work.span.parent_span_id == call.span.span_id
    assert (call.deployment, work.deployment) == ("Api", "Engine")
    assert [event.name for event in work.span.events] == ["first_token"]
    assert work.attributes["gen_ai.usage.output_tokens"] == 8
    assert request.attributes["http.response.status_code"] == 200
    assert within(5, lambda: bool(fleet.lines("traced-1")))
    assert {line.get("trace_id", trace_id) for line in fleet.lines("traced-1")} == {trace_id}


def test_a_request_that_outlives_its_replica_is_counted_as_one_that_went_on(fleet: Fleet) -> None:
    since = time.time()
    body = {**chat(), "max_tokens": 400, "stream": True}
    headers = {"x-request-id": "moved-1"}
    with (
        fleet.client("app") as http,
        http.stream("POST", CHAT, json=body, headers=headers) as response,
    ):
        lines = response.iter_lines()
        for _ in range(10):
            next(lines)
        ray.kill(replica("bayling-v7"), no_restart=True)
        rest = list(lines)
    stats = fleet.versions(since).get("7")
    # It may have taken longer than a request may take: then it is an error, and has moved, too.
    ended = "data: [DONE]" in rest
    assert within(5, lambda: fleet.versions(since)["7"].requests == 1), stats
    assert fleet.versions(since)["7"].errors == (0 if ended else 1)
    assert fleet.total("request_retries_total", version="7") >= 1
    told = [line for line in fleet.lines("moved-1") if "goes on elsewhere" in line["message"]]
    assert told and told[0]["level"] == "WARNING" and told[0]["deployment"] == "Api"
    assert within(60, lambda: fleet.chat("app").is_success)
    assert within(10, lambda: fleet.total("replica_start_seconds_count", version="7") == 2)


def test_without_its_ledger_requests_go_on_and_counting_begins_anew(fleet: Fleet) -> None:
    assert fleet.total("requests_total", status="200", key="app") > 3
    ray.kill(replica("Ledger"), no_restart=True)
    began = time.time()
    statuses = [fleet.chat("lab").status_code for _ in range(6)]
    assert statuses == [200] * 6
    with fleet.client("watcher") as http:
        assert http.get("/v1/models").status_code == 200
        assert http.get("/metrics").status_code in (200, 503)

    def counted() -> bool:
        with fleet.client("watcher") as http:
            if http.get("/metrics").status_code != 200:
                return False
        return fleet.total("requests_total", status="200", key="lab") == 6

    # What was observed while it was away is not lost.
    assert within(60, counted)
    assert fleet.total("requests_total", key="app") == 0
    assert within(10, lambda: fleet.total("replicas", version="7") == 1)
    # Who compares versions is told that there is nothing complete from before.
    assert fleet.versions(0)["7"].since > began
    assert fleet.chat("lab").is_success
    assert within(5, lambda: fleet.versions(0)["7"].requests == 1)
