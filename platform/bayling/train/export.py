"""The export: a folder that transformers, vLLM and this platform load without further ado.

It is made from a checkpoint, a tensor at a time, so that it needs neither the workers nor the
memory of the whole model, and can be made of any checkpoint.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import GenerationConfig, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from bayling import __version__
from bayling.languages import name_of
from bayling.model import ModelConfig
from bayling.model_folder import CARD, Serving
from bayling.stage import write_json
from bayling.templates import ChatFormat, Message, TemplateError
from bayling.train import adapters
from bayling.train.checkpoint import Checkpoint
from bayling.train.config import LoraConfig
from bayling.train.licences import TERMS
from bayling.weights.folder import Source as BaseSource
from bayling.weights.folder import licence_files
from bayling.weights.tensors import ShardWriter, Weights

PROVENANCE, ADAPTER, NOTICE = "provenance.json", "adapter", "NOTICE"


@dataclass(frozen=True)
class Origin:
    """Where a model comes from, for its card and its provenance."""

    model: ModelConfig
    languages: list[str]
    licences: dict[str, str]
    config: dict[str, Any]
    data_fingerprint: str
    run_id: str
    trained_steps: int
    dtype: str = "bfloat16"
    """Of the exported weights."""


class Source(Protocol):
    """Weights to export, one at a time."""

    config: dict[str, Any]
    """`config.json`."""

    def names(self) -> list[str]: ...
    def tensor(self, name: str) -> torch.Tensor: ...


class InMemory:
    """Weights that are in memory already: those of an untrained model."""

    def __init__(self, config: PreTrainedConfig, weights: dict[str, torch.Tensor]) -> None:
        self.config = json.loads(config.to_json_string(use_diff=True))
        self._weights = weights

    def names(self) -> list[str]:
        return list(self._weights)

    def tensor(self, name: str) -> torch.Tensor:
        return self._weights[name]


class Trained:
    """The weights of a checkpoint; what was frozen comes from the base, adapters are merged in."""

    def __init__(self, checkpoint: Checkpoint, start: Path, lora: LoraConfig) -> None:
        """`start` is the folder of the model that training started from."""
        self.config = json.loads((start / "config.json").read_text("utf-8"))
        self._checkpoint, self._lora = checkpoint, lora
        self._base = Weights(start) if lora.rank else None

    def names(self) -> list[str]:
        return list(self._checkpoint.progress.shapes if self._base is None else self._base)

    def tensor(self, name: str) -> torch.Tensor:
        if self._base is None:
            return self._checkpoint.weight(name)
        return adapters.merged(name, self._base[name], self._lora, self._checkpoint.weight)


def write(folder: Path, source: Source, chat: ChatFormat, origin: Origin) -> None:
    """Write weights, tokenizer, generation config, card and provenance; complete or absent.

    Raises:
        TemplateError: the tokenizer's chat template would give other ids than training used.
    """
    aside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    dtype = getattr(torch, origin.dtype)
    writer = ShardWriter(aside)
    for name in source.names():
        writer.add(name, source.tensor(name).to(dtype))
    writer.finish()
    config = {**source.config, "dtype": origin.dtype}
    # vLLM and transformers' own server know a model by the name of its class.
    config.setdefault("architectures", [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[config["model_type"]]])
    write_json(aside / "config.json", config)
    tokenizer = chat.tokenizer
    if chat.template is not None:
        tokenizer.chat_template = chat.template.chat_template()
    _check_chat_template(chat)
    tokenizer.save_pretrained(aside)
    GenerationConfig(
        do_sample=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=list(chat.stop_ids),
        pad_token_id=tokenizer.pad_token_id,
    ).save_pretrained(aside)
    Serving(
        template=chat.name,
        context_length=origin.model.context_length,
        languages=origin.languages,
        base_model=origin.model.base,
    ).write(aside)
    _describe(aside, origin)
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)


def _describe(folder: Path, origin: Origin) -> None:
    """Card, provenance and what the licence of the base wants to be passed on."""
    base = Path(origin.model.base) if origin.model.base else None
    write_json(
        folder / PROVENANCE,
        {
            "code_version": __version__,
            "run_id": origin.run_id,
            "trained_steps": origin.trained_steps,
            "data_fingerprint": origin.data_fingerprint,
            "base_weights": BaseSource.read(base) if base else None,
            "config": origin.config,
        },
    )
    (folder / CARD).write_text(card(origin), "utf-8")
    for path in licence_files(base) if base else ():
        shutil.copyfile(path, folder / path.name)
    notice = TERMS[origin.model.licence].notice
    if notice and not any(path.name.upper().startswith(NOTICE) for path in folder.iterdir()):
        (folder / NOTICE).write_text(notice + "\n", "utf-8")


def write_adapter(folder: Path, checkpoint: Checkpoint, lora: LoraConfig, origin: Origin) -> None:
    """Write the adapters alone, beside a base that others have too; complete or absent."""
    aside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    base = (origin.model.source or "").removeprefix("hf://") or str(origin.model.base)
    names = list(checkpoint.progress.shapes)
    adapters.write(aside, names, checkpoint.weight, lora, base)
    _describe(aside, origin)
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)


def _check_chat_template(chat: ChatFormat) -> None:
    """Other servers make ids through the chat template: they must be those of training."""
    probe = [Message("user", "a"), Message("assistant", "b"), Message("user", "c")]
    rows = [{"role": message.role, "content": message.content} for message in probe]
    ids = chat.tokenizer.apply_chat_template(rows, add_generation_prompt=True, return_dict=False)
    if list(ids) != chat.prompt_ids(probe):
        raise TemplateError(
            f"template {chat.name!r} and the tokenizer's chat template give different tokens "
            "for the same conversation"
        )


def card(origin: Origin) -> str:
    """The model card, in the form that model hubs read."""
    model = origin.model
    base = model.source or model.base or "none (trained from random weights)"
    terms = TERMS[model.licence]
    licences = sorted(set(origin.licences.values()))
    languages = "\n".join(f"- {tag}" for tag in origin.languages)
    named = ", ".join(name_of(tag) for tag in origin.languages)
    sources = "\n".join(f"- {name}: {terms}" for name, terms in sorted(origin.licences.items()))
    of = f"base_model: {model.source.removeprefix('hf://')}\n" if model.source else ""
    return f"""---
license: {terms.hub_id}
{of}language:
{languages}
pipeline_tag: translation
library_name: transformers
---

# BayLing ({model.name})

A LLaMA that learned to translate, and to refine its translation turn by turn, from
interactive translation (BayLing, arXiv 2306.10968; BayLing 2, arXiv 2411.16300).

- **Base model**: {base}{f" at revision `{model.revision}`" if model.revision else ""}
- **Languages**: {named}
- **Chat template**: {model.template.value}
- **Context**: {model.context_length} tokens
- **Optimizer steps**: {origin.trained_steps}
- **Made by**: bayling-platform {__version__}, MLflow run `{origin.run_id}`

## Licence of the base weights

{terms.notes}

## Data and licences

The training texts come under: {", ".join(licences) or "unknown"}.

{sources}

`{PROVENANCE}` holds the configuration and the fingerprint of the data. The scores per
direction are on the model's page in MLflow.
"""
