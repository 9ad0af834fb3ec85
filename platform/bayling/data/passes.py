"""Passes over partitions, as Ray tasks: files go in and out, and only counts come back."""

from __future__ import annotations

import gc
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, TypeVar

import ray

from bayling.stage import Context

Item = TypeVar("Item")
Made = TypeVar("Made")


class Passes:
    """Runs passes one after the other, and tells how far they are."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.seconds: dict[str, float] = defaultdict(float)
        """Pass → how long it took."""

    def each(self, what: str, items: Sequence[Item], work: Callable[[Item], Made]) -> list[Made]:
        """Do the same work on every item; what comes back is small, and in order.

        Tasks are not tied to a place: a cluster that grows meanwhile helps, and what was on a node
        that is lost is done again elsewhere.
        """
        started = time.monotonic()
        task = ray.remote(_one).options(num_cpus=1)
        shared = ray.put(work)
        made: dict[int, Made] = {}
        running: dict[Any, int] = {}
        waiting = iter(range(len(items)))
        while len(made) < len(items):
            # As many as the cluster can run, and as many again, so that none of its cores waits.
            room = 2 * max(1, int(ray.cluster_resources().get("CPU", 1))) - len(running)
            running |= {task.remote(shared, items[at]): at for at in islice(waiting, room)}
            for one in ray.wait(list(running))[0]:
                made[running.pop(one)] = ray.get(one)
            self._context.report(f"{what}: {len(made)} of {len(items)}", len(made), len(items))
        self.seconds[what] += time.monotonic() - started
        return [made[at] for at in range(len(items))]

    def alone(self, what: str, work: Callable[[], Made]) -> Made:
        """Do something in one task, so that this process never holds what it needs."""
        [made] = self.each(what, [None], lambda _: work())
        return made


def _one(work: Callable[[Item], Made], item: Item) -> Made:
    # Hundreds of thousands of rows, and hardly a cycle among them: to look for cycles again and
    # again while they are made takes a tenth of the time.
    gc.disable()
    try:
        return work(item)
    finally:
        gc.enable()
