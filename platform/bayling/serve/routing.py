"""Which replica of an engine a request goes to.

Engines keep the keys and values of prompts that they have seen and compute only what comes after.
A conversation is therefore best gone on with where it began, as long as that replica is not much
busier than the others.

Ray Serve LLM has a router of this kind, which needs vLLM where requests come in, reads text, and
blocks the event loop on two calls to an actor for each request. Here prompts are tokens, and what
was sent where is remembered in the process that sends it.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import Any

from ray.serve.config import RequestRouterConfig
from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from bayling.engines.prefixes import BLOCK, blocks
from bayling.serve.config import Routing, ServeConfig

_WORTH = 0.5
"""The share of a prompt that a replica must have seen to be preferred for it. Less is what all
prompts begin with, and would draw them all to the replica that had the first one."""
_BLOCKS = 200_000
"""How many are remembered, the newest: about 3 million tokens."""


def config(config: ServeConfig) -> RequestRouterConfig:
    """How Ray Serve is to route requests to the engines."""
    if config.routing is not Routing.prefix:
        return RequestRouterConfig()
    return RequestRouterConfig(
        request_router_class=f"{__name__}.PrefixRouter",
        request_router_kwargs={"slack": max(2, config.max_batch // 4)},
    )


class Prefixes:
    """What each replica has been sent, by the beginnings of prompts.

    Args:
        kept: how many blocks of tokens are remembered.
    """

    def __init__(self, kept: int = _BLOCKS) -> None:
        self._kept = kept
        self._replicas: OrderedDict[int, set[Hashable]] = OrderedDict()
        """The hash of a prompt's beginning → who has been sent one that begins so."""

    def sent(self, token_ids: Sequence[int], adapter: str | None, replica: Hashable) -> None:
        """Note down where a prompt went."""
        for block in blocks(token_ids, adapter):
            self._replicas.setdefault(block, set()).add(replica)
            self._replicas.move_to_end(block)
        while len(self._replicas) > self._kept:
            self._replicas.popitem(last=False)

    def seen(
        self, token_ids: Sequence[int], adapter: str | None, replicas: Sequence[Hashable]
    ) -> dict[Hashable, int]:
        """How many blocks of a prompt's beginning each replica has seen."""
        depth = dict.fromkeys(replicas, 0)
        left = set(replicas)
        for number, block in enumerate(blocks(token_ids, adapter), 1):
            left &= self._replicas.get(block, set())
            if not left:
                break
            depth.update(dict.fromkeys(left, number))
        return depth


class PrefixRouter(RequestRouter):  # type: ignore[misc]
    """Ray Serve's router for the deployment `Engine`, whose requests it knows the arguments of."""

    def initialize_state(self, slack: int = 2, **_: Any) -> None:
        """
        Args:
            slack: how many more requests than the least busy replica one may have, and still be
                given another for what it has seen.
        """
        self._slack = slack
        self._prefixes = Prefixes()

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        if not candidate_replicas:
            return []
        two = random.sample(candidate_replicas, min(2, len(candidate_replicas)))
        if pending_request is None:
            return [two]
        # Where none of them can take it, Ray Serve waits before it asks again.
        pending_request.routing_context.should_backoff = True
        prompt = _prompt(pending_request)
        if prompt is None or len(candidate_replicas) == 1:
            return [two]
        queues = {
            one.replica_id: self.replica_queue_len_cache.get(one.replica_id) or 0
            for one in candidate_replicas
        }
        most = min(queues.values()) + self._slack
        free = [one for one in candidate_replicas if queues[one.replica_id] <= most]
        seen = self._prefixes.seen(*prompt, [one.replica_id for one in free])
        best = max(seen.values())
        if best * BLOCK < _WORTH * len(prompt[0]):
            return [two]
        return [[one for one in free if seen[one.replica_id] == best], two]

    def on_request_routed(
        self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any
    ) -> None:
        prompt = _prompt(pending_request)
        if prompt is not None:
            self._prefixes.sent(*prompt, replica_id)


def _prompt(request: PendingRequest) -> tuple[list[int], str | None] | None:
    """A request's tokens and its adapter; None for one that generates nothing."""
    if request.metadata.call_method != "generate":
        return None
    _, token_ids, sampling, *_ = request.args
    return token_ids, sampling.adapter
