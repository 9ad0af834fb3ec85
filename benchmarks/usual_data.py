"""Pairs to packed tokens in the usual way; `data.py` runs this beside the platform's data stage.

python benchmarks/usual_data.py ENGLISH GERMAN TOKENIZER LENGTH PROCESSES OUT
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

from datasets import Dataset, disable_progress_bars
from transformers import AutoTokenizer
from trl import pack_dataset

from bayling.data.cleaning.config import CleaningConfig
from bayling.data.cleaning.steps import CLEANERS, Batch, clean
from bayling.data.cleaning.text import normalise
from bayling.data.cleaning.words import words
from bayling.data.instructions.forms import PromptShares, ask, prompt_language

SHARES = PromptShares(0.55, 0.25, 0.1, 0.1)


def normalised(row: dict[str, str]) -> dict[str, str]:
    source, target = normalise(row["source"]), normalise(row["target"])
    # What the stage compares pairs by: their words, without case and punctuation.
    return {
        "source": source,
        "target": target,
        "key": "\0".join((*words(source), "", *words(target))),
    }


def passes(source: str, target: str) -> bool:
    kept, _ = clean(Batch("en", "de", [source], [target]), CleaningConfig(), CLEANERS)
    return bool(kept)


def messages(row: dict[str, str]) -> dict[str, Any]:
    rng = random.Random(hashlib.blake2b(row["source"].encode(), digest_size=8).digest())
    sides = [("en", row["source"]), ("de", row["target"])]
    if rng.random() < 0.5:
        sides.reverse()
    (here, source), (there, target) = sides
    language = prompt_language(rng, SHARES, here, there)
    return {
        "messages": [
            {"role": "user", "content": ask(rng, source, here, there, language)},
            {"role": "assistant", "content": target},
        ]
    }


def main() -> None:
    english, german, tokenizer_folder, length, processes, out = sys.argv[1:]
    disable_progress_bars()
    steps: dict[str, float] = {}
    clock = time.monotonic()

    def lap(name: str) -> None:
        nonlocal clock
        steps[name], clock = time.monotonic() - clock, time.monotonic()

    number = int(processes)
    data = Dataset.from_dict(
        {
            "source": Path(english).read_text("utf-8").splitlines(),
            "target": Path(german).read_text("utf-8").splitlines(),
        }
    )
    lap("read")
    data = data.map(normalised, num_proc=number)
    data = data.filter(passes, input_columns=["source", "target"], num_proc=number)
    lap("clean")
    seen: set[str] = set()

    def new(key: str) -> bool:
        known = key in seen
        seen.add(key)
        return not known

    data = data.filter(new, input_columns=["key"])
    lap("drop repeats")
    data = data.map(messages, num_proc=number, remove_columns=["source", "target", "key"])
    lap("prompts")
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    masks = "{% generation %}" in (tokenizer.chat_template or "")

    def tokenised(row: dict[str, Any]) -> dict[str, Any]:
        made = tokenizer.apply_chat_template(
            row["messages"], return_dict=True, return_assistant_tokens_mask=masks
        )
        return {"input_ids": made["input_ids"]} | (
            {"assistant_masks": made["assistant_masks"]} if masks else {}
        )

    data = data.map(tokenised, num_proc=number, remove_columns=["messages"])
    lap("template and tokenizer")
    lengths = int(length)
    data = data.filter(
        lambda ids: len(ids) <= lengths, input_columns=["input_ids"], num_proc=number
    )
    packed = pack_dataset(data, lengths, strategy="bfd")
    tokens = sum(len(row) for row in packed.with_format("numpy")["input_ids"])
    lap("pack")

    texts = [
        tokenizer.decode(ids) for ids in data.select(range(min(20_000, len(data))))["input_ids"]
    ]
    started = time.monotonic()
    for text in texts:
        tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
    alone = (time.monotonic() - started) * len(data) / len(texts)
    report = {
        "tokens": tokens,
        "fill": tokens / (len(packed) * lengths),
        "conversations": len(data),
        "steps": steps,
        "tokenizer_s": alone,
    }
    Path(out).write_text(json.dumps(report), "utf-8")


if __name__ == "__main__":
    main()
