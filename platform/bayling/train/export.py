"""The export: a folder that transformers, vLLM and this platform load without further ado."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel

from bayling import __version__
from bayling.languages import name_of
from bayling.model import ModelConfig
from bayling.model_folder import Serving
from bayling.stage import write_json
from bayling.templates import ChatFormat, Message, TemplateError
from bayling.train import network

PROVENANCE = "provenance.json"


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


def write(
    folder: Path,
    model: PreTrainedModel,
    state: dict[str, torch.Tensor] | None,
    chat: ChatFormat,
    origin: Origin,
) -> None:
    """Write weights, tokenizer, generation config, card and provenance; complete or absent.

    Args:
        state: gathered weights; None takes the model's own.

    Raises:
        TemplateError: the tokenizer's chat template would give other ids than training used.
    """
    aside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    network.save_folder(model, state, aside)
    tokenizer = chat.tokenizer
    if chat.template is not None:
        tokenizer.chat_template = chat.template.chat_template()
    _check_chat_template(chat)
    tokenizer.save_pretrained(aside)
    GenerationConfig(
        do_sample=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=chat.stop_ids,
        pad_token_id=tokenizer.pad_token_id,
    ).save_pretrained(aside)
    Serving(
        template=chat.name,
        context_length=origin.model.context_length,
        languages=origin.languages,
        base_model=origin.model.base,
    ).write(aside)
    write_json(
        aside / PROVENANCE,
        {
            "code_version": __version__,
            "run_id": origin.run_id,
            "trained_steps": origin.trained_steps,
            "data_fingerprint": origin.data_fingerprint,
            "config": origin.config,
        },
    )
    (aside / "README.md").write_text(card(origin), "utf-8")
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
    base = origin.model.base or "none (trained from random weights)"
    licences = sorted(set(origin.licences.values()))
    languages = "\n".join(f"- {tag}" for tag in origin.languages)
    named = ", ".join(name_of(tag) for tag in origin.languages)
    sources = "\n".join(f"- {name}: {terms}" for name, terms in sorted(origin.licences.items()))
    return f"""---
language:
{languages}
pipeline_tag: translation
library_name: transformers
---

# BayLing ({origin.model.name})

A LLaMA that learned to translate, and to refine its translation turn by turn, from
interactive translation (BayLing, arXiv 2306.10968; BayLing 2, arXiv 2411.16300).

- **Base model**: {base}
- **Languages**: {named}
- **Chat template**: {origin.model.template.value}
- **Context**: {origin.model.context_length} tokens
- **Optimizer steps**: {origin.trained_steps}
- **Made by**: bayling-platform {__version__}, MLflow run `{origin.run_id}`

## Data and licences

The training texts come under: {", ".join(licences) or "unknown"}.

{sources}

`{PROVENANCE}` holds the configuration and the fingerprint of the data. The scores per
direction are on the model's page in MLflow.
"""
