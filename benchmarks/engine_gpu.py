"""The transformers engine on one GPU: tokens a second, beside transformers' own two ways.

    python benchmarks/engine_gpu.py [--json FILE] [--rounds N] [--smoke]

Two LLaMAs from random weights in bf16, of 125 million and of 8 billion parameters (the sizes of
Llama-3-8B), in process: no HTTP, no Ray, no text. Requests for 64 tokens each, 1, 8 and 32 at a
time, after prompts of 32 and of 512 tokens of which no two begin alike, and in conversations of
four turns, the first of 128 tokens. Beside the engine:

    generate     transformers' `generate`, a padded batch after the other
    continuous   transformers' continuous batching, as it sets itself up

The ways take turns in rounds; a ratio is the median over the rounds of the engine's tokens a
second over another's. Before that, the engine's answers in fp32 are compared with what `generate`
answers to each prompt alone.

`--smoke` runs all of it with tiny networks on whatever there is. Runs where torch and transformers
are, as `train_gpu.py` does.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib.metadata
import json
import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    ContinuousBatchingConfig,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
)

from bayling.engines.cache import ATTENTION
from bayling.engines.options import EngineOptions
from bayling.engines.protocol import Sampling
from bayling.engines.transformers import TransformersEngine

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
AT_ONCE = (1, 8, 32)
LOADS = {"32": (32, 1), "512": (512, 1), "turns": (128, 4)}
"""Name → tokens of the first prompt, and turns."""
REFINEMENT = 20
"""Tokens that a user's next wish adds."""
Prompt = list[int]


@dataclass(frozen=True)
class Size:
    name: str
    config: LlamaConfig


def sizes(smoke: bool) -> list[Size]:
    def llama(vocabulary: int, hidden: int, inner: int, layers: int, heads: int, kv: int) -> Any:
        return LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=hidden,
            intermediate_size=inner,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv,
            max_position_embeddings=2048,
            initializer_range=0.1,  # with less it would repeat one token for ever
            bos_token_id=1,
            eos_token_id=None,
            tie_word_embeddings=False,
        )

    if smoke:
        return [Size("tiny", llama(512, 64, 128, 2, 4, 2))]
    return [
        Size("125M", llama(32000, 768, 2048, 11, 12, 12)),
        Size("8B", llama(128256, 4096, 14336, 32, 32, 8)),
    ]


def make(size: Size, folder: Path) -> None:
    torch.manual_seed(0)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(DEVICE):
            model = LlamaForCausalLM(size.config)
    finally:
        torch.set_default_dtype(default)
    model.save_pretrained(folder)


class Ways:
    """The engine, and the library's own ways over the same weights."""

    def __init__(self, folder: Path, dtype: str, new_tokens: int) -> None:
        self.engine = TransformersEngine(
            folder,
            EngineOptions(device=DEVICE, dtype=dtype, kv_cache_gib=4 if DEVICE == "cpu" else None),
        )
        self.model: Any = self.engine._model
        self.new = new_tokens
        self._names = iter(range(10**9))
        self._folder = folder
        self._manager: Any = None

    def ours(self, prompts: list[Prompt], at_once: int) -> list[Prompt]:
        answers: list[Prompt] = [[] for _ in prompts]
        left = iter(enumerate(prompts))

        async def client() -> None:
            for number, prompt in left:
                name = str(next(self._names))
                async for chunk in self.engine.generate(name, prompt, Sampling(self.new)):
                    answers[number] += chunk.ids

        async def everybody() -> None:
            await asyncio.gather(*(client() for _ in range(at_once)))

        asyncio.run(everybody())
        return answers

    def generate(self, prompts: list[Prompt], at_once: int) -> list[Prompt]:
        self.model.set_attn_implementation("sdpa")
        answers: list[Prompt] = []
        for start in range(0, len(prompts), at_once):
            batch = torch.tensor(prompts[start : start + at_once], device=DEVICE)
            with torch.inference_mode():
                made = self.model.generate(
                    batch,
                    attention_mask=torch.ones_like(batch),
                    do_sample=False,
                    max_new_tokens=self.new,
                    pad_token_id=0,
                )
            answers += made[:, batch.shape[1] :].tolist()
        self.model.set_attn_implementation(ATTENTION)
        return answers

    def continuous(self, prompts: list[Prompt], at_once: int) -> list[Prompt]:
        """Over a copy of the weights, since it has an attention of its own."""
        if self._manager is None:
            self._manager = self._started()
        manager = self._manager
        answers: dict[str, Prompt] = {}
        waiting = list(enumerate(prompts))[::-1]
        numbers: dict[str, int] = {}
        while len(answers) < len(prompts):
            while waiting and len(numbers) - len(answers) < at_once:
                number, prompt = waiting.pop()
                numbers[manager.add_request(prompt, max_new_tokens=self.new)] = number
            result = manager.get_result(timeout=60)
            if result is None or result.error:
                raise RuntimeError(f"continuous batching: {result and result.error}")
            answers[result.request_id] = result.generated_tokens
        return [answers[name] for name in sorted(numbers, key=lambda name: numbers[name])]

    def _started(self) -> Any:
        model = LlamaForCausalLM.from_pretrained(self._folder, dtype=torch.bfloat16)
        model = model.eval().to(DEVICE)
        config = GenerationConfig(
            do_sample=False, max_new_tokens=self.new, eos_token_id=-1, pad_token_id=0
        )
        manager = model.init_continuous_batching(
            config, ContinuousBatchingConfig(max_memory_percent=0.4)
        )
        manager.start()
        return manager

    def close(self) -> None:
        self.engine.close()
        if self._manager is not None:
            self._manager.stop(block=True)
        self._manager = None
        del self.engine, self.model
        gc.collect()
        if DEVICE == "cuda":
            torch.cuda.empty_cache()


def timed(
    way: Callable[[list[Prompt], int], list[Prompt]], begun: list[Prompt], at_once: int, turns: int
) -> float:
    """Tokens a second over whole conversations."""
    conversations = [list(prompt) for prompt in begun]
    tokens = 0
    began = time.perf_counter()
    for turn in range(turns):
        answers = way(conversations, at_once)
        tokens += sum(map(len, answers))
        for conversation, answer in zip(conversations, answers, strict=True):
            conversation += [*answer, *[7 + turn] * REFINEMENT]
    return tokens / (time.perf_counter() - began)


def compare_answers(folder: Path, vocabulary: int) -> float:
    """The share of answers in fp32 that are what `generate` says to the prompt alone."""
    rng = random.Random(3)
    ways = Ways(folder, "float32", 24)
    prompts = [[rng.randrange(2, vocabulary) for _ in range(n)] for n in (3, 90, 17, 70, 33, 8, 51)]
    try:
        again = [*prompts, *([*prompt, 9, 8] for prompt in prompts)]
        ours = ways.ours(prompts, len(prompts)) + ways.ours(again[len(prompts) :], len(prompts))
        alone = [ways.generate([prompt], 1)[0] for prompt in again]
    finally:
        ways.close()
    return sum(a == b for a, b in zip(ours, alone, strict=True)) / len(again)


def measure(
    size: Size, at_once_each: Sequence[int], rounds: int, new_tokens: int, folder: Path
) -> dict[str, Any]:
    rng = random.Random(1)
    ways = Ways(folder, "bfloat16", new_tokens)
    speeds: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    def prompts(count: int, length: int) -> list[Prompt]:
        vocabulary = size.config.vocab_size
        return [[rng.randrange(2, vocabulary) for _ in range(length)] for _ in range(count)]

    named: dict[str, Any] = {
        "engine": ways.ours,
        "generate": ways.generate,
        "continuous": ways.continuous,
    }
    try:
        for name, way in list(named.items()):
            try:
                way(prompts(2, 32), 2)
            except Exception as error:  # the library's own may not run on this machine
                if name == "engine":
                    raise
                print(f"{size.name} {name} does not run here: {error!r}"[:400], flush=True)
                del named[name]
        for at_once in at_once_each:
            for load, (length, turns) in LOADS.items():
                for _ in range(rounds):
                    for name, way in named.items():
                        begun = prompts(max(2, at_once), length)
                        speeds[f"{load} x{at_once}"][name].append(timed(way, begun, at_once, turns))
                found = speeds[f"{load} x{at_once}"]
                print(size.name, f"{load:5} x{at_once:<2}", row(found), flush=True)
    finally:
        ways.close()
    return {setting: figures(found) for setting, found in speeds.items()}


def figures(found: dict[str, list[float]]) -> dict[str, float]:
    result = {f"{name}_tokens_per_second": statistics.median(of) for name, of in found.items()}
    for name in found.keys() - {"engine"}:
        pairs = zip(found["engine"], found[name], strict=True)
        result[f"over_{name}"] = statistics.median(ours / theirs for ours, theirs in pairs)
    return {name: round(value, 3) for name, value in sorted(result.items())}


def row(found: dict[str, list[float]]) -> str:
    return "  ".join(f"{name} {value:9,.2f}" for name, value in figures(found).items())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="of each setting (3)")
    parser.add_argument("--only", metavar="SIZE", help="125M or 8B")
    parser.add_argument("--smoke", action="store_true", help="tiny networks, to try the script")
    arguments = parser.parse_args()
    if not (arguments.smoke or DEVICE == "cuda"):
        parser.error("there is no GPU here; --smoke tries the script on a CPU")
    result: dict[str, Any] = {}
    for size in sizes(arguments.smoke):
        if arguments.only not in (None, size.name):
            continue
        with tempfile.TemporaryDirectory() as folder:
            make(size, Path(folder))
            found: dict[str, Any] = {}
            if size.name != "8B":
                found["same_answers"] = compare_answers(Path(folder), size.config.vocab_size)
                print(f"{size.name} same answers as alone: {found['same_answers']:.0%}", flush=True)
            new_tokens, at_once = (8, (1, 4)) if arguments.smoke else (64, AT_ONCE)
            found |= measure(size, at_once, arguments.rounds, new_tokens, Path(folder))
            result[size.name] = found
    if arguments.json:
        name = torch.cuda.get_device_name(0) if DEVICE == "cuda" else "none"
        versions = {p: importlib.metadata.version(p) for p in ("torch", "transformers")}
        whole = {"figures": result, "gpu": name, "versions": versions}
        arguments.json.write_text(json.dumps(whole, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
