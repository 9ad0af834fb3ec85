"""Conversations go where their beginning was, as long as that replica is not much busier."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from ray import serve
from ray.serve.handle import DeploymentHandle

from bayling.engines.protocol import Sampling
from bayling.serve import routing
from bayling.serve.config import Routing, ServeConfig
from bayling.serve.routing import Prefixes

SYSTEM = list(range(100, 140))
"""What every prompt begins with."""


@pytest.mark.unit
@pytest.mark.parametrize(
    ("config", "router"),
    [
        (ServeConfig(), "PrefixRouter"),
        (ServeConfig(routing=Routing.balanced), "PowerOfTwoChoices"),
    ],
)
def test_conversations_go_where_they_were_unless_it_is_chosen_otherwise(
    config: ServeConfig, router: str
) -> None:
    assert router in str(routing.config(config).request_router_class)


@pytest.mark.unit
def test_what_was_seen_is_counted_in_whole_blocks_from_the_beginning() -> None:
    prefixes = Prefixes()
    prefixes.sent([1] * 48, None, "a")
    prefixes.sent([1] * 20, None, "b")
    prefixes.sent([1] * 48, "formal", "c")
    assert prefixes.seen([1] * 64, None, ["a", "b", "c"]) == {"a": 3, "b": 1, "c": 0}
    assert prefixes.seen([1] * 47, None, ["a", "b"]) == {"a": 2, "b": 1}
    assert prefixes.seen([2, *[1] * 47], None, ["a"]) == {"a": 0}
    assert prefixes.seen([1] * 15, None, ["a"]) == {"a": 0}
    assert prefixes.seen([1] * 48, "formal", ["a", "c"]) == {"a": 0, "c": 3}


@pytest.mark.unit
def test_the_oldest_is_forgotten() -> None:
    prefixes = Prefixes(kept=3)
    prefixes.sent([1] * 32, None, "a")
    prefixes.sent([2] * 32, None, "a")
    assert prefixes.seen([1] * 32, None, ["a"]) == {"a": 0}
    assert prefixes.seen([2] * 32, None, ["a"]) == {"a": 2}


class Who:
    """Says which replica it is, after as many seconds as it is asked to take."""

    def __init__(self) -> None:
        self._name = serve.get_replica_context().replica_id.unique_id

    async def generate(
        self, request_id: str, token_ids: list[int], sampling: Sampling, every_s: float, trace: Any
    ) -> str:
        await asyncio.sleep(every_s)
        return self._name


@pytest.fixture(scope="module")
def who(ray_cluster: None) -> Iterator[DeploymentHandle]:
    """Three replicas of eight requests each; one may have two more than the least busy."""
    config = ServeConfig(routing=Routing.prefix, max_batch=8)
    deployment = serve.deployment(Who).options(
        num_replicas=3,
        max_ongoing_requests=8,
        ray_actor_options={"num_cpus": 0},
        request_router_config=routing.config(config),
    )
    handle = serve.run(deployment.bind(), name="who", route_prefix=None)
    handle._init(_run_router_in_separate_loop=True)
    yield handle
    serve.shutdown()


def ask(who: DeploymentHandle, token_ids: list[int], seconds: float = 0.0) -> Any:
    return who.generate.remote("id", token_ids, Sampling(5), seconds, {})


def test_a_conversation_stays_where_it_began_and_others_spread(who: DeploymentHandle) -> None:
    began = Counter[str]()
    for number in range(30):
        turns = [*SYSTEM, *[number] * 60]
        first = ask(who, turns).result()
        began[first] += 1
        for _ in range(4):
            turns = [*turns, *[number] * 30]
            assert ask(who, turns).result() == first
    assert len(began) == 3, "what all prompts have in common drew them to one replica"


def test_a_replica_that_is_much_busier_is_passed_over(who: DeploymentHandle) -> None:
    same = [*SYSTEM, *[77] * 200]
    asked = [ask(who, same, 2.0) for _ in range(18)]
    where = Counter(answer.result() for answer in asked)
    assert len(where) == 3
    assert max(where.values()) <= 8
