"""The models that `serve.py` serves, what it asks them, and the engine without a server."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from load import Measured, Messages, refined, user
from safetensors.torch import load_file, save_file
from servers import CONTEXT, INTERVAL_S, MOST
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from bayling import accelerators
from bayling.engines.options import EngineOptions
from bayling.engines.protocol import Sampling
from bayling.engines.transformers import TransformersEngine
from bayling.model_folder import Serving, load_chat
from bayling.templates import Message

DTYPE = "bfloat16" if accelerators.cpu_multiplies_bf16() else "float32"
"""What all compute in: without instructions for bfloat16 others would be many times slower."""
_LENGTHS = {"config.json": "max_position_embeddings", "bayling.json": "context_length"}
"""Where a model folder says how long its context is."""


def make_models(champion: Path, folder: Path) -> dict[str, Path]:
    """The two models, with the champion's tokenizer and template."""
    small = Path(shutil.copytree(champion, folder / "small"))
    config = json.loads((small / "config.json").read_text())
    end, vocabulary = config["eos_token_id"], config["vocab_size"]
    weights = load_file(small / "model.safetensors")
    weights["lm_head.weight"][end] = 0  # never the likeliest
    save_file(weights, small / "model.safetensors", {"format": "pt"})
    for name, key in _LENGTHS.items():
        described = json.loads((small / name).read_text())
        described[key] = CONTEXT
        (small / name).write_text(json.dumps(described))

    large = Path(shutil.copytree(small, folder / "large"))
    (large / "model.safetensors").unlink()
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=32000,
            hidden_size=768,
            intermediate_size=2048,
            num_hidden_layers=11,
            num_attention_heads=12,
            max_position_embeddings=CONTEXT,
            bos_token_id=config["bos_token_id"],
            eos_token_id=end,
            initializer_range=0.1,  # with less it would repeat one token for ever
        )
    )
    model = model.to(getattr(torch, DTYPE))
    model.lm_head.weight.data[end] = 0
    model.lm_head.weight.data[vocabulary:] = 0  # what the tokenizer has no text for
    model.save_pretrained(large)
    return {"small": small, "large": large}


class Texts:
    """User messages of which no two begin alike, so that none can be answered from another.

    Args:
        tokens: what their prompts have at least, template included.
    """

    def __init__(self, folder: Path, tokens: int) -> None:
        self._numbers = itertools.count(10_000)
        self._words: list[str] = []
        chat = load_chat(folder, Serving.read(folder).template)
        while len(chat.prompt_ids([Message("user", self._text(10_000))])) < tokens:
            self._words.append(f"{len(self._words)} meters")

    def more(self, texts: int) -> list[str]:
        return [self._text(next(self._numbers)) for _ in range(texts)]

    def _text(self, number: int) -> str:
        return ", ".join([f"{number} days", *self._words])


class Bare:
    """The platform's engine in this process, without HTTP, Ray and text; and plain generation."""

    def __init__(self, folder: Path, threads: int, new_tokens: int) -> None:
        self._engine = TransformersEngine(folder, EngineOptions(max_batch=MOST, threads=threads))
        self._sampling = Sampling(new_tokens)
        self._chat = load_chat(folder, Serving.read(folder).template)
        # As transformers loads it: the engine's own has had its weights packed.
        self._plain = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, DTYPE))

    def _ids(self, messages: Messages) -> list[int]:
        return self._chat.prompt_ids([Message(**message) for message in messages])

    def _text(self, ids: Sequence[int]) -> str:
        return self._chat.tokenizer.decode(ids, skip_special_tokens=True)

    def measure(self, begun: Sequence[str], at_once: int, turns: int = 1) -> Measured:
        """As `load.measure`, in process."""
        left = iter(enumerate(begun))
        first_token_s: list[float] = []
        tokens = 0

        async def client() -> None:
            nonlocal tokens
            for number, text in left:
                messages = [user(text)]
                for turn in range(turns):
                    began = time.perf_counter()
                    first = None
                    answer: list[int] = []
                    async for chunk in self._engine.generate(
                        f"{number}-{turn}",
                        self._ids(messages),
                        self._sampling,
                        every_s=INTERVAL_S,
                    ):
                        first = first or time.perf_counter() - began
                        answer += chunk.ids
                    first_token_s.append(first or 0.0)
                    tokens += len(answer)
                    refined(messages, self._text(answer))

        async def everybody() -> None:
            await asyncio.gather(*(client() for _ in range(at_once)))

        began = time.perf_counter()
        asyncio.run(everybody())
        return Measured(tokens, time.perf_counter() - began, first_token_s)

    def generate(self, begun: Sequence[str], at_once: int, turns: int = 1) -> Measured:
        """transformers' own `generate`, a padded batch of `at_once` after the other."""
        began = time.perf_counter()
        tokens, first_token_s = 0, []
        for start in range(0, len(begun), at_once):
            conversations = [[user(text)] for text in begun[start : start + at_once]]
            for _ in range(turns):
                answers = self._batch([self._ids(messages) for messages in conversations])
                tokens += answers.numel()
                first_token_s.append(time.perf_counter() - began)
                for messages, answer in zip(conversations, answers.tolist(), strict=True):
                    refined(messages, self._text(answer))
        return Measured(tokens, time.perf_counter() - began, first_token_s)

    def _batch(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """The answers to some prompts, all of the same length."""
        width = max(map(len, prompts))
        ids = torch.tensor([[*[0] * (width - len(one)), *one] for one in prompts])
        mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in prompts])
        made: torch.Tensor = self._plain.generate(
            ids,
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=self._sampling.max_new_tokens,
            min_new_tokens=self._sampling.max_new_tokens,
            pad_token_id=0,
        )
        return made[:, width:]

    def close(self) -> None:
        self._engine.close()
