"""A model of this platform as lm-evaluation-harness sees one: texts in, likelihoods and texts out.

Made like the harness's own Hugging Face backend: the same tokens, the same cutting of what is too
long, the same likelihoods. Only the engine differs: it is the one that serves.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import (
    handle_stop_sequences,
    normalize_gen_kwargs,
    postprocess_generated_text,
)
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from bayling.engines.protocol import Sampling
from bayling.errors import UserError

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from transformers import PreTrainedTokenizerFast

    from bayling.engines.protocol import Engine
    from bayling.templates import ChatFormat

_MAX_NEW_TOKENS = 256
"""The harness's default, for tasks that do not say."""
_LOOK_EVERY_S = 0.2
"""How often an answer that is being made is searched for the strings that end it."""
_AT_ONCE = 512
"""Requests that the engine is given at a time; it batches them by itself."""

_Asked = TypeVar("_Asked")
_Found = TypeVar("_Found")
Likelihood = tuple[float, bool]
"""Of a continuation: its log-probability, and whether greedy decoding would make it."""


class EngineLM(TemplateLM):  # type: ignore[misc]  # the harness has no types
    """An engine as a model of the harness."""

    def __init__(
        self, engine: Engine, chat: ChatFormat, report: Callable[[int, int], None]
    ) -> None:
        """
        Args:
            report: called with the number of requests answered, and that of all.
        """
        super().__init__()
        self.tokenizer: PreTrainedTokenizerFast = chat.tokenizer
        self.truncated = 0
        """Requests whose beginning was cut off, because they do not fit into the context."""
        self._engine = engine
        self._stop_ids = tuple(chat.stop_ids)
        self._report = report
        self._numbers = itertools.count()

    @property
    def eot_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        bos = self.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else int(bos)

    @property
    def max_length(self) -> int:
        return self._engine.context_length

    @property
    def tokenizer_name(self) -> str:
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: Any
    ) -> list[int]:
        if add_special_tokens is None:
            # A rendered conversation begins with its own.
            begun = string.startswith(str(self.tokenizer.decode([self.prefix_token_id])))
            add_special_tokens = not begun
        return list(self.tokenizer.encode(string, add_special_tokens=add_special_tokens))

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        rendered = self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )
        return str(rendered)

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = True
    ) -> list[Likelihood]:
        likelihoods: list[Likelihood] = super().loglikelihood(requests, disable_tqdm=True)
        return likelihoods

    def _loglikelihood_tokens(
        self, requests: list[tuple[Any, list[int], list[int]]], **_: Any
    ) -> list[Likelihood]:
        pairs = [(context, continuation) for _, context, continuation in requests]
        return asyncio.run(self._each(self._likelihood, pairs, lambda pair: sum(map(len, pair))))

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = True
    ) -> list[float]:
        windows = [
            [
                make_disjoint_window(window)
                for window in get_rolling_token_windows(
                    token_list=self.tok_encode(request.args[0]),
                    prefix_token=self.prefix_token_id,
                    max_seq_len=self.max_length - 1,
                    context_len=1,
                )
            ]
            for request in requests
        ]
        found = iter(self._loglikelihood_tokens([(None, *one) for own in windows for one in own]))
        return [sum(next(found)[0] for _ in own) for own in windows]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        asked = [
            (self.tok_encode(request.args[0]), *self._sampling(request, seed))
            for seed, request in enumerate(requests)
        ]
        return asyncio.run(self._each(self._answer, asked, lambda one: len(one[0])))

    async def _likelihood(self, pair: tuple[list[int], list[int]]) -> Likelihood:
        context, continuation = pair
        if not 0 < len(continuation) < self.max_length:
            raise UserError(
                f"a continuation of {len(continuation)} tokens cannot be scored in the model's "
                f"context of {self.max_length}: leave its task out"
            )
        ids = context + continuation
        if len(ids) > self.max_length:
            self.truncated += 1
            ids = ids[-self.max_length :]
        scores = await self._engine.score(self._next_id(), ids, top=1)
        own = scores[-len(continuation) :]
        likeliest = [score.top[0][0] for score in own]
        return sum(score.logprob for score in own), likeliest == continuation

    def _sampling(self, request: Instance, seed: int) -> tuple[Sampling, list[str]]:
        """How an answer is to be made, and the strings that end it.

        Raises:
            UserError: the task asks for what no engine has, or for more than the context.
        """
        asked = normalize_gen_kwargs(dict(request.args[1]), _MAX_NEW_TOKENS)
        until = handle_stop_sequences(asked.pop("until", None), eos=None)
        new = int(asked.pop("max_gen_toks"))
        drawn = bool(asked.pop("do_sample", False))
        temperature = float(asked.pop("temperature", 1.0)) if drawn else 0.0
        top_p = float(asked.pop("top_p", None) or 1.0)
        if unknown := sorted(key for key, value in asked.items() if value not in (None, 0, 1)):
            raise UserError(
                f"the task {request.task_name!r} asks for {', '.join(unknown)}, which engines here "
                "do not have: take it out of its generation_kwargs, or leave the task out"
            )
        if new >= self.max_length:
            raise UserError(
                f"the task {request.task_name!r} asks for {new} new tokens, which leaves no room "
                f"for a prompt in the model's context of {self.max_length}"
            )
        sampling = Sampling(
            new,
            temperature=temperature,
            top_p=top_p,
            seed=seed if drawn else None,
            stop_ids=self._stop_ids,
        )
        return sampling, until

    async def _answer(self, asked: tuple[list[int], Sampling, list[str]]) -> str:
        """The answer up to the first of the strings that end it."""
        prompt, sampling, until = asked
        room = self.max_length - sampling.max_new_tokens
        if len(prompt) > room:
            self.truncated += 1
            prompt = prompt[-room:]
        ids: list[int] = []
        text = ""
        request_id = self._next_id()
        async for chunk in self._engine.generate(
            request_id, prompt, sampling, every_s=_LOOK_EVERY_S
        ):
            ids += chunk.ids
            text = str(self.tokenizer.decode(ids, skip_special_tokens=True))
            if any(end and end in text for end in until):
                self._engine.cancel(request_id)
        return str(postprocess_generated_text(text, until, None))

    def _next_id(self) -> str:
        return f"harness-{next(self._numbers)}"

    async def _each(
        self,
        work: Callable[[_Asked], Awaitable[_Found]],
        items: Sequence[_Asked],
        length: Callable[[_Asked], int],
    ) -> list[_Found]:
        """What comes of each item, in their order; a number of them at a time, the longest first.

        Neighbours in length take the least padding, and what needs most memory fails first.
        """
        gate = asyncio.Semaphore(_AT_ONCE)
        results: dict[int, _Found] = {}

        async def one(index: int) -> None:
            async with gate:
                results[index] = await work(items[index])
            self._report(len(results), len(items))

        order = sorted(range(len(items)), key=lambda index: -length(items[index]))
        await asyncio.gather(*(one(index) for index in order))
        return [results[index] for index in range(len(items))]
