"""Scores in MLflow: metrics on the run and the model, files a person reads, and back again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bayling.registry import runs
from bayling.registry.models import Version
from bayling.stage import Manifest, TrackedRun

RUN_TAG = "bayling.evaluate_run"
"""On a model version: the run that holds its scores."""


def headline(result: dict[str, Any]) -> dict[str, float]:
    """The few numbers that stand for an evaluation."""
    overall, interactive = result["trained"]["overall"], result["trained"]["interactive"]
    numbers = {
        "chrf": overall["chrf"],
        "bleu": overall["bleu"],
        "exact_match": overall["exact_match"],
        "off_target": overall["off_target"],
        "chrf_untrained": result["untrained"]["overall"]["chrf"],
        **interactive,
    }
    if result["trained"]["zero_shot"]:
        numbers["chrf_zero_shot"] = result["trained"]["zero_shot"]["chrf"]
        numbers["exact_match_zero_shot"] = result["trained"]["zero_shot"]["exact_match"]
    return numbers


def log(
    tracked: TrackedRun,
    result: dict[str, Any],
    model_id: str,
    data: Manifest,
    files: list[Path],
    folder: Path,
) -> None:
    """Log an evaluation: headline on the run and the model, everything else on the run."""
    runs.log_metrics(tracked, headline(result), model_id=model_id)
    detailed: dict[str, float] = {}
    for system in ("trained", "untrained"):
        for row in result[system]["directions"]:
            kind = "zero_shot" if row["zero_shot"] else "direction"
            name = f"{system}/{kind}/{row['source_lang']}-{row['target_lang']}"
            detailed[f"{name}/chrf"] = row["chrf"]
            detailed[f"{name}/bleu"] = row["bleu"]
            detailed[f"{name}/exact_match"] = row["exact_match"]
            detailed[f"{name}/off_target"] = row["off_target"]
    for side in ("into", "from"):
        for tag, row in result["trained"][side].items():
            detailed[f"trained/{side}/{tag}/chrf"] = row["chrf"]
            detailed[f"trained/{side}/{tag}/exact_match"] = row["exact_match"]
    runs.log_metrics(tracked, detailed)
    runs.log_dataset(
        tracked,
        name=f"{data.config['name']}-heldout",
        digest=result["digest"],
        source=data.outputs["heldout_translate"],
        profile={"directions": data.counts["trained_directions"]},
        context="evaluation",
    )
    mlflow = runs.client(tracked.tracking_uri)
    for path in files:
        mlflow.log_artifact(tracked.run_id, str(path))
    mlflow.log_artifact(tracked.run_id, str(folder / "scores.json"))
    for path in sorted((folder / "answers").rglob("*.jsonl")):
        mlflow.log_artifact(tracked.run_id, str(path), f"answers/{path.parent.name}")


def of_version(tracking_uri: str, version: Version) -> dict[str, Any] | None:
    """The scores a version was promoted with (`digest` and one system's), or None."""
    run_id = version.tags.get(RUN_TAG)
    if run_id is None or not runs.exists(tracking_uri, run_id):
        return None
    import tempfile

    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory() as folder:
        try:
            path = runs.client(tracking_uri).download_artifacts(run_id, "scores.json", folder)
        except (MlflowException, OSError):
            return None
        result = json.loads(Path(path).read_text("utf-8"))
    return {"digest": result["digest"], **result["trained"]}
