"""The table of stages: what decides a stage's output, what it reads, how it is run.

A stage's own module is imported when it runs: composing a configuration needs none of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bayling.config import Config
from bayling.stage import Context, Manifest


@dataclass(frozen=True)
class Stage:
    """One stage: what decides its output, what it reads, how it is run."""

    name: str
    inputs: Callable[[Config], tuple[str, ...]]
    """The stages whose output it reads."""
    decides: Callable[[Config], list[Any]]
    """The parts of the configuration that decide its output."""
    run: Callable[[Config, Context], Manifest]
    on_ray: bool = True
    """Whether it needs Ray to be there."""


def _data(config: Config, context: Context) -> Manifest:
    from bayling.data.run import run

    return run(config.data, config.model, context)


def _data_decides(config: Config) -> list[Any]:
    import babel

    model = config.model
    tokenizer = [model.base, model.revision, model.template, model.vocab_size, model.context_length]
    parts = [config.data, tokenizer, babel.__version__]
    if config.data.sources:
        from bayling.data.inputs import states

        parts.append(states(config.data))
    return parts


def _train(config: Config, context: Context) -> Manifest:
    from bayling.train.run import run

    return run(config.train, config.model, context)


def _evaluate(config: Config, context: Context) -> Manifest:
    from bayling.evaluate.run import run

    return run(config.evaluate, context)


def _promote(config: Config, context: Context) -> Manifest:
    from bayling.promote.run import run

    return run(config.promote, context)


def _serve(config: Config, context: Context) -> Manifest:
    from bayling.serve.check import run

    return run(config.serve, context)


def _evaluate_inputs(config: Config) -> tuple[str, ...]:
    """Nothing that was trained here, where another model is named; no data, where all questions
    are in files."""
    chosen = config.evaluate
    data = ("data",) if chosen.asks_of_data else ()
    return data if chosen.model is not None else ("data", "train")


def _evaluate_decides(config: Config) -> list[Any]:
    chosen = config.evaluate
    parts: list[Any] = [chosen.decides()]
    if chosen.model is not None or chosen.against is not None:
        from bayling.evaluate.systems import states

        named = [chosen.model, chosen.against]
        parts.append(states(named, config.tracking, chosen.endpoint_key_variable))
    if chosen.all_files:
        from bayling.evaluate.files import states as states_of_files

        parts.append(states_of_files(chosen.all_files))
    return parts


def _reads(*names: str) -> Callable[[Config], tuple[str, ...]]:
    return lambda config: names


STAGES = {
    stage.name: stage
    for stage in (
        Stage("data", _reads(), _data_decides, _data),
        Stage("train", _reads("data"), lambda c: [c.train.decides(), c.model], _train),
        Stage("evaluate", _evaluate_inputs, _evaluate_decides, _evaluate),
        Stage(
            "promote",
            _reads("train", "evaluate"),
            lambda c: [c.promote, c.registered_model],
            _promote,
            on_ray=False,
        ),
        Stage("serve", _reads("data", "promote"), lambda c: [c.serve, c.scale.device], _serve),
    )
}
