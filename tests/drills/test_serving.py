"""The server goes on whatever happens to its engines, and no request fails or is cut short."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from running import free_port
from tiny_model import make_model

pytestmark = [pytest.mark.drill, pytest.mark.timeout(1200)]

HELLO = [{"role": "user", "content": "Hello"}]
NEW = 60
"""Tokens of an answer. The model never stops by itself."""
QUICKLY = {
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.5",
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.5",
}
"""How often replicas tell Serve how busy they are: as one would set it who cannot wait."""


@dataclass
class Server:
    """A server in a process of its own."""

    url: str
    process: subprocess.Popen[str]
    began: float
    timeline: list[tuple[float, int]] = field(default_factory=list)
    """Seconds since the start, and the number of running replicas from then on."""

    @property
    def replicas(self) -> int:
        return self.timeline[-1][1] if self.timeline else -1

    def replica_processes(self) -> list[psutil.Process]:
        """The processes that hold an engine."""
        return [
            process
            for process in psutil.process_iter(["cmdline"])
            if "ServeReplica" in "".join(process.info["cmdline"] or ())
            and ":Engine" in "".join(process.info["cmdline"] or ())
            and self.process.pid in [parent.pid for parent in process.parents()]
        ]

    def wait_for_replicas(self, number: int, within_s: float = 300) -> None:
        deadline = time.monotonic() + within_s
        while self.replicas != number:
            assert time.monotonic() < deadline, f"{self.replicas} replicas, not {number}"
            assert self.process.poll() is None, "the server has ended"
            time.sleep(0.1)


@contextmanager
def served(
    folder: Path, environment: dict[str, str] | None = None, **asked: Any
) -> Iterator[Server]:
    config = {
        "port": free_port(),
        "max_batch": 4,
        "max_ongoing_requests": 8,
        "max_queued_requests": 200,
        "target_ongoing_requests": 4,
        "max_replicas": 1,
        "max_new_tokens": NEW,
        "request_timeout_s": 120,
        **asked.pop("config", {}),
    }
    request = {"config": config, "folders": {"7": str(folder)}, "shares": {"7": 1.0}, **asked}
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("served.py")), json.dumps(request)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    assert process.stdout is not None and process.stdin is not None
    try:
        url = next(line["url"] for line in map(_parsed, process.stdout) if "url" in line)
        server = Server(url, process, time.time())

        def read() -> None:
            for line in process.stdout:  # type: ignore[union-attr]
                fields = _parsed(line)
                if "replicas" in fields:
                    server.timeline.append((fields["at"] - server.began, fields["replicas"]))

        threading.Thread(target=read, daemon=True).start()
        yield server
    finally:
        process.stdin.close()
        process.wait(60)


def _parsed(line: str) -> dict[str, Any]:
    try:
        fields: dict[str, Any] = json.loads(line)
    except ValueError:  # something else was printed
        return {}
    return fields


@dataclass
class Load:
    """What became of requests that were sent side by side."""

    statuses: Counter[int] = field(default_factory=Counter)
    texts: list[str] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    """Seconds of the answered ones."""
    failures: list[str] = field(default_factory=list)


async def _ask(http: httpx.AsyncClient, load: Load, number: int) -> int | None:
    """One request, every other one as a stream. Returns its status, where there is one."""
    body: dict[str, Any] = {"model": "bayling", "messages": HELLO, "max_tokens": NEW}
    began = time.monotonic()
    try:
        if number % 2:
            text, reason = "", None
            async with http.stream(
                "POST", "/v1/chat/completions", json={**body, "stream": True}
            ) as response:
                status = response.status_code
                async for line in response.aiter_lines():
                    if line.startswith("data: {"):
                        event = json.loads(line[6:])
                        if "error" in event:
                            load.failures.append(event["error"]["message"])
                            return status
                        [choice] = event["choices"]
                        text += choice["delta"].get("content", "")
                        reason = choice["finish_reason"] or reason
        else:
            response = await http.post("/v1/chat/completions", json=body)
            status = response.status_code
            if response.is_success:
                choice = response.json()["choices"][0]
                text, reason = choice["message"]["content"], choice["finish_reason"]
    except httpx.HTTPError as error:
        load.failures.append(f"{type(error).__name__}: {error}")
        return None
    load.statuses[status] += 1
    if status == 200:
        load.latencies.append(time.monotonic() - began)
        load.texts.append(text)
        if reason != "length":
            load.failures.append(f"an answer ended with {reason!r}")
    return status


def put_under_load(
    server: Server,
    requests: int,
    at_once: int,
    while_running: Callable[[Load], None] | None = None,
    refused_pause_s: float = 0,
) -> Load:
    """Send requests, so many at a time; calls `while_running` in a thread of its own meanwhile, and
    sends more of them for as long as that takes. Who is turned away waits before the next one."""
    load = Load()
    disturbing = threading.Thread(target=while_running or (lambda _: None), args=(load,))

    def numbers() -> Iterator[int]:
        for number in itertools.count():
            if number >= requests and not disturbing.is_alive():
                return
            yield number

    async def run() -> None:
        left = numbers()

        async def client() -> None:
            # Each has a pool of its own: one that 120 share is searched whole for each request,
            # which took more of the cores than the server did.
            async with httpx.AsyncClient(
                base_url=server.url, timeout=120, trust_env=False, verify=False
            ) as http:
                for number in left:
                    if await _ask(http, load, number) == 429:
                        await asyncio.sleep(refused_pause_s)

        await asyncio.gather(*(client() for _ in range(at_once)))

    disturbing.start()
    asyncio.run(run())
    disturbing.join()
    return load


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


def done(load: Load) -> int:
    return len(load.texts)


def wait_for(load: Load, requests: int) -> None:
    while done(load) < requests:
        time.sleep(0.01)


def test_a_killed_replica_and_an_engine_that_ends_cost_no_request(
    folder: Path, tmp_path: Path
) -> None:
    """Of two replicas one is killed, and then the engine's thread of one ends, under load."""
    breaker = tmp_path / "break"
    environment = {"BAYLING_DRILL_BREAK": str(breaker)}
    config = {"min_replicas": 2, "max_replicas": 2}
    with served(folder, environment, engine="breakable:engine", config=config) as server:
        server.wait_for_replicas(2)
        killed: list[int] = []

        def disturb(load: Load) -> None:
            wait_for(load, 40)
            victim = server.replica_processes()[0]
            killed.append(victim.pid)
            victim.kill()
            # One at a time: how long a replica takes to start, with one that is left, is not
            # what this is about.
            server.wait_for_replicas(1)
            server.wait_for_replicas(2)
            wait_for(load, done(load) + 40)
            before = {process.pid for process in server.replica_processes()}
            breaker.touch()
            server.wait_for_replicas(1)
            server.wait_for_replicas(2)
            killed.extend(before - {process.pid for process in server.replica_processes()})

        load = put_under_load(server, 400, 12, disturb)
        assert load.failures == []
        assert set(load.statuses) == {200}
        # Greedy answers to one question: those that changed their replica on the way, too.
        assert len(set(load.texts)) == 1
        assert len(killed) == 2, "both replicas went"


def test_engines_come_with_the_load_and_go_with_it(folder: Path) -> None:
    """0 → 1 → 3 → 0 replicas."""
    config = {
        "min_replicas": 0,
        "max_replicas": 3,
        "target_ongoing_requests": 2,
        "look_back_s": 2,
        "upscale_delay_s": 1,
        "downscale_delay_s": 4,
        "downscale_to_zero_delay_s": 4,
        "keep_alive_s": 1,
    }
    with served(folder, QUICKLY, config=config) as server:
        server.wait_for_replicas(0)
        for _ in range(3):  # probes wake nothing
            assert httpx.get(f"{server.url}/readyz", trust_env=False).status_code == 200
            assert httpx.get(f"{server.url}/healthz", trust_env=False).status_code == 200
            time.sleep(0.5)
        assert server.replicas == 0

        with httpx.stream(
            "POST",
            f"{server.url}/v1/chat/completions",
            json={"model": "bayling", "messages": HELLO, "max_tokens": NEW, "stream": True},
            timeout=60,
            trust_env=False,
        ) as first:
            lines = [line for line in first.iter_lines() if line]
        assert any(line.startswith(":") for line in lines), "it was told that somebody is there"
        assert lines[-1] == "data: [DONE]"
        server.wait_for_replicas(1)  # Serve's controller looks a moment later

        load = put_under_load(server, 900, 16)
        assert load.failures == [] and load.statuses == {200: 900}
        assert len(set(load.texts)) == 1
        assert max(number for _, number in server.timeline) == 3
        server.wait_for_replicas(0)
        print("\nreplicas:", ", ".join(f"{n} from {at:.0f} s" for at, n in server.timeline))


def test_a_request_that_meets_no_engine_in_time_is_told_when_to_come_again(folder: Path) -> None:
    config = {
        "min_replicas": 0,
        "look_back_s": 2,
        "downscale_delay_s": 1,
        "downscale_to_zero_delay_s": 1,
        "cold_start_wait_s": 0.3,
    }
    with served(folder, QUICKLY, config=config) as server:
        server.wait_for_replicas(0)
        body = {"model": "bayling", "messages": HELLO, "max_tokens": NEW}
        answer = httpx.post(
            f"{server.url}/v1/chat/completions", json=body, timeout=30, trust_env=False
        )
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "starting")
        assert int(answer.headers["retry-after"]) >= 1


def test_overload_is_turned_away_and_what_is_accepted_is_answered_as_ever(folder: Path) -> None:
    """Ten times as many at a time as the server takes, for a minute."""
    runs, waits = 8, 4
    takes = runs + waits
    config = {"max_batch": 4, "max_ongoing_requests": runs, "max_queued_requests": waits}
    with served(folder, config=config) as server:
        calm = put_under_load(server, 100, runs)
        assert calm.failures == [] and set(calm.statuses) == {200}
        memory = _memory(server)
        before, began = _sums(server), time.monotonic()
        storm = put_under_load(server, 0, 10 * takes, lambda _: time.sleep(60), refused_pause_s=0.5)
        elapsed_s = time.monotonic() - began
        assert storm.failures == [], storm.failures[:3]
        assert set(storm.statuses) == {200, 429}
        during = _sums(server)
        grown = _memory(server) - memory
        after = put_under_load(server, 100, runs)
        assert after.failures == [] and set(after.statuses) == {200}
        before_s, storm_s, after_s = (
            statistics.median(load.latencies) for load in (calm, storm, after)
        )
        own_before_s, own_storm_s = _seconds({}, before), _seconds(before, during)
        # By Little's law: answers a second, times the seconds of each. The rest waits nowhere.
        inside = storm.statuses[200] / elapsed_s * own_storm_s
        print(
            f"\naccepted {storm.statuses[200]}, turned away {storm.statuses[429]}; an answer takes "
            f"{own_before_s:.2f} s before and {own_storm_s:.2f} s during by the server's figures, "
            f"{before_s:.2f}, {storm_s:.2f} and {after_s:.2f} s after by the client's; "
            f"{inside:.1f} of them in the server at a time; memory {grown / 2**20:+.0f} MiB"
        )
        assert grown < 100 * 2**20
        assert inside < takes + 1
        assert storm.statuses[429] > storm.statuses[200] > 0


def _sums(server: Server) -> dict[str, float]:
    """Sums and counts of the server's histograms, once all that was sent has been counted."""
    time.sleep(3)
    told = httpx.get(f"{server.url}/metrics", trust_env=False).text
    pattern = r"bayling_(time_\w+_(?:sum|count))\{[^}]*\} (\S+)"
    return {name: float(value) for name, value in re.findall(pattern, told)}


def _seconds(before: dict[str, float], after: dict[str, float]) -> float:
    """The mean time of an answer that was begun: to its first token, and of the others."""

    def mean(name: str) -> float:
        total, number = (
            after[f"{name}_seconds_{kind}"] - before.get(f"{name}_seconds_{kind}", 0)
            for kind in ("sum", "count")
        )
        return total / number

    return mean("time_to_first_token") + (NEW - 1) * mean("time_per_output_token")


def _memory(server: Server) -> int:
    """What the server's processes hold, in bytes."""
    processes = [server.process.pid]
    total = 0
    for process in psutil.Process(server.process.pid).children(recursive=True):
        if "ServeReplica" in "".join(process.cmdline()):
            total += process.memory_info().rss
            processes.append(process.pid)
    return total
