"""Answers from engines: Ray actors, as many as the scale says, each with the model in an engine.

The engine is the one that serves, and the ids are made the way the server makes them.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import ActorDiedError

from bayling.engines.options import EngineOptions
from bayling.engines.protocol import Engine
from bayling.errors import StageFailed
from bayling.evaluate.config import EvaluateConfig
from bayling.evaluate.decoding import Decoding
from bayling.evaluate.suite import Row
from bayling.model_folder import Serving, load_chat
from bayling.scale import Device, ScaleConfig
from bayling.templates import ChatFormat, Message

AHEAD = 2
"""Pieces that an actor has at a time: while the last long answers of one are made, the next one
fills the batch."""
_RESTARTS = 3


@dataclass(frozen=True)
class Answered:
    """What comes back of some questions."""

    rows: list[Row]
    """With `outputs`."""
    tokens: int
    """Generated ones."""
    no_room: int
    """Turns that got an empty answer because the context was full."""


class Answerer:
    """A model in an engine, answering many questions. Runs as a Ray actor, one model at a time."""

    def __init__(self, config: EvaluateConfig, device: str, threads: int) -> None:
        self._config, self._device, self._threads = config, device, threads
        self._loading = threading.Lock()
        self._folder: str | None = None
        self._engine: Engine | None = None
        self._beams: Any = None

    def answer(self, folder: str, decoding: Decoding, rows: list[Row]) -> Answered:
        """The rows with an answer to every turn, each after the model's own earlier ones."""
        with self._loading:
            # An actor that was started anew has to load again.
            if folder != self._folder:
                self._load(folder, decoding)
        asked = _Asked(rows)
        tokens = no_room = 0
        while going := asked.going():
            made = self._answer([asked.histories[index] for index in going], decoding)
            for index, ids in zip(going, made, strict=True):
                text = "" if ids is None else self._decoded(ids)
                tokens += len(ids or ())
                no_room += ids is None
                asked.answered(index, text)
        return Answered(asked.rows(), tokens, no_room)

    def _load(self, folder: str, decoding: Decoding) -> None:
        """Take another model; the one before it goes."""
        from bayling import engines

        if self._engine is not None:
            self._engine.close()
        self._engine = self._beams = None
        serving = Serving.read(Path(folder))
        self._chat: ChatFormat = load_chat(folder, serving.template)
        if decoding.beams > 1:
            from bayling.evaluate.beams import BeamSearch

            self._beams = BeamSearch(folder, self._device, self._threads, self._config.max_batch)
        else:
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
        self._context_length = serving.context_length
        self._folder = folder

    def _answer(
        self, conversations: Sequence[Sequence[Message]], decoding: Decoding
    ) -> list[list[int] | None]:
        """The ids of an answer to each conversation; None where the context has no room for any."""
        from bayling.engines.protocol import Sampling

        prompts = [self._chat.prompt_ids(messages) for messages in conversations]
        rooms = [self._context_length - len(prompt) for prompt in prompts]
        fitting = [index for index, room in enumerate(rooms) if room > 0]
        answers: list[list[int] | None] = [None] * len(prompts)
        asked = [prompts[index] for index in fitting]
        most = [min(decoding.max_new_tokens, rooms[index]) for index in fitting]
        stop_ids = tuple(self._chat.stop_ids)
        if self._engine is None:
            made = self._beams.generate(asked, most, decoding.beams, stop_ids)
        else:
            sampling = [
                Sampling(
                    max_new_tokens=number,
                    temperature=decoding.temperature,
                    seed=decoding.seed if decoding.temperature else None,
                    stop_ids=stop_ids,
                )
                for number in most
            ]
            made = [item.ids for item in self._engine.generate_all(asked, sampling)]
        for index, ids in zip(fitting, made, strict=True):
            answers[index] = ids
        return answers

    def _decoded(self, ids: list[int]) -> str:
        return str(self._chat.tokenizer.decode(ids, skip_special_tokens=True))


class _Asked:
    """Conversations on their way: the user's turns are given, the answers come."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows
        self.histories: list[list[Message]] = [[] for _ in rows]
        self._answers: list[list[str]] = [[] for _ in rows]

    def going(self) -> list[int]:
        """Those that have a turn left, which is asked now."""
        going = []
        for index, row in enumerate(self._rows):
            turn = len(self._answers[index])
            if turn < len(row["turns"]):
                if len(self.histories[index]) == 2 * turn:
                    self.histories[index].append(Message("user", row["turns"][turn]))
                going.append(index)
        return going

    def answered(self, index: int, text: str) -> None:
        self.histories[index].append(Message("assistant", text))
        self._answers[index].append(text)

    def rows(self) -> list[Row]:
        return [
            {**row, "outputs": given} for row, given in zip(self._rows, self._answers, strict=True)
        ]


class Answerers:
    """`scale.engines` actors side by side. Starting them costs more than loading a model, so
    they stay for all models of an evaluation."""

    def __init__(self, config: EvaluateConfig, scale: ScaleConfig) -> None:
        self._config = config
        actor = ray.remote(Answerer).options(
            num_cpus=scale.cpus_per_worker,
            num_gpus=scale.gpus_per_worker,
            max_concurrency=AHEAD,
            # A node that is lost takes what it was asked with it; that is asked again elsewhere.
            max_restarts=_RESTARTS,
            max_task_retries=_RESTARTS,
        )
        device = "cuda" if scale.device is Device.cuda else "cpu"
        # As many threads as CPUs asked for: two engines with all cores each would wait for
        # each other.
        self._actors = [
            actor.remote(config, device, scale.cpus_per_worker) for _ in range(scale.engines)
        ]
        self._free = self._actors * AHEAD
        self._running: dict[Any, tuple[Any, Any]] = {}

    def submit(self, key: Any, folder: Path, decoding: Decoding, rows: list[Row]) -> None:
        """Hand questions to an engine; there must be `room`."""
        actor = self._free.pop(0)
        self._running[actor.answer.remote(str(folder), decoding, rows)] = (key, actor)

    @property
    def room(self) -> bool:
        return bool(self._free)

    def next(self) -> tuple[Any, Answered]:
        """The key and the answers of the questions that are done first; waits for them."""
        (done, *_), _ = ray.wait(list(self._running), num_returns=1)
        key, actor = self._running.pop(done)
        self._free.append(actor)
        try:
            answered: Answered = ray.get(done)
        except ActorDiedError as error:
            raise StageFailed(
                f"an engine died {_RESTARTS + 1} times over the same questions; what was answered "
                f"is kept, and the same command goes on from there. {str(error).splitlines()[0]}"
            ) from None
        return key, answered

    def close(self) -> None:
        for actor in self._actors:
            ray.kill(actor)
