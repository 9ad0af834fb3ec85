"""What `train_gpu.py` trains, on what, and what it reports of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from bayling import accelerators
from bayling.errors import UserError
from bayling.model import ModelConfig
from bayling.scale import Device, ScaleConfig
from bayling.shape import Shape
from bayling.templates import TEMPLATES, ChatFormat, Encoded
from bayling.train import flops, layout
from bayling.train.config import LoraConfig, Offload, TrainConfig
from bayling.train.precision import settled

LLAMA_3_8B = ModelConfig(
    name="llama-3-8b-shaped",
    context_length=8192,
    vocab_size=128256,
    hidden_size=4096,
    intermediate_size=14336,
    layers=32,
    heads=32,
    kv_heads=8,
    tie_embeddings=False,
    rope_theta=500000.0,
)
TINY = replace(
    LLAMA_3_8B,
    vocab_size=1024,
    hidden_size=64,
    intermediate_size=160,
    layers=2,
    heads=4,
    kv_heads=2,
)
SEED = 1
WARM_UP = 3
"""Steps before the clock runs."""


@dataclass(frozen=True)
class Case:
    """What is trained, and how long."""

    smoke: bool
    layers: int | None
    steps: int

    @property
    def sequence_length(self) -> int:
        return 128 if self.smoke else 2048

    @property
    def global_batch(self) -> int:
        return 4 if self.smoke else 16

    @property
    def model(self) -> ModelConfig:
        sizes = TINY if self.smoke else LLAMA_3_8B
        return replace(sizes, layers=self.layers or sizes.layers)

    def train(self, mode: str) -> TrainConfig:
        train = TrainConfig(
            global_batch=self.global_batch,
            learning_rate=1e-5,
            lora=LoraConfig(rank=16 if mode == "lora" else 0),
            zero_stage=2,
            offload_optimizer=Offload.none,
            offload_parameters=Offload.none,
            gradient_checkpointing=True,
        )
        return settled(train, scale())


def device() -> torch.device:
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def scale() -> ScaleConfig:
    """One device, of the kind that is here."""
    if not torch.cuda.is_available():
        return ScaleConfig(workers=1)
    gpu = accelerators.of_device(torch.cuda.get_device_name(0))
    if gpu is None:
        raise SystemExit(f"{torch.cuda.get_device_name(0)} is not in bayling.accelerators")
    name = next(name for name, known in accelerators.GPUS.items() if known is gpu)
    return ScaleConfig(device=Device.cuda, workers=1, gpu=name, gpus_per_node=1)


def plan(case: Case, mode: str) -> tuple[ModelConfig, layout.Layout]:
    """The model with as many layers as fit, and the layout that training takes."""
    model, train = case.model, case.train(mode)
    while True:
        shape = Shape.of(model)
        try:
            return model, layout.choose(train, shape, scale(), case.sequence_length, 1)
        except UserError:
            if case.layers is not None or model.layers == 1:
                raise
            model = replace(model, layers=model.layers - 1)


def chat(vocabulary: int) -> ChatFormat:
    """A tokenizer of as many tokens as the model has rows; nothing is tokenised with it."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    template = TEMPLATES["bayling"]
    names = list(dict.fromkeys([*template.control_tokens, template.end_token]))
    names += [f"<{number}>" for number in range(vocabulary - len(names))]
    words = Tokenizer(models.WordLevel({name: n for n, name in enumerate(names)}, names[-1]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token=template.end_token)
    return ChatFormat(tokenizer, template)


def conversations(case: Case, count: int) -> list[Encoded]:
    """Random tokens. Lengths are log-normal with a median of 350 tokens, cut at the sequence's
    length, as instruction data's are; the answers are half of them."""
    generator = np.random.default_rng(SEED)
    median = 350 * case.sequence_length / 2048
    lengths = np.exp(generator.normal(np.log(median), 0.8, count))
    made = []
    for length in lengths.clip(8, case.sequence_length).astype(int).tolist():
        ids = generator.integers(8, case.model.vocab_size, length).tolist()
        made.append(Encoded(ids, [place >= length // 2 for place in range(length)]))
    return made


def figures(
    case: Case, model: ModelConfig, mode: str, tokens: int, seconds: list[float]
) -> dict[str, Any]:
    shape = Shape.of(model)
    frozen = shape.parameters if mode == "lora" else 0
    each = flops.per_token(
        shape.parameters, shape.layers, shape.attention, case.sequence_length, frozen
    )
    speed = tokens / sum(seconds)
    peak = flops.peak(device(), torch.bfloat16)
    return {
        "layers": model.layers,
        "parameters": shape.parameters,
        "tokens_per_second": round(speed, 1),
        "step_s": round(float(np.median(seconds)), 4),
        "mfu": round(speed * each / peak, 4) if peak else None,
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2)
        if torch.cuda.is_available()
        else None,
    }


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def reset() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
