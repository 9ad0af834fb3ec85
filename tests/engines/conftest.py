from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from tiny_model import DEVICE, make_model
from transformers import LlamaForCausalLM

from bayling import engines
from bayling.engines.options import EngineName, EngineOptions
from bayling.engines.process import EngineProcess
from bayling.engines.protocol import Engine
from bayling.engines.transformers import TransformersEngine

collect_ignore = [] if find_spec("vllm") else ["test_vllm.py"]
ENGINES = ["transformers", "transformers-apart", *(["vllm"] if find_spec("vllm") else [])]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session", params=ENGINES)
def engine(request: pytest.FixtureRequest, model_folder: Path) -> Iterator[Engine]:
    """Answers four requests at a time."""
    options = EngineOptions(device=DEVICE, dtype="float32", max_batch=4, threads=1)
    engine: Engine
    if request.param == "transformers-apart":
        engine = EngineProcess(partial(TransformersEngine, model_folder, options))
    else:
        engine = engines.load(EngineName(request.param), model_folder, options)
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def prompts() -> list[list[int]]:
    """Of very different lengths, so that every batch is ragged."""
    rng = random.Random(5)
    return [[rng.randrange(2, 450) for _ in range(n)] for n in (3, 90, 17, 1, 70, 33, 8, 51, 25, 2)]


@pytest.fixture(scope="session")
def alone(model_folder: Path) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(model_folder, dtype=torch.float32).eval()
