"""The engine of a replica, in a process of its own."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from bayling import engines
from bayling.engines.intake import Intake
from bayling.engines.options import EngineName, EngineOptions
from bayling.engines.process import EngineProcess
from bayling.engines.protocol import Engine
from bayling.serve import logs


def load(name: EngineName, folder: Path, options: EngineOptions, replica: str) -> Engine:
    """A running engine that leaves this process's interpreter to Ray Serve.

    Args:
        replica: for its lines in the log.

    Raises:
        UserError, StageFailed: as `bayling.engines.load`.
    """
    if engines.chosen(name, options.device) is EngineName.vllm:
        return engines.load(name, folder, options)  # vLLM starts processes itself
    return EngineProcess(partial(load_here, folder, options, replica))


def load_here(folder: Path, options: EngineOptions, replica: str) -> Intake:
    """The engine over transformers, in this process."""
    logs.install("Engine", replica)
    from bayling.engines.transformers import TransformersEngine

    return TransformersEngine(folder, options)
