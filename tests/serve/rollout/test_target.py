"""The plain data of a place that runs versions, and of the server's figures."""

from __future__ import annotations

import json
from typing import Any

import pytest
from one_request import one_request

from bayling.serve.rollout.comparison import Traffic
from bayling.serve.rollout.target import Observation
from bayling.serve.stats import Windows

pytestmark = pytest.mark.unit

ENGINES: dict[str, Any] = {
    "running": 1,
    "starting": 0,
    "ready": True,
    "failed": None,
    "trouble": None,
    "languages": ["en"],
    "ongoing": 2,
}
SEEN: dict[str, Any] = {
    "shares": {"7": 1.0},
    "versions": {"7": ENGINES},
    "traffic": None,
    "no_traffic": None,
}


def test_the_servers_figures_are_read_as_its_json_gives_them() -> None:
    windows = Windows(began=0.0)
    for status, off_target in ((200, 1), (500, 0), (400, 0)):
        windows.add(
            one_request(
                version="7", status=status, judged=1, off_target=off_target, ttft_s=0.1, tpot_s=0.01
            )
        )
    figures = {"versions": {one: stats.to_json() for one, stats in windows.since(0.0).items()}}
    seen = Observation.read({**SEEN, "traffic": json.loads(json.dumps(figures))})
    assert seen.traffic == {"7": Traffic(2, 1, (0.1, 0.1), (0.01, 0.01), 2, 1)}
    assert seen.no_traffic is None


def test_figures_of_another_form_are_told_and_the_rest_is_still_seen() -> None:
    seen = Observation.read({**SEEN, "traffic": {"versions": {"7": {"requests": 3}}}})
    assert seen.traffic == {}
    assert seen.no_traffic is not None and "ttft_s" in seen.no_traffic
    assert seen.of("7").ongoing == 2


def test_a_version_fails_by_its_engines_or_by_what_the_api_says() -> None:
    messages = ["Traceback …\nbayling.errors.UserError: models/7 holds no model\n"]
    by_engines = {**SEEN, "versions": {"7": {**ENGINES, "failed": messages}}}
    by_api = {**SEEN, "versions": {"7": {**ENGINES, "trouble": "models/7 holds no tokenizer"}}}
    assert Observation.read(by_engines).of("7").failed == "models/7 holds no model"
    assert Observation.read(by_api).of("7").failed == "models/7 holds no tokenizer"


def test_a_version_that_does_not_run_is_nothing_to_be_afraid_of() -> None:
    engines = Observation.read(SEEN).of("8")
    assert (engines.running, engines.ready, engines.failed) == (0, False, None)
