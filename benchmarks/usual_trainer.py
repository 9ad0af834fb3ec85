"""The plain HF Trainer, which `train_gpu.py` compares the platform's with."""

from __future__ import annotations

import gc
import tempfile
import time
from typing import Any

import torch
from gpu_case import (
    SEED,
    WARM_UP,
    Case,
    chat,
    conversations,
    device,
    figures,
    plan,
    reset,
    synchronize,
)
from transformers import DataCollatorForSeq2Seq, Trainer, TrainerCallback, TrainingArguments

from bayling.model import ModelConfig
from bayling.templates import Encoded
from bayling.train import adapters, network


def measure(case: Case, mode: str) -> dict[str, Any]:
    """The plain HF Trainer, on padded batches of about as many tokens.

    Its micro batch begins at as many tokens as the platform's, and is halved until it fits.
    """
    model, chosen = plan(case, mode)
    encoded = conversations(case, 64 if case.smoke else 2000)
    mean = sum(len(row.ids) for row in encoded) / len(encoded)
    wanted = case.global_batch * case.sequence_length / mean  # conversations in a step
    micro = max(1, round(wanted / chosen.micro_steps))
    while True:
        try:
            found = _hf(case, mode, model, encoded, micro, max(1, round(wanted / micro)))
            return {**found, "micro_batch": micro}
        except torch.OutOfMemoryError:
            if micro == 1:
                raise
        micro = (micro + 1) // 2
        gc.collect()
        torch.cuda.empty_cache()


def _hf(
    case: Case, mode: str, model: ModelConfig, encoded: list[Encoded], micro: int, micro_steps: int
) -> dict[str, Any]:
    train, tokens = case.train(mode), chat(model.vocab_size)
    tokens.tokenizer.pad_token = tokens.tokenizer.eos_token
    with torch.device(device()):
        # Trained weights in fp32, as the HF Trainer's mixed precision wants them.
        made = network.build(model, tokens.tokenizer, SEED, tokens.stop_ids)
    if mode == "lora":
        made.to(torch.bfloat16)
        adapters.insert(made, train.lora)
    rows = [
        {
            "input_ids": row.ids,
            "labels": [
                token if wanted else network.IGNORED
                for token, wanted in zip(row.ids, row.supervised, strict=True)
            ],
        }
        for row in encoded
    ]
    seconds: list[float] = []
    counted: list[int] = []
    seen = 0

    def count(module: Any, positional: Any, named: dict[str, Any]) -> None:
        nonlocal seen
        seen += int(named["attention_mask"].sum())

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            nonlocal seen
            seen = 0
            if len(seconds) == WARM_UP:
                reset()
            synchronize()
            self.began = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            synchronize()
            seconds.append(time.perf_counter() - self.began)
            counted.append(seen)

    made.register_forward_pre_hook(count, with_kwargs=True)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=micro_steps,
            max_steps=WARM_UP + case.steps,
            learning_rate=train.learning_rate,
            bf16=True,
            gradient_checkpointing=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=device().type == "cpu",
        )
        Trainer(
            made,
            args=arguments,
            train_dataset=rows,
            data_collator=DataCollatorForSeq2Seq(tokens.tokenizer),
            callbacks=[Clock()],
        ).train()
    return {
        **figures(case, model, mode, sum(counted[WARM_UP:]), seconds[WARM_UP:]),
        "attention": made.config._attn_implementation,
    }
