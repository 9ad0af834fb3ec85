"""Versions come and go, and a replica is killed, while people ask: not one request may fail."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from tiny_model import make_model
from tiny_server import small

from bayling.cluster.local_serve import LocalServe
from bayling.prompts import translate_prompt
from bayling.registry import runs
from bayling.scale import ScaleConfig
from bayling.serve import run
from bayling.serve.application import API, ENGINES, ServedModel, engine_application
from bayling.serve.rollout.beginning import at_start
from bayling.serve.rollout.config import RolloutConfig
from bayling.serve.rollout.controller import Controller
from bayling.serve.rollout.history import History
from bayling.serve.rollout.plan import Rollout, State
from bayling.serve.rollout.record import Record

pytestmark = [pytest.mark.drill, pytest.mark.timeout(1200)]

ROLLOUT = RolloutConfig(
    steps=[0.25, 0.5],
    min_samples=48,
    min_step_s=3,
    keep_previous_s=3,
    poll_s=0.5,
    # So few requests can show no less; and others use the same two cores.
    max_error_increase=0.3,
    max_off_target_increase=0.4,
    max_latency_ratio=50,
)


@dataclass(frozen=True)
class Asked:
    """One request and what came of it."""

    at: float
    conversation: str
    version: str
    failure: str | None


class People:
    """Ask for German translations without a pause, as chats that are streamed or through
    `/v1/translations`, each in conversations of their own, and note what they get."""

    def __init__(self, url: str, count: int) -> None:
        self._url, self.asked = url, list[Asked]()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._live, args=(n,)) for n in range(count)]
        for thread in self._threads:
            thread.start()

    def leave(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _live(self, number: int) -> None:
        with httpx.Client(base_url=self._url, timeout=120, trust_env=False) as http:
            for turn in itertools.count():
                if self._stop.is_set():
                    return
                # The first of them asks for long answers: those that outlive their version.
                self.asked.append(
                    self._ask(
                        http, f"{number}-{turn % 12}", bool(turn % 2), 300 if not number else 16
                    )
                )

    def _ask(self, http: httpx.Client, conversation: str, chat: bool, tokens: int) -> Asked:
        began = time.time()
        try:
            version, text = (self._chat if chat else self._translate)(
                http, f"sentence {conversation}", tokens
            )
            failure = None if text else "no text"
        except (httpx.HTTPError, ValueError, LookupError) as error:
            version, failure = "", repr(error)
        return Asked(began, conversation, version, failure)

    @staticmethod
    def _chat(http: httpx.Client, text: str, tokens: int) -> tuple[str, str]:
        """The version that answered, and its answer."""
        turn = {"role": "user", "content": translate_prompt(text, "de", "en")}
        body = {"model": "bayling", "messages": [turn], "max_tokens": tokens, "stream": True}
        with http.stream("POST", "/v1/chat/completions", json=body) as response:
            response.raise_for_status()
            lines = [line[6:] for line in response.iter_lines() if line.startswith("data: ")]
        if lines[-1] != "[DONE]":
            raise ValueError(f"the stream broke off: {lines[-1]}")
        deltas = [json.loads(line)["choices"][0]["delta"] for line in lines[:-1]]
        version = response.headers["x-bayling-model-version"]
        return version, "".join(delta.get("content", "") for delta in deltas)

    @staticmethod
    def _translate(http: httpx.Client, text: str, tokens: int) -> tuple[str, str]:
        body = {"text": text, "target": "de", "source": "en", "max_tokens": tokens}
        response = http.post("/v1/translations", json=body).raise_for_status()
        version = response.headers["x-bayling-model-version"]
        return version, response.json()["translations"][0]["text"]


def said(process: psutil.Process) -> str:
    """Its command line; empty for one that has just ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@dataclass
class Scene:
    """A server whose rollouts are carried out, and people who use it."""

    record: Record
    people: People
    controller: Controller

    def champion(self, version: str) -> None:
        runs.client(self.record.tracking_uri).set_registered_model_alias(
            "bayling", "champion", version
        )

    def comes_to(self, state: State, version: str) -> Rollout:
        """Wait until the rollout of a version is there and nothing is left of others."""
        self.until(
            lambda now: (
                (now.state, now.new, now.leaving, now.keeps_old) == (state, version, (), False)
            )
        )
        return self.controller.rollout

    def kill_engine(self, version: str) -> None:
        """SIGKILL for the only replica with a version."""
        name = f"ServeReplica:{engine_application(version)}:Engine"
        [replica] = [
            process
            for process in psutil.Process().children(recursive=True)
            if name in said(process)
        ]
        replica.kill()

    def until(self, holds: Callable[[Rollout], bool]) -> None:
        deadline = time.monotonic() + 300
        while not holds(self.controller.rollout):
            assert time.monotonic() < deadline, self.controller.rollout
            time.sleep(0.2)


@pytest.fixture
def room(nodes: Any) -> Iterator[None]:
    """One more node, with as many CPUs as two versions and the API need."""
    node = nodes.add_node(num_cpus=4, object_store_memory=150 * 2**20)
    yield
    nodes.remove_node(node)


@pytest.fixture
def scene(room: None, tmp_path: Path) -> Iterator[Scene]:
    """Version 1 is served. Version 2 is another model as good; 3 writes another script; 4 does,
    too, and says that it was trained on a language in which it would be right."""
    for version, writes, languages in (
        ("1", "de", ["en", "de"]),
        ("2", "de", ["en", "de"]),
        ("3", "hi", ["en", "de"]),
        ("4", "hi", ["hi"]),
    ):
        make_model(tmp_path / version, seed=int(version), writes=writes, languages=languages)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    mlflow = runs.client(uri)
    mlflow.create_registered_model("bayling")
    for version in "1234":
        mlflow.create_model_version("bayling", source=str(tmp_path / version))
    mlflow.set_registered_model_alias("bayling", "champion", "1")
    record = Record(uri, "bayling")
    config = replace(
        small(), max_batch=8, max_ongoing_requests=16, max_queued_requests=50, rollout=ROLLOUT
    )
    served = ServedModel(uri, "bayling", {})
    url = run.deploy(config, served, {"1": 1.0}, ScaleConfig())
    people = People(url, 6)
    arguments = run.arguments_of(config, served, ScaleConfig())
    target = LocalServe(partial(run.apply, arguments), API, ENGINES)
    registered = record.read()
    experiment = runs.experiment_id(uri, "bayling", tmp_path / "artifacts")
    controller = Controller(
        target,
        record,
        History(uri, lambda: experiment, ROLLOUT),
        target.ask,
        config,
        at_start(registered, "champion", time.time()),
        registered,
    )
    stop = threading.Event()
    following = threading.Thread(target=controller.run, args=(stop,))
    following.start()
    yield Scene(record, people, controller)
    stop.set()
    people.leave()
    following.join(30)
    run.shutdown()


def test_versions_come_and_go_and_not_one_request_fails(scene: Scene) -> None:
    scene.champion("2")
    scene.comes_to(State.full, "2")
    replaced = time.time()
    assert {one.version for one in scene.people.asked if one.at > replaced - 1} == {"2"}

    scene.champion("3")
    wrong_script = scene.comes_to(State.rolled_back, "3")
    assert "in the wrong script" in wrong_script.reason
    assert "3" not in {one.version for one in scene.people.asked}, "it was given traffic"

    scene.champion("4")
    scene.until(lambda now: now.state is State.canary)
    scene.kill_engine("2")
    off_target = scene.comes_to(State.rolled_back, "4")
    assert "answers in the wrong language or script: 100.0% after 0.0%" in off_target.reason
    back = time.time()
    while len(scene.people.asked) < 1000 or time.time() < back + 3:
        time.sleep(0.2)
    scene.people.leave()

    asked = scene.people.asked
    print(f"\n{len(asked)} requests, {len({one.conversation for one in asked})} conversations")
    assert [one.failure for one in asked if one.failure is not None] == []
    assert {one.version for one in asked if one.at > back} == {"2"}
    long = [one for one in asked if one.conversation.startswith("0-")]
    assert {"1", "2"} <= {one.version for one in long}

    # A conversation moves when a share grows over it or is taken away, and never else.
    ways: dict[str, list[str]] = defaultdict(list)
    for one in asked:
        if ways[one.conversation][-1:] != [one.version]:
            ways[one.conversation].append(one.version)
    whole = ["1", "2", "4", "2"]
    parts = [whole[first:last] for first in range(4) for last in range(first + 1, 5)]
    assert [way for way in ways.values() if way not in parts] == []
    moved = [way for way in ways.values() if "4" in way]
    assert moved, "nobody was given the version that was worse"
    assert len(moved) < len(ways)

    tags = {
        version: runs.client(scene.record.tracking_uri).get_model_version("bayling", version).tags
        for version in "234"
    }
    assert {version: one["rollout.state"] for version, one in tags.items()} == {
        "2": "full",
        "3": "rolled_back",
        "4": "rolled_back",
    }
