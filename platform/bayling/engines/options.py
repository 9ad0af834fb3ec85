"""How an engine is to run a model: the same for all of them; what one cannot do it refuses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class EngineName(Enum):
    """`auto`: vLLM where it is installed for the device, transformers otherwise."""

    auto = "auto"
    transformers = "transformers"
    vllm = "vllm"


@dataclass(frozen=True)
class EngineOptions:
    """What `bayling.engines.load` is told."""

    device: str = "cpu"
    dtype: str = "auto"
    """float32, bfloat16, float16, or `auto` for what the weights are stored in, which is float32
    for bfloat16 on a CPU without instructions for it."""
    max_batch: int = 32
    """How many requests it answers side by side; more than that wait."""
    context_length: int | None = None
    """Prompt and answer together; the model's own limit without one."""
    threads: int | None = None
    """CPU threads of one operation; torch's choice without one."""
    kv_cache_gib: float | None = None
    """What keys and values may take of each device's memory; a share of what is free without
    one."""
    tensor_parallel: int = 1
    """Over how many devices each matrix is split."""
    quantization: str | None = None
    """The method that the weights are quantised with, where their `config.json` does not say."""
    adapters: Mapping[str, str] = field(default_factory=dict)
    """Name → the folder of a LoRA adapter that requests may ask for."""
