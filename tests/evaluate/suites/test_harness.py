"""lm-evaluation-harness on the platform's engine: the same figures as on its own backend."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from running import free_port
from tiny_model import make_model
from tiny_tasks import make_tasks

from bayling import engines
from bayling.config import compose
from bayling.engines.options import EngineName, EngineOptions
from bayling.errors import StageFailed, UserError
from bayling.evaluate.suites.harness import Harness, scored_of
from bayling.model_folder import load_chat
from bayling.templates import Message


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No hub, which would be tried for half a minute, and a cache of its own."""
    import datasets
    import huggingface_hub.constants

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        patch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"), ends=True)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tasks(tmp_path_factory.mktemp("tasks"), questions=40)


def harness(tasks: Path, *names: str, **keys: Any) -> Harness:
    overrides = {"tasks": f"[{','.join(names)}]", "include_path": tasks, **keys}
    return Harness(
        compose([f"evaluate.harness.{key}={value}" for key, value in overrides.items()]).evaluate
    )


def on_its_own_backend(folder: Path, tasks: Path, *names: str) -> dict[str, Any]:
    import lm_eval
    from lm_eval.tasks import TaskManager

    told: dict[str, Any] = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(folder), "dtype": "float32"},
        tasks=list(names),
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        batch_size=8,
        device="cpu",
        bootstrap_iters=0,
    )
    return told


def test_figures_are_those_of_the_harness_own_backend(folder: Path, tasks: Path) -> None:
    names = ("choose", "write", "read")
    reported: list[tuple[int, int]] = []
    scored = harness(tasks, *names).run(
        str(folder), "cpu", 2, lambda done, of: reported.append((done, of))
    )
    own = on_its_own_backend(folder, tasks, *names)
    theirs = scored_of(own)
    results = own["results"]
    choose = scored.samples["choose"]
    assert choose["accuracy"].value == pytest.approx(results["choose"]["acc,none"])
    assert choose["acc_norm"].value == pytest.approx(results["choose"]["acc_norm,none"])
    assert 0 < choose["accuracy"].value < 1
    for group, figures in theirs.samples.items():
        for name, sample in figures.items():
            assert scored.samples[group][name].items.tolist() == sample.items.tolist()
    assert 0 < scored.samples["write"]["accuracy"].value < 1
    perplexity = scored.details["tasks"]["read"]["results"]["word_perplexity"]
    assert perplexity == pytest.approx(results["read"]["word_perplexity,none"], rel=1e-4)
    mean = (choose["accuracy"].value + scored.samples["write"]["accuracy"].value) / 2
    assert scored.samples["all"]["accuracy"].value == pytest.approx(mean)
    assert (160, 160) in reported
    json.dumps(scored.as_dict())


def test_a_conversation_has_the_ids_that_the_server_makes(folder: Path) -> None:
    from bayling.evaluate.harness_model import EngineLM

    chat = load_chat(folder, "bayling")
    options = EngineOptions(max_batch=4, context_length=64, threads=2)
    with closing(engines.load(EngineName.transformers, folder, options)) as engine:
        model = EngineLM(engine, chat, lambda done, of: None)
        turns = [Message("user", "Guten Morgen"), Message("assistant", "早"), Message("user", "?")]
        history = [{"role": turn.role, "content": turn.content} for turn in turns]
        assert model.tok_encode(model.apply_chat_template(history)) == chat.prompt_ids(turns)


def test_questions_as_turns_shots_and_a_limit(folder: Path, tasks: Path) -> None:
    suite = harness(tasks, "choose", shots=2, limit=5, apply_chat_template=True)
    scored = suite.run(str(folder), "cpu", 2, lambda done, of: None)
    assert len(scored.samples["choose"]["accuracy"]) == 5
    assert scored.groups["choose"]["shots"] == 2
    assert "2 shots" in suite.decoding
    assert "as a user's turn" in suite.decoding


def test_what_does_not_fit_is_cut_and_counted(folder: Path, tasks: Path, tmp_path: Path) -> None:
    short = make_model(tmp_path / "short", ends=True)
    serving = json.loads((short / "bayling.json").read_text("utf-8"))
    (short / "bayling.json").write_text(json.dumps({**serving, "context_length": 40}), "utf-8")
    scored = harness(tasks, "choose").run(str(short), "cpu", 2, lambda done, of: None)
    assert 0 < scored.details["truncated"] < 160


def test_scores_are_comparable_where_the_questions_are_the_same(tasks: Path) -> None:
    same = harness(tasks, "choose").digest
    assert harness(tasks, "choose").digest == same
    assert harness(tasks, "choose", shots=1).digest != same
    (tasks / "more.yaml").write_text((tasks / "choose.yaml").read_text("utf-8"), "utf-8")
    assert harness(tasks, "choose").digest != same
    (tasks / "more.yaml").unlink()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("chose", r"has no task 'chose'; near it are .*choose"),
        ("belebele_zho_Hans", r"the task 'belebele_zho_Hans' cannot be loaded .*HF_HOME"),
    ],
)
def test_a_task_that_cannot_be_had_is_one_sentence(
    name: str, said: str, folder: Path, tasks: Path
) -> None:
    with pytest.raises(UserError, match=said):
        harness(tasks, name).run(str(folder), "cpu", 2, lambda done, of: None)


def test_how_an_answer_is_made_is_not_ignored(folder: Path, tasks: Path, tmp_path: Path) -> None:
    task = (tasks / "write.yaml").read_text("utf-8").replace("do_sample: false", "num_beams: 4")
    (tmp_path / "beams.yaml").write_text(task.replace("task: write", "task: beams"), "utf-8")
    with pytest.raises(UserError, match=r"the task 'beams' asks for num_beams"):
        harness(tmp_path, "beams").run(str(folder), "cpu", 2, lambda done, of: None)


def test_an_endpoint_needs_a_tokenizer_and_has_to_answer(folder: Path, tasks: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(UserError, match=r"evaluate.harness.tokenizer must name the folder"):
        harness(tasks, "choose").run(url, "cpu", 2, lambda done, of: None)
    with pytest.raises(UserError, match=rf"{url}/v1/models does not say that it serves a model"):
        suite = harness(tasks, "choose", tokenizer=folder)
        suite.run(url, "cpu", 2, lambda done, of: None)


def test_paths_are_those_of_whoever_gives_the_command(
    tasks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tasks)
    overrides = ["evaluate.harness.include_path=.", "evaluate.harness.tasks=[read,choose.yaml]"]
    own = compose(overrides).evaluate.harness
    assert own.include_path == str(tasks)
    assert own.tasks == ["read", str(tasks / "choose.yaml")]
    assert str(tasks / "questions.jsonl") in own.own_files


def test_a_server_that_is_too_busy_for_long_is_named(
    folder: Path, tasks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bayling.evaluate.suites import harness as suites

    monkeypatch.setattr(suites, "_TRIES", 2)
    monkeypatch.setenv("OPENAI_API_KEY", "of another server")
    with busy_server() as (url, keys):
        suite = harness(tasks, "choose", tokenizer=folder)
        with pytest.raises(StageFailed, match=r"gave no answer in 2 tries .*429.*concurrency"):
            suite.run(url, "cpu", 2, lambda done, of: None)
    assert keys == {None}


@contextmanager
def busy_server() -> Iterator[tuple[str, set[str | None]]]:
    """A server that says which model it has, and 429 to everything else; and the keys that came."""
    keys: set[str | None] = set()

    class Busy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(200, {"data": [{"id": "busy"}]})

        def do_POST(self) -> None:
            self._answer(429, {"error": {"message": "too busy"}})

        def _answer(self, status: int, said: dict[str, Any]) -> None:
            keys.add(self.headers.get("Authorization"))
            body = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Busy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", keys
    finally:
        server.shutdown()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["evaluate.harness.tasks=[]"], r"has no task: name some"),
        (["evaluate.harness.tasks=[a]", "evaluate.harness.shots=-1"], r"shots must be 0 or more"),
        (["evaluate.harness.tasks=[a]", "evaluate.harness.limit=0"], r"limit must be at least 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Harness(compose(overrides).evaluate)
