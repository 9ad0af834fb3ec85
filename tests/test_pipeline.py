"""Data becomes a model, the model a champion, the champion answers; and nothing runs twice."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from running import Finished, Recorder, free_port

from bayling.config import compose
from bayling.pipeline import Pipeline
from bayling.registry import models
from bayling.summary import write


def _runs(finished: Finished) -> list[Run]:
    client = MlflowClient(finished.config.tracking)
    experiment = client.get_experiment_by_name("bayling")
    return list(client.search_runs([experiment.experiment_id], max_results=500))


def _by_stage(finished: Finished) -> dict[str, Run]:
    return {run.data.tags["bayling.stage"]: run for run in _runs(finished)}


def test_every_stage_ran_and_left_a_manifest(smoke: Finished) -> None:
    assert smoke.recorder.ran == ["data", "train", "evaluate", "promote", "serve"]
    for stage, manifest in smoke.outputs.items():
        assert (smoke.folder(stage) / "manifest.json").exists()
        for path in manifest.outputs.values():
            assert (smoke.folder(stage) / path).exists(), f"{stage}: {path}"


def test_running_again_runs_no_stage_and_makes_no_run_in_mlflow(smoke: Finished) -> None:
    before = len(_runs(smoke))
    pipeline, recorder = smoke.pipeline()
    outputs = pipeline.run()
    assert recorder.ran == []
    assert recorder.kept == ["data", "train", "evaluate", "promote", "serve"]
    assert outputs == smoke.outputs
    assert len(_runs(smoke)) == before


@pytest.mark.parametrize(
    ("override", "first"),
    [
        ("data.conversations=601", "data"),
        ("train.learning_rate=0.001", "train"),
        ("evaluate.max_new_tokens=25", "evaluate"),
        ("evaluate.chat.judge.retries=9", None),
        ("promote.max_chrf_loss=99", "promote"),
        ("serve.max_batch=3", "serve"),
        ("scale.workers=1", None),
        ("train.on_bad_step=rollback", None),
        ("train.zero_stage=3", None),
    ],
)
def test_a_changed_key_concerns_its_stage_and_those_after_it(
    smoke: Finished, override: str, first: str | None
) -> None:
    pipeline, _ = smoke.pipeline(override)
    stages = ["data", "train", "evaluate", "promote", "serve"]
    changed = stages[stages.index(first) :] if first else []
    assert [stage for stage in stages if pipeline.output(stage) is None] == changed


def test_only_what_changed_runs_again(smoke: Finished) -> None:
    pipeline, recorder = smoke.pipeline("promote.max_chrf_loss=98", f"serve.port={free_port()}")
    pipeline.run()
    assert recorder.kept == ["data", "train", "evaluate"]
    assert recorder.ran == ["promote", "serve"]


def test_mlflow_has_one_finished_run_a_stage_below_one_pipeline_run(smoke: Finished) -> None:
    runs = _by_stage(smoke)
    assert {"pipeline", "data", "train", "evaluate", "promote", "serve"} <= set(runs)
    assert {run.info.status for run in _runs(smoke)} == {"FINISHED"}
    parents = {
        run.info.run_id for run in _runs(smoke) if run.data.tags["bayling.stage"] == "pipeline"
    }
    for stage in ("data", "train", "evaluate", "promote", "serve"):
        assert runs[stage].data.tags["mlflow.parentRunId"] in parents


def test_the_training_run_has_curves_the_config_and_its_data(smoke: Finished) -> None:
    run = _by_stage(smoke)["train"]
    client = MlflowClient(smoke.config.tracking)
    for key in ("loss", "learning_rate", "gradient_norm", "tokens_per_second", "mfu"):
        history = client.get_metric_history(run.info.run_id, f"train/{key}")
        assert [metric.step for metric in history] == [2, 4, 6, 8, 10, 12], key
        assert all(metric.value > 0 for metric in history), key
    left = client.get_metric_history(run.info.run_id, "time/left_s")
    assert [metric.value > 0 for metric in left] == [True] * 5 + [False]
    losses = [m.value for m in client.get_metric_history(run.info.run_id, "train/loss")]
    assert losses[-1] < losses[0]
    assert run.data.params["train.steps"] == "12"
    assert run.data.params["data.languages"] == "en, zh, de, sw"
    [dataset] = run.inputs.dataset_inputs
    assert dataset.dataset.digest == smoke.outputs["data"].results["packed_digest"]


def test_the_export_is_a_logged_model_with_its_scores(smoke: Finished) -> None:
    client = MlflowClient(smoke.config.tracking)
    model = client.get_logged_model(smoke.outputs["train"].results["model_id"])
    assert model.status == "READY"
    assert {"chrf", "exact_match", "interactive_satisfaction"} <= {
        metric.key for metric in model.metrics
    }
    assert model.source_run_id == smoke.outputs["train"].run_id


def test_the_models_card_has_its_scores(smoke: Finished) -> None:
    version = models.require_alias(smoke.config.tracking, "bayling", "champion")
    folder = models.fetch(smoke.config.tracking, "bayling", version.version)
    card = (folder / "README.md").read_text("utf-8")
    assert card.index("## Scores") < card.index("## Licence of the base weights")
    # The one in MLflow has those of the latest evaluation, and other tests evaluate it, too.
    card = (smoke.folder("evaluate") / "card" / "README.md").read_text("utf-8")
    chrf = smoke.outputs["evaluate"].results["chrf"]
    assert f"| this model | {chrf:.1f} (" in card


def test_scores_are_in_mlflow_as_a_table_and_a_heat_map(smoke: Finished) -> None:
    client = MlflowClient(smoke.config.tracking)
    run = _by_stage(smoke)["evaluate"]
    names = {item.path for item in client.list_artifacts(run.info.run_id)}
    pictures = {"heatmap.png", "languages.png", "differences.png"}
    assert {"scores.html", "scores.csv", "scores.json", "answers", *pictures} <= names
    assert "trained/zero_shot/de-sw/chrf" in run.data.metrics
    assert "trained/direction/en-de/chrf" in run.data.metrics


def test_the_champion_carries_its_verdict_and_leads_back_to_data(smoke: Finished) -> None:
    version = models.require_alias(smoke.config.tracking, "bayling", "champion")
    assert version.tags["gate.verdict"] == "accepted"
    assert version.tags["gate.baseline"] == "untrained model"
    assert models.by_alias(smoke.config.tracking, "bayling", "candidate") is None
    folder = models.fetch(smoke.config.tracking, "bayling", version.version)
    provenance = json.loads((folder / "provenance.json").read_text("utf-8"))
    assert provenance["data_fingerprint"] == smoke.outputs["data"].fingerprint
    assert provenance["run_id"] == smoke.outputs["train"].run_id
    assert "Unicode-3.0" in (folder / "README.md").read_text("utf-8")


def test_what_came_over_http_is_on_record(smoke: Finished) -> None:
    results = smoke.outputs["serve"].results
    assert len(results["translations"]) == 2
    roles = [message["role"] for message in results["conversation"]]
    assert roles == ["user", "assistant"] * 3
    assert len(results["conversation_references"]) == 3
    assert results["version"] == smoke.outputs["promote"].results["version"]


def test_the_summary_holds_what_a_script_needs(smoke: Finished, tmp_path: Path) -> None:
    path = smoke.config.folder / "summary.json"
    write(path, smoke.outputs, 61.0)
    summary = json.loads(path.read_text("utf-8"))
    assert {
        "model_version",
        "chrf",
        "chrf_untrained",
        "chrf_zero_shot",
        "exact_match",
        "interactive_satisfaction",
        "directions",
        "train_seconds",
        "total_seconds",
        "translations",
    } <= set(summary)
    assert len(summary["directions"]) == 12


def test_a_tracking_store_that_was_replaced_gets_the_runs_again(
    smoke: Finished, tmp_path: Path
) -> None:
    pipeline, _ = smoke.pipeline(f"tracking_uri=sqlite:///{tmp_path}/other.db")
    assert pipeline.output("train") is None


def test_a_stage_alone_asks_for_the_ones_before_it(smoke: Finished) -> None:
    from bayling.errors import UserError

    pipeline, _ = smoke.pipeline("seed=77")
    with pytest.raises(UserError, match=r"the data stage has not been run.*bayling data"):
        pipeline.run_stage("train")


@pytest.mark.unit
def test_jobs_on_a_cluster_that_share_a_stage_take_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BAYLING_JOB", "a-job")
    config = compose(["recipe=smoke", f"output_dir={tmp_path}"])
    config.folder.mkdir()
    order = []

    def another_job() -> None:
        with Pipeline(config, Recorder())._held("data"):
            order.append("second")

    thread = threading.Thread(target=another_job)
    with Pipeline(config, Recorder())._held("data"):
        thread.start()
        thread.join(1.5)  # longer than a waiter needs to look again
        order.append("first")
    thread.join(30)
    assert order == ["first", "second"]
    assert not list(config.folder.iterdir()), "no lock is left behind"
