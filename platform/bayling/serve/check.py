"""The pipeline's serve stage: bring the champion up, ask it over HTTP, take it down again.

What it proves is the whole way: registry, replica, template, engine, HTTP.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bayling.registry import models, runs
from bayling.serve import run as serving
from bayling.serve.application import ServedModel
from bayling.serve.client import chat, translate
from bayling.serve.config import ServeConfig
from bayling.stage import Context, Manifest

_TURNS = 3
_ANSWER_TOKENS = 48
"""Enough for any of the sentences; a model that never stops must not fill the context."""


def run(config: ServeConfig, context: Context) -> Manifest:
    """Serve the version behind `config.alias`; two translations, one conversation of three turns.

    The sentences are held-out ones, chosen by place, whatever the model makes of them.

    Raises:
        UserError: there is no such alias, or the port is taken.
        StageFailed: the model could not be served.
    """
    data_folder, data = context.upstream("data")
    uri = context.tracked.tracking_uri
    version = models.require_alias(uri, context.registered_model, config.alias)
    served = ServedModel(uri, version.name, {})
    asked = _sentences(data_folder / data.outputs["heldout_translate"])
    turns, references = _conversation(data_folder / data.outputs["heldout_interactive"])
    steps = 1 + len(asked) + len(turns)

    context.report("starting the server", 0, steps)
    url = serving.deploy(config, served, {version.version: 1.0}, context.scale)
    try:
        translations: list[dict[str, Any]] = []
        for row in asked:
            context.report("asking", 1 + len(translations), steps)
            answer = translate(url, row["source"], row["target_lang"], row["source_lang"])
            translations.append({**row, "output": answer.text})
            assert answer.model_version == version.version, "another version answered"
        history: list[dict[str, str]] = []
        for turn in turns:
            context.report("conversing", 1 + len(asked) + len(history) // 2, steps)
            history.append({"role": "user", "content": turn})
            answer = chat(url, version.name, history, max_tokens=_ANSWER_TOKENS)
            history.append({"role": "assistant", "content": answer.text})
    finally:
        if context.take_down:
            serving.shutdown()
    manifest = context.manifest("serve", config)
    manifest.results = {
        "model": version.name,
        "version": version.version,
        "translations": translations,
        "conversation": history,
        "conversation_references": references,
    }
    mlflow = runs.client(uri)
    mlflow.log_dict(context.tracked.run_id, manifest.results, "answers.json")
    return manifest


def _sentences(path: Path) -> list[dict[str, Any]]:
    """One sentence out of a pivot language and one into it, in trained directions."""
    keys = ("source_lang", "target_lang", "source", "target")
    rows = [row for row in _lines(path) if not row["zero_shot"]]
    last = rows[-1]  # the last direction, of the last language
    first = next((row for row in rows if row["source_lang"] != last["source_lang"]), last)
    return [{key: row[key] for key in keys} for row in (first, last)]


def _conversation(path: Path) -> tuple[list[str], list[str]]:
    """The user's turns and the right answers of the first conversation that has three of them; of
    the longest otherwise.

    One whose refinements ask for different things comes before one that asks the same twice:
    they do where their sentences begin differently.
    """
    rows = [(_of("user", row), _of("assistant", row)) for row in _lines(path)]
    fitting = [row for row in rows if len(row[0]) == _TURNS]
    if fitting:
        return max(fitting, key=lambda row: len({turn[:2] for turn in row[0][1:]}))
    turns, answers = max(rows, key=lambda row: len(row[0]), default=([], []))
    return turns[:_TURNS], answers[:_TURNS]


def _of(role: str, row: dict[str, Any]) -> list[str]:
    return [message["content"] for message in row["messages"] if message["role"] == role]


def _lines(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]
