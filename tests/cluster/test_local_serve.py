"""What the local Ray Serve says of the versions that it runs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial

import httpx
import pytest
from running import free_port
from tiny_model import make_model
from tiny_server import small

from bayling.cluster.local_serve import LocalServe
from bayling.scale import ScaleConfig
from bayling.serve import run
from bayling.serve.application import API, ENGINES, ServedModel
from bayling.serve.rollout.target import Observation


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def target(
    ray_cluster: None, port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalServe]:
    """A server of version 7; version 8 has no weights, and version 9 no tokenizer."""
    folder = tmp_path_factory.mktemp("versions")
    whole = make_model(folder / "7")
    (shutil.copytree(whole, folder / "8") / "model.safetensors").unlink()
    (shutil.copytree(whole, folder / "9") / "tokenizer.json").unlink()
    folders = {number: str(folder / number) for number in "789"}
    served, config = ServedModel("sqlite:///unused", "bayling", folders), small(port)
    run.deploy(config, served, {"7": 1.0}, ScaleConfig())
    arguments = run.arguments_of(config, served, ScaleConfig())
    yield LocalServe(partial(run.apply, arguments), API, ENGINES)
    run.shutdown()


def until(target: LocalServe, holds: Callable[[Observation], bool]) -> Observation:
    deadline = time.monotonic() + 90
    while True:
        seen = Observation.read(target.observe(0.0))
        if holds(seen):
            return seen
        assert time.monotonic() < deadline, seen
        time.sleep(0.2)


def test_what_runs_is_seen_and_can_be_asked(target: LocalServe) -> None:
    seen = Observation.read(target.observe(0.0))
    assert seen.shares == {"7": 1.0}
    engines = seen.of("7")
    assert (engines.running, engines.ready, engines.failed, engines.ongoing) == (1, True, None, 0)
    assert engines.languages == ("en", "de", "zh", "hi", "ar")
    assert target.ask("bayling@7", "Hello", 5)["text"]
    assert target.ask("bayling@8", "Hello", 5)["status"] == 404


def test_a_version_without_weights_is_seen_with_its_reason_while_the_other_one_serves(
    target: LocalServe,
) -> None:
    target.apply({"7": 1.0, "8": 0.0}, ())
    seen = until(target, lambda what: what.of("8").failed is not None)
    assert "holds no model" in str(seen.of("8").failed)
    assert seen.of("7").ready
    target.apply({"7": 1.0}, ())
    until(target, lambda what: "8" not in what.versions)


def test_a_version_that_the_api_cannot_load_does_not_take_it_down(target: LocalServe) -> None:
    target.apply({"7": 0.5, "9": 0.5}, ())
    seen = until(target, lambda what: what.of("9").failed is not None)
    assert "tokenizer" in str(seen.of("9").failed)
    assert seen.shares == {"7": 0.5}
    assert target.ask("bayling", "Hello", 5)["text"]
    target.apply({"7": 1.0}, ())
    until(target, lambda what: what.shares == {"7": 1.0} and "9" not in what.versions)


@pytest.mark.usefixtures("target")
def test_figures_that_cannot_be_had_are_no_reason_not_to_see_the_rest() -> None:
    blind = LocalServe(lambda shares, leaving: None, "elsewhere", ENGINES)
    seen = Observation.read(blind.observe(0.0))
    assert seen.no_traffic is not None and "elsewhere" in seen.no_traffic
    assert seen.of("7").ready
    assert Observation.read(blind.observe(None)).no_traffic is None


def test_what_people_got_is_counted_and_what_a_rollout_asks_is_not(
    target: LocalServe, url: str
) -> None:
    began = time.time()
    assert target.ask("bayling@7", "Hello", 5)["text"]
    body = {"text": "in five days", "target": "de", "max_tokens": 8}
    assert httpx.post(f"{url}/v1/translations", json=body, timeout=60).is_success
    figures = Observation.read(target.observe(began)).traffic["7"]
    assert (figures.requests, figures.errors, figures.judged) == (1, 0, 1)
    assert len(figures.ttft_s) == len(figures.tpot_s) == 1
