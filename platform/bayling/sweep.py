"""Several configurations below one MLflow parent, a few of them at a time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

from bayling.cluster import local
from bayling.config import Config
from bayling.errors import GateRefused, StageFailed, UserError
from bayling.pipeline import Pipeline, Watcher
from bayling.stage import fingerprint

_END_S = 30.0

Work = Callable[[Pipeline, str], Any]
"""What is done with a pipeline, given the id of the parent run."""


def _tell_the_same_apart(
    configs: list[tuple[str, Config]], prints: list[dict[str, str]], watcher: Watcher
) -> None:
    """Say which combinations are one and the same run, as what they differ in decides nothing."""
    first: dict[str, str] = {}
    for (text, config), stages in zip(configs, prints, strict=True):
        earlier = first.setdefault(fingerprint(config.folder, stages), text)
        if earlier != text:
            watcher.note(
                f"{text} is the same run as {earlier}: what they differ in does not decide what "
                "comes out; to compare speeds, run them one by one with a name=… of their own"
            )


def run(
    configs: list[tuple[str, Config]],
    watcher_of: Callable[[str], Watcher],
    work: Work,
    at_once: int = 1,
) -> list[tuple[str, Any]]:
    """Run every configuration; returns (overrides, result) for each, in their order.

    A refusal by the gate is a result like any other, and so is an error that is for the user to
    read: one combination that does not work does not cost the others. Ray shares out the
    cluster's resources: a combination that has to wait for its workers waits.

    Args:
        watcher_of: who is told about the combination with these overrides.
        at_once: how many run side by side at most.
    """
    from bayling.registry import runs

    first = Pipeline(configs[0][1], watcher_of(configs[0][0]))
    first.prepare()
    prints = [Pipeline(config, first.watcher).fingerprints for _, config in configs]
    _tell_the_same_apart(configs, prints, first.watcher)
    tracked = runs.open_run(
        first.config.tracking,
        first.experiment(),
        name=f"{first.config.name} sweep",
        key=fingerprint(prints),
        stage="sweep",
        config={"sweep": [overrides for overrides, _ in configs]},
        labels=first.labels(),
    )
    results: list[Any] = [None] * len(configs)
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for index in range(len(configs)):
        waiting.put(index)

    def one_after_another() -> None:
        while True:
            try:
                index = waiting.get_nowait()
            except queue.Empty:
                return
            overrides, config = configs[index]
            try:
                results[index] = work(Pipeline(config, watcher_of(overrides)), tracked.run_id)
            except (GateRefused, StageFailed, UserError) as error:
                results[index] = error
            except Exception as error:
                results[index] = StageFailed(f"{type(error).__name__}: {error}")

    with runs.ended_with_the_block(tracked):
        threads = [threading.Thread(target=one_after_another, daemon=True) for _ in range(at_once)]
        try:
            with local.connected(*(config.scale for _, config in configs)):
                for thread in threads:
                    thread.start()
                for thread in threads:
                    while thread.is_alive():  # a join without end would not hear Ctrl-C
                        thread.join(0.5)
        except KeyboardInterrupt:
            while not waiting.empty():
                waiting.get()
            for thread in threads:  # without Ray what runs ends, and marks its MLflow run
                thread.join(_END_S)
            raise
    return [(overrides, result) for (overrides, _), result in zip(configs, results, strict=True)]
