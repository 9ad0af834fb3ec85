"""The whole API over a model that answers by rule, where a test must know what is answered.

Template, tokenizer and HTTP layer are the real ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from fastapi import FastAPI
from tiny_model import CONTEXT

from bayling.engines.protocol import Chunk, Sampling, Scored
from bayling.model_folder import Serving, load_chat
from bayling.serve import front
from bayling.serve.answering import Answering, Limits
from bayling.serve.app import create_app
from bayling.serve.config import ServeConfig
from bayling.serve.fleet import Fleet, Version
from bayling.templates import ChatFormat

Rule = Callable[[str], str | Exception]
"""The prompt → the answer, or what happens instead."""


class Scripted:
    """`Tokens` that answers by a rule, one token at a time; knows how many it answers at once."""

    def __init__(self, chat: ChatFormat, rule: Rule) -> None:
        self._chat = chat
        self._rule = rule
        self.prompts: list[str] = []
        self.now = 0
        self.most = 0
        self.cancelled = 0

    async def generate(
        self, request_id: str, token_ids: Sequence[int], sampling: Sampling, *, every_s: float
    ) -> AsyncIterator[Chunk]:
        prompt = str(self._chat.tokenizer.decode(list(token_ids), skip_special_tokens=True))
        self.prompts.append(prompt)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            answer = self._rule(prompt)
            if isinstance(answer, Exception):
                raise answer
            for token in self._chat.tokenizer.encode(answer, add_special_tokens=False):
                await asyncio.sleep(0)
                yield Chunk([token])
            yield Chunk([], "stop")
        except (GeneratorExit, asyncio.CancelledError):
            self.cancelled += 1
            raise
        finally:
            self.now -= 1

    async def score(
        self, request_id: str, token_ids: Sequence[int], top: int, adapter: str | None
    ) -> list[Scored]:
        return [Scored(-1.0)] * (len(token_ids) - 1)


def scripted_app(
    folder: Path, rule: Rule, *, context: int = CONTEXT, at_once: int = 3
) -> tuple[Scripted, FastAPI]:
    """The model, and the application before it."""
    chat = load_chat(folder, "bayling")
    model = Scripted(chat, rule)
    answering = Answering(
        chat,
        model,
        Limits(context_length=context, max_new_tokens=40, stream_interval_s=0, timeout_s=30),
    )
    languages = Serving.read(folder).languages
    page = "http://127.0.0.1:5000/#/models/bayling"
    fleet = Fleet("bayling", lambda number: Version("bayling", number, languages, answering, page))
    fleet.take({"7": 1.0})
    fleet.load()

    async def ready() -> None:
        return

    # Half a batch of translations is made at a time.
    config = ServeConfig(max_batch=2 * at_once)
    app = create_app(fleet, ready, config)
    front.install(app, config, fleet.main_version)
    return model, app
