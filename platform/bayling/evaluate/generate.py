"""Answers to the held-out prompts: engines as Ray actors, prompts in shards.

The engine is the one that serves, and the ids are made the way the server makes them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray

from bayling.engines.options import EngineOptions
from bayling.engines.protocol import Engine
from bayling.evaluate.config import EvaluateConfig
from bayling.model_folder import Serving, load_chat
from bayling.scale import Device, ScaleConfig
from bayling.templates import ChatFormat, Message

_Answered = tuple[str, int, list[dict[str, Any]]]


class Answerer:
    """A model in an engine, answering whole shards. Runs as a Ray actor, one model at a time."""

    def __init__(self, config: EvaluateConfig, device: str, threads: int) -> None:
        self._config, self._device, self._threads = config, device, threads
        self._engine: Engine | None = None

    def load(self, folder: str) -> None:
        """Take another model; the one before it goes."""
        from bayling import engines

        if self._engine is not None:
            self._engine.close()
        serving = Serving.read(Path(folder))
        self._chat: ChatFormat = load_chat(folder, serving.template)
        self._engine = engines.load(
            self._config.engine,
            folder,
            EngineOptions(
                device=self._device,
                max_batch=self._config.max_batch,
                context_length=serving.context_length,
                threads=self._threads,
            ),
        )

    def answer(self, method: str, start: int, rows: list[dict[str, Any]]) -> _Answered:
        """A shard's rows answered, with what they are and where they belong."""
        return method, start, (self._translate if method == "translate" else self._converse)(rows)

    def _translate(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows, each with the model's `output` to its `prompt`."""
        outputs = self._answer([[Message("user", row["prompt"])] for row in rows])
        return [{**row, "output": output} for row, output in zip(rows, outputs, strict=True)]

    def _converse(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows, each with `outputs`: an answer to every turn, after its own earlier ones."""
        histories: list[list[Message]] = [[] for _ in rows]
        answers: list[list[str]] = [[] for _ in rows]
        turns = [[m["content"] for m in row["messages"] if m["role"] == "user"] for row in rows]
        for turn in range(max(map(len, turns), default=0)):
            going = [index for index, asked in enumerate(turns) if turn < len(asked)]
            for index in going:
                histories[index].append(Message("user", turns[index][turn]))
            outputs = self._answer([histories[index] for index in going])
            for index, output in zip(going, outputs, strict=True):
                histories[index].append(Message("assistant", output))
                answers[index].append(output)
        return [{**row, "outputs": given} for row, given in zip(rows, answers, strict=True)]

    def _answer(self, conversations: Sequence[Sequence[Message]]) -> list[str]:
        """An answer to each conversation; an empty one where the context has no room for any."""
        from bayling.engines.protocol import Sampling

        assert self._engine is not None, "no model was loaded"
        prompts = [self._chat.prompt_ids(messages) for messages in conversations]
        rooms = [self._engine.context_length - len(prompt) for prompt in prompts]
        fitting = [index for index, room in enumerate(rooms) if room > 0]
        sampling = [
            Sampling(
                max_new_tokens=min(self._config.max_new_tokens, rooms[index]),
                stop_ids=tuple(self._chat.stop_ids),
            )
            for index in fitting
        ]
        answers = [""] * len(prompts)
        generated = self._engine.generate_all([prompts[index] for index in fitting], sampling)
        for index, item in zip(fitting, generated, strict=True):
            answers[index] = self._chat.tokenizer.decode(item.ids, skip_special_tokens=True)
        return answers


class Answerers:
    """`scale.engines` actors side by side. Starting them costs more than loading a model, so
    they stay for all models of an evaluation."""

    def __init__(self, config: EvaluateConfig, scale: ScaleConfig) -> None:
        self._config = config
        actor = ray.remote(Answerer).options(
            num_cpus=scale.cpus_per_worker, num_gpus=scale.gpus_per_worker
        )
        device = "cuda" if scale.device is Device.cuda else "cpu"
        # As many threads as CPUs asked for: two engines with all cores each would wait for
        # each other.
        self._actors = [
            actor.remote(config, device, scale.cpus_per_worker) for _ in range(scale.engines)
        ]

    def answer(
        self, folder: Path, rows: dict[str, list[dict[str, Any]]], report: Callable[[int], None]
    ) -> dict[str, list[dict[str, Any]]]:
        """`rows["translate"]` and `rows["converse"]` with one model's answers, in their order.

        Args:
            report: called with the number of rows answered so far.
        """
        size = self._config.shard_size
        shards = [
            (method, start, items[start : start + size])
            for method, items in rows.items()
            for start in range(0, len(items), size)
        ]
        ray.get([actor.load.remote(str(folder)) for actor in self._actors])
        pool = ray.util.ActorPool(self._actors)
        done: dict[tuple[str, int], list[dict[str, Any]]] = {}
        answered = 0
        for method, start, part in pool.map_unordered(
            lambda actor, shard: actor.answer.remote(*shard), shards
        ):
            done[method, start] = part
            answered += len(part)
            report(answered)
        return {
            method: [row for start in range(0, len(items), size) for row in done[method, start]]
            for method, items in rows.items()
        }

    def close(self) -> None:
        for actor in self._actors:
            ray.kill(actor)


def read_lines(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write JSON lines; complete or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}")
    with aside.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    aside.replace(path)
