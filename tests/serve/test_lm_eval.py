"""lm-eval scores a model over HTTP as it does in its own process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_model import make_model
from tiny_server import deployed
from tiny_tasks import make_tasks

from bayling.config import compose
from bayling.evaluate.suites.harness import Harness


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that ends many of its answers at once: lm-eval asks for one token after each text."""
    return make_model(tmp_path_factory.mktemp("model"), ends=True)


@pytest.fixture(scope="module")
def server(ray_cluster: None, folder: Path) -> Iterator[str]:
    with deployed(folder) as url:
        yield url


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A multiple-choice task of sixty questions, whose answers differ in length."""
    return make_tasks(tmp_path_factory.mktemp("task"))


@pytest.mark.parametrize("batch_size", [1, 16])
def test_lm_eval_finds_the_accuracy_of_its_own_backend_over_http(
    server: str, folder: Path, task: Path, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "HF_HOME", str(task / "home"))
    monkeypatch.setitem(os.environ, "OPENAI_API_KEY", "none")
    import lm_eval
    from lm_eval.tasks import TaskManager

    tasks = TaskManager(include_path=str(task), include_defaults=False)

    def evaluate(model: str, arguments: dict[str, Any]) -> tuple[dict[str, float], list[float]]:
        told = lm_eval.simple_evaluate(
            model=model,
            model_args=arguments,
            tasks=["choose"],
            task_manager=tasks,
            batch_size=batch_size,
            device="cpu",
            bootstrap_iters=0,
            verbosity="ERROR",
        )
        scores = told["results"]["choose"]
        samples = sorted(told["samples"]["choose"], key=lambda sample: sample["doc_id"])
        likelihoods = [float(one[0]) for sample in samples for one in sample["filtered_resps"]]
        return {key: scores[f"{key},none"] for key in ("acc", "acc_norm")}, likelihoods

    own, own_likelihoods = evaluate("hf", {"pretrained": str(folder), "dtype": "float32"})
    served, likelihoods = evaluate(
        "local-completions",
        {
            "base_url": f"{server}/v1/completions",
            "model": "bayling",
            "tokenizer": str(folder),
            "tokenizer_backend": "huggingface",
            "tokenized_requests": True,
            "num_concurrent": 1,
        },
    )
    assert served == own
    assert 0 < own["acc"] < 1
    assert likelihoods == pytest.approx(own_likelihoods, abs=1e-3)


def test_the_suite_finds_for_an_endpoint_what_it_finds_for_the_models_folder(
    server: str, folder: Path, task: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "HF_HOME", str(task / "home"))
    overrides = ["evaluate.harness.tasks=[choose]", f"evaluate.harness.include_path={task}"]
    overrides += [f"evaluate.harness.tokenizer={folder}", "evaluate.endpoint_concurrency=2"]
    harness = Harness(compose(overrides).evaluate)
    asked = harness.run(server, "cpu", 2, lambda done, of: None)
    own = harness.run(str(folder), "cpu", 2, lambda done, of: None)
    assert asked.against(own)["choose"]["accuracy"].difference == 0
    assert asked.samples["choose"]["accuracy"].items.tolist() == (
        own.samples["choose"]["accuracy"].items.tolist()
    )
