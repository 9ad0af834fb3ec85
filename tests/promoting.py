"""Models that were evaluated, up to the gate: folders and a real MLflow store, without training."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from running import Recorder

from bayling.config import compose
from bayling.pipeline import Pipeline
from bayling.registry import models, runs
from bayling.stage import Manifest

_STRICT = ("promote.min_chrf=0", "promote.max_language_loss=1")
"""Where the quickstart, which is what is composed unless it is told otherwise, asks for less."""


@dataclass
class Promoting:
    """A place where candidates wait for the gate."""

    folder: Path
    _made: int = 0

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    def evaluated(
        self,
        scores: dict[str, Any],
        *more: str,
        answers: dict[str, list[dict[str, Any]]] | None = None,
    ) -> list[str]:
        """Have a model of its own, with these scores; returns the overrides that name it.

        Args:
            answers: system → rows, answered, of the suite `heldout`.
        """
        self._made += 1
        overrides = [f"output_dir={self.folder}", f"train.epochs={self._made}", *_STRICT, *more]
        pipeline = Pipeline(compose(overrides), Recorder())
        pipeline.prepare()
        tracked = runs.open_run(
            self.uri, pipeline.experiment(), name="train", key=str(self._made), stage="train"
        )
        model = self.folder / f"model-{self._made}"
        model.mkdir()
        (model / "README.md").write_text(f"model {self._made}", "utf-8")
        model_id = models.log_model(tracked, name="bayling", folder=model, params={})
        results = {"train": {"model_id": model_id}}
        for stage in ("data", "train", "evaluate"):
            place = pipeline.folder(stage)
            place.mkdir(parents=True, exist_ok=True)
            Manifest(
                stage=stage,
                fingerprint=pipeline.fingerprints[stage],
                config={},
                inputs={},
                outputs={"scores": "scores.json"} if stage == "evaluate" else {},
                licences={"cldr": "Unicode-3.0"},
                results=results.get(stage, {}),
                run_id=tracked.run_id,
            ).write(place)
        place = pipeline.folder("evaluate")
        (place / "scores.json").write_text(json.dumps(scores), "utf-8")
        for system, rows in (answers or {}).items():
            path = place / "answers" / system / "heldout.jsonl"
            path.parent.mkdir(parents=True)
            path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
        return overrides
