"""Any task of lm-evaluation-harness: Belebele, XNLI, mARC, mHellaSwag, or one of your own.

The harness makes its own prompts and judges the answers; the model runs on the engine that serves.
"""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bayling.errors import StageFailed, UserError
from bayling.evaluate.config import EvaluateConfig
from bayling.evaluate.samples import Sample, averaged, faults, share
from bayling.evaluate.suite import ALL, Scored
from bayling.stage import fingerprint
from bayling.storage import one_line

if TYPE_CHECKING:
    from lm_eval.api.model import LM
    from lm_eval.tasks import TaskManager

_MAIN = ("acc", "exact_match", "acc_norm")
"""Which of a task's metrics is its accuracy: the first that it has."""
_TRIES = 8
"""Of a request to a server; the harness waits up to ten seconds between two."""


class Harness:
    """The tasks of `evaluate.harness`."""

    name = "harness"

    def __init__(self, config: EvaluateConfig) -> None:
        """
        Raises:
            UserError: no task is named, or lm-eval is not installed.
        """
        if not config.harness.tasks:
            raise UserError(
                "the suite 'harness' has no task: name some, such as "
                "evaluate.harness.tasks=[belebele_zho_Hans], or leave it out of evaluate.suites"
            )
        try:
            from lm_eval import __version__
        except ModuleNotFoundError:
            raise UserError(
                "the suite 'harness' needs lm-evaluation-harness: "
                "pip install 'bayling-platform[harness]'"
            ) from None
        self._config = config
        self._version = __version__

    @property
    def decoding(self) -> str:
        """How the model is asked, for a person."""
        own = self._config.harness
        shots = "shots as each task says" if own.shots is None else f"{own.shots} shots"
        asked = "as a user's turn" if own.apply_chat_template else "as plain text"
        return f"lm-eval {self._version}, {shots}, {asked}"

    @property
    def digest(self) -> str:
        """Names the tasks and how they are asked; files of one's own by what they hold."""
        own = self._config.harness
        content = [(Path(file).name, Path(file).read_bytes().hex()) for file in own.own_files]
        tasks = [Path(task).name for task in own.tasks]
        how = (own.shots, own.limit, own.apply_chat_template)
        return fingerprint(self._version, tasks, *how, content)

    def run(
        self, system: str, device: str, threads: int, report: Callable[[int, int], None]
    ) -> Scored:
        """Ask one system all tasks.

        Args:
            system: a model folder, or the address of an OpenAI-compatible endpoint.
            device: `cpu` or `cuda`, of a model in a folder.
            threads: CPU threads of one operation.
            report: called with the number of requests answered, and that of all.

        Raises:
            UserError: a task is unknown, its data cannot be had, or the system cannot be asked so.
            StageFailed: a server stopped answering.
        """
        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        manager = self._manager()
        tasks = self._loaded(manager)
        if system.startswith(("http://", "https://")):
            return self._over_http(system, tasks, manager)
        from bayling import engines
        from bayling.engines.options import EngineOptions
        from bayling.evaluate.harness_model import EngineLM
        from bayling.model_folder import Serving, load_chat

        serving = Serving.read(Path(system))
        chat = load_chat(system, serving.template)
        options = EngineOptions(
            device=device,
            max_batch=self._config.max_batch,
            context_length=serving.context_length,
            threads=threads,
        )
        engine = engines.load(self._config.engine, system, options)
        try:
            model = EngineLM(engine, chat, report)
            scored = self._evaluate(model, tasks, manager)
        finally:
            engine.close()
        if model.truncated:
            scored.details["truncated"] = model.truncated
        return scored

    def _loaded(self, manager: TaskManager) -> list[Any]:
        """The tasks, with their data."""
        loaded: dict[str, Any] = {}
        for name in self._config.harness.tasks:
            try:
                loaded |= manager.load([name])["tasks"]
            except Exception as error:
                # Each way to keep data has errors of its own, and tasks are anybody's code.
                raise UserError(
                    f"the task {name!r} cannot be loaded ({_one_line(error)}): its data comes from "
                    "the Hugging Face hub, unless it names files; where there is no way to the "
                    "hub, fetch it elsewhere and bring its folder, HF_HOME, along"
                ) from None
        return list(loaded.values())

    def _manager(self) -> TaskManager:
        """What finds tasks by their names; all that are asked for are there."""
        from lm_eval.tasks import TaskManager

        own = self._config.harness
        if own.include_path and not Path(own.include_path).is_dir():
            raise UserError(f"evaluate.harness.include_path={own.include_path} is no folder")
        if own.include_path:
            # The harness's own tasks are thousands of files: not looked through unless needed.
            manager = TaskManager(include_path=own.include_path, include_defaults=False)
            if not _unknown(own.tasks, manager):
                return manager
        manager = TaskManager(include_path=own.include_path)
        for name in _unknown(own.tasks, manager):
            near = difflib.get_close_matches(name, manager.all_tasks, n=3)
            hint = f"; near it are {', '.join(near)}" if near else ""
            raise UserError(
                f"evaluate.harness.tasks: lm-eval {self._version} has no task {name!r}{hint}. "
                "`lm-eval ls tasks` lists them; a folder of your own goes into "
                "evaluate.harness.include_path"
            )
        return manager

    def _over_http(self, url: str, tasks: Sequence[Any], manager: TaskManager) -> Scored:
        from aiohttp import ClientError

        # The harness logs every answer that it asks for again, and when it gives up, asyncio logs
        # each request that was under way.
        for name in ("lm_eval.models.api_models", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            return self._evaluate(self._endpoint(url), tasks, manager)
        except (ClientError, OSError) as error:
            raise StageFailed(
                f"{url} gave no answer in {_TRIES} tries (the last: {_one_line(error)}): if it has "
                "too much to do, lower evaluate.endpoint_concurrency"
            ) from None

    def _endpoint(self, url: str) -> LM:
        """The harness's own model for OpenAI-compatible servers."""
        import httpx
        from lm_eval.api.registry import get_model

        own = self._config.harness
        if own.tokenizer is None:
            raise UserError(
                "evaluate.harness.tokenizer must name the folder of the tokenizer of the model at "
                f"{url}: the harness has to know where a question ends and a choice begins"
            )
        base, _, named = url.partition("#")
        base = base.rstrip("/").removesuffix("/v1") + "/v1"
        key = os.environ.get(self._config.endpoint_key_variable)
        # With no header of ours the harness would send OPENAI_API_KEY, to whatever address.
        header = {"Accept": "application/json"}
        header |= {"Authorization": f"Bearer {key}"} if key else {}
        try:
            answered = httpx.get(f"{base}/models", headers=header, timeout=30)
            answered.raise_for_status()
            served = {str(one["id"]): one for one in answered.json()["data"]}
            model = served[named or next(iter(served))]
        except (httpx.HTTPError, ValueError, LookupError, TypeError, StopIteration) as error:
            raise UserError(
                f"{base}/models does not say that it serves {named or 'a model'} "
                f"({_one_line(error)}): check the address, and the key in "
                f"{self._config.endpoint_key_variable} if it asks for one"
            ) from None
        kind = get_model("local-completions")
        return kind(
            base_url=f"{base}/completions",
            model=model["id"],
            header=header,
            tokenizer=own.tokenizer,
            tokenizer_backend="huggingface",
            max_length=model.get("max_model_len") or model.get("context_length") or 2048,
            num_concurrent=self._config.endpoint_concurrency,
            max_retries=_TRIES,
        )

    def _evaluate(self, model: LM, tasks: Sequence[Any], manager: TaskManager) -> Scored:
        import lm_eval

        own = self._config.harness
        try:
            told = lm_eval.simple_evaluate(
                model=model,
                tasks=list(tasks),
                task_manager=manager,
                num_fewshot=own.shots,
                limit=own.limit,
                apply_chat_template=own.apply_chat_template,
                bootstrap_iters=0,  # intervals are made as those of all other suites
            )
        except ValueError as error:
            raise UserError(f"lm-eval refuses: {_one_line(error)}") from None
        assert told is not None  # None is for all processes but the first
        return scored_of(told)


def _unknown(names: Sequence[str], manager: TaskManager) -> list[str]:
    return [name for name in names if name not in manager.all_tasks and not Path(name).is_file()]


def scored_of(told: Mapping[str, Any]) -> Scored:
    """The harness's results as figures: a group for each task, and the mean of their accuracies.

    A metric that is made of the questions one by one becomes a figure with an interval: `accuracy`
    for the task's main one, and the others under the harness's names. Those of the whole corpus
    (BLEU, perplexity) are in the details only.
    """
    scored = Scored()
    details: dict[str, Any] = {}
    for task, samples in sorted(told["samples"].items()):
        higher = told["higher_is_better"].get(task, {})
        figures: dict[str, Sample] = {}
        for metric, key, values in _by_metric(samples):
            make = share if higher.get(metric, True) else faults
            figures[key] = make(values)
        main = next((key for name in _MAIN for key in figures if key.split(",")[0] == name), None)
        if main is not None:
            figures = {"accuracy": figures.pop(main), **figures}
        scored.samples[task] = figures
        scored.groups[task] = {"kind": "task", "shots": told["n-shot"].get(task)}
        details[task] = {
            "accuracy": main,
            "version": told["versions"].get(task),
            "results": {
                key.removesuffix(",none"): value
                for key, value in told["results"][task].items()
                if isinstance(value, int | float) and "_stderr" not in key
            },
        }
    scored.details = {"tasks": details}
    accuracies = [
        figures["accuracy"] for figures in scored.samples.values() if "accuracy" in figures
    ]
    if accuracies:
        scored.samples = {ALL: {"accuracy": averaged(accuracies)}, **scored.samples}
        scored.groups[ALL] = {"kind": "overall", "tasks": len(accuracies)}
    return scored


def _by_metric(samples: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, list[float]]]:
    """Metric, its name with the filter that it is of, and its values from 0 to 1 by question."""
    values: dict[tuple[str, str], dict[int, Any]] = {}
    for sample in samples:
        for metric in sample["metrics"]:
            values.setdefault((metric, sample["filter"]), {})[sample["doc_id"]] = sample[metric]
    found = []
    for (metric, filtered), by_question in values.items():
        told = [by_question[one] for one in sorted(by_question)]
        if not all(isinstance(one, int | float | np.number | np.bool_) for one in told):
            continue
        ordered = [float(one) for one in told]
        if all(0 <= one <= 1 for one in ordered):
            key = metric if filtered == "none" else f"{metric},{filtered}"
            found.append((metric, key, ordered))
    return found


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {one_line(error)}"
