"""The models that `serve.py` serves, what it asks them, and the engine without a server."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from load import Measured
from safetensors.torch import load_file, save_file
from servers import CONTEXT, INTERVAL_S, MOST
from transformers import LlamaConfig, LlamaForCausalLM

from bayling.engines.options import EngineOptions
from bayling.engines.protocol import Sampling
from bayling.engines.transformers import TransformersEngine
from bayling.model_folder import Serving, load_chat
from bayling.templates import Message

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
    ).bfloat16()
    model.lm_head.weight.data[end] = 0
    model.lm_head.weight.data[vocabulary:] = 0  # what the tokenizer has no text for
    model.save_pretrained(large)
    return {"small": small, "large": large}


def make_texts(folder: Path, tokens: int) -> list[str]:
    """Different user messages whose prompts have about so many tokens, template included."""
    chat = load_chat(folder, Serving.read(folder).template)
    texts = []
    for number in range(16):
        words = [f"in {number + 2} days"]
        while len(chat.prompt_ids([Message("user", ", ".join(words))])) < tokens:
            words.append(f"{number + len(words)} meters")
        texts.append(", ".join(words))
    return texts


class Bare:
    """The platform's engine in this process, without HTTP, Ray and text; and plain generation."""

    def __init__(self, folder: Path, threads: int, new_tokens: int) -> None:
        self._engine = TransformersEngine(folder, EngineOptions(max_batch=MOST, threads=threads))
        self._sampling = Sampling(new_tokens)
        self._chat = load_chat(folder, Serving.read(folder).template)

    def _ids(self, text: str) -> list[int]:
        return self._chat.prompt_ids([Message("user", text)])

    def measure(self, texts: Sequence[str], at_once: int, requests: int) -> Measured:
        """As `load.measure`, in process."""
        numbers = iter(range(requests))
        prompts = [self._ids(text) for text in texts]
        first_token_s: list[float] = []
        tokens = 0

        async def client(name: int) -> None:
            nonlocal tokens
            for number in numbers:
                began = time.perf_counter()
                first = None
                async for chunk in self._engine.generate(
                    f"{name}-{number}",
                    prompts[number % len(prompts)],
                    self._sampling,
                    every_s=INTERVAL_S,
                ):
                    first = first or time.perf_counter() - began
                    tokens += len(chunk.ids)
                first_token_s.append(first or 0.0)

        async def everybody() -> None:
            await asyncio.gather(*(client(name) for name in range(at_once)))

        began = time.perf_counter()
        asyncio.run(everybody())
        return Measured(tokens, time.perf_counter() - began, first_token_s)

    def generate(self, texts: Sequence[str], at_once: int, requests: int) -> Measured:
        """transformers' own `generate`, a padded batch of `at_once` after the other."""
        model = self._engine._model
        prompts = [self._ids(text) for text in texts]
        began = time.perf_counter()
        tokens, first_token_s = 0, []
        for start in range(0, requests, at_once):
            batch = [prompts[number % len(prompts)] for number in range(start, start + at_once)]
            width = max(map(len, batch))
            ids = torch.tensor([[0] * (width - len(one)) + one for one in batch])
            mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in batch])
            model.set_attn_implementation("sdpa")
            with torch.inference_mode():
                made = model.generate(
                    ids,
                    attention_mask=mask,
                    do_sample=False,
                    max_new_tokens=self._sampling.max_new_tokens,
                    min_new_tokens=self._sampling.max_new_tokens,
                    pad_token_id=0,
                )
            tokens += at_once * (made.shape[1] - width)
            first_token_s.append(time.perf_counter() - began)
        model.set_attn_implementation("bayling_rows")
        return Measured(tokens, time.perf_counter() - began, first_token_s)

    def close(self) -> None:
        self._engine.close()
