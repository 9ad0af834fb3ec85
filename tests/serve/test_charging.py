"""What an answer costs, also one that nobody waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path

import pytest

from bayling.engines.protocol import Chunk, Sampling, Scored
from bayling.model_folder import load_chat
from bayling.serve.answering import Answering, Limits, Prompt, choices
from bayling.serve.errors import ApiError, Overloaded, Unavailable
from bayling.serve.schema import SamplingFields
from bayling.templates import Message


class Tokens:
    """Gives tokens in pairs, then ends, fails, or gives no more."""

    def __init__(self, pairs: int, then: Exception | None = None, *, last: bool = True) -> None:
        self._pairs = pairs
        self._then = then
        self._last = last

    async def generate(
        self, request_id: str, token_ids: Sequence[int], sampling: Sampling, *, every_s: float
    ) -> AsyncIterator[Chunk]:
        for number in range(self._pairs):
            last = self._last and self._then is None and number == self._pairs - 1
            yield Chunk([5, 6], "length" if last else None)
        if self._then is not None:
            raise self._then
        await asyncio.Event().wait()

    async def score(
        self, request_id: str, token_ids: Sequence[int], top: int, adapter: str | None
    ) -> list[Scored]:
        return [Scored(-1.0)] * (len(token_ids) - 1)


def made(model_folder: Path, tokens: Tokens) -> tuple[Answering, Prompt]:
    answering = Answering(
        load_chat(model_folder, "bayling"),
        tokens,
        Limits(context_length=1000, max_new_tokens=50, stream_interval_s=0, timeout_s=0.3),
    )
    return answering, answering.prompt([Message("user", "Hello")], SamplingFields())


def test_an_answer_costs_its_prompt_and_its_tokens_once(model_folder: Path) -> None:
    answering, prompt = made(model_folder, Tokens(3))
    bill: list[int] = []
    asyncio.run(answering.answer(prompt, bill.append))
    assert bill == [len(prompt.ids) + 6]


def test_a_stream_that_is_left_costs_what_came_until_then(model_folder: Path) -> None:
    answering, prompt = made(model_folder, Tokens(100))
    bill: list[int] = []

    async def leave() -> None:
        async with aclosing(answering.stream(prompt, bill.append)) as pieces:  # type: ignore[type-var]
            await anext(pieces)
            await anext(pieces)

    asyncio.run(leave())
    assert bill == [len(prompt.ids) + 4]


def test_an_answer_that_nobody_waits_for_costs_its_prompt(model_folder: Path) -> None:
    answering, prompt = made(model_folder, Tokens(0))
    bill: list[int] = []

    async def leave() -> None:
        task = asyncio.create_task(answering.answer(prompt, bill.append))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(leave())
    assert bill == [len(prompt.ids)]


@pytest.mark.parametrize("reason", [Overloaded(), Unavailable("gone"), RuntimeError("broken")])
def test_a_request_that_the_server_did_not_take_costs_nothing(
    model_folder: Path, reason: Exception
) -> None:
    answering, prompt = made(model_folder, Tokens(0, reason))
    bill: list[int] = []
    with pytest.raises(ApiError):
        asyncio.run(answering.answer(prompt, bill.append))
    assert sum(bill) == 0


def test_an_answer_that_took_too_long_costs_what_was_done(model_folder: Path) -> None:
    for pairs in (0, 2):
        answering, prompt = made(model_folder, Tokens(pairs, last=False))
        bill: list[int] = []
        with pytest.raises(ApiError):
            asyncio.run(answering.answer(prompt, bill.append))
        assert bill == [len(prompt.ids) + 2 * pairs]


def test_several_answers_to_a_prompt_cost_the_prompt_once(model_folder: Path) -> None:
    answering, prompt = made(model_folder, Tokens(3))
    bill: list[int] = []
    asyncio.run(answering.answer_all(choices(prompt, 4), bill.append))
    assert sum(bill) == len(prompt.ids) + 4 * 6


def test_scoring_costs_the_text(model_folder: Path) -> None:
    answering, _ = made(model_folder, Tokens(1))
    bill: list[int] = []
    asyncio.run(answering.score([5, 6, 7], 0, bill.append))
    assert bill == [3]
