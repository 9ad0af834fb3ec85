"""Scores in MLflow: metrics on the run and the model, files a person reads, and back again."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from bayling.registry import runs
from bayling.registry.models import Version
from bayling.stage import TrackedRun

RUN_TAG = "bayling.evaluate_run"
"""On a model version: the run that holds its scores."""
ALL, ZERO_SHOT = "all", "zero-shot"
_HEADLINE = {
    "heldout": {
        "chrf": "chrf",
        "bleu": "bleu",
        "exact_match": "exact_match",
        "off_target": "off_target",
    },
    "interactive": {
        "satisfied": "interactive_satisfaction",
        "first_turn": "interactive_first_turn",
        "later_turns": "interactive_later_turns",
        "wishes_kept": "interactive_wishes_kept",
        "conversations": "interactive_conversations_met",
        "exact": "interactive_exact",
        "final_chrf": "interactive_final_chrf",
    },
}
"""Suite → figure → what it is called among the few numbers of a run. Those of other suites are
called `SUITE_FIGURE`."""
_PER_GROUP = ("chrf", "bleu", "exact_match", "off_target", "satisfied", "accuracy")


def headline(result: dict[str, Any]) -> dict[str, float]:
    """The few numbers that stand for an evaluation, of what `scores.json` has."""
    main = result["main"]
    numbers: dict[str, float] = {}
    for suite, scored in result["systems"][main].items():
        for figure, value in _values(scored, ALL).items():
            name = _name(suite, figure)
            if name is not None:
                numbers[name] = value
    for suite, scored in result["systems"][main].items():
        zero_shot = _values(scored, ZERO_SHOT)
        for figure in ("chrf", "exact_match"):
            if figure in zero_shot:
                numbers[f"{_name(suite, figure)}_zero_shot"] = zero_shot[figure]
    for system, suites in result["systems"].items():
        for suite, scored in suites.items():
            values = _values(scored, ALL)
            if system != main and "chrf" in values:
                numbers[f"{_name(suite, 'chrf')}_{system}"] = values["chrf"]
    if "cost_per_million_tokens" in result:
        numbers["cost_per_million_tokens"] = result["cost_per_million_tokens"]
    return numbers


def _name(suite: str, figure: str) -> str | None:
    if suite in _HEADLINE:
        return _HEADLINE[suite].get(figure)
    return f"{suite}_{figure}"


def _values(scored: dict[str, Any], group: str) -> dict[str, float]:
    found = scored["groups"].get(group, {}).get("figures", {})
    return {name: figure["value"] for name, figure in found.items()}


def log(
    tracked: TrackedRun,
    result: dict[str, Any],
    model_id: str | None,
    files: list[Path],
    folder: Path,
) -> None:
    """Log an evaluation: headline on the run and the model, everything else on the run."""
    runs.log_metrics(tracked, headline(result), model_id=model_id)
    detailed: dict[str, float] = {}
    for system, suites in result["systems"].items():
        for suite, scored in suites.items():
            prefix = system if suite == "heldout" else f"{system}/{suite}"
            for group, known in scored["groups"].items():
                values = _values(scored, group)
                for figure in _PER_GROUP:
                    if group != ALL and figure in values:
                        detailed[f"{prefix}/{_path(group, known)}/{figure}"] = values[figure]
    runs.log_metrics(tracked, detailed)
    for suite, digest in result["digests"].items():
        profile = {"questions": _questions(result, suite), "decoding": result["decoding"][suite]}
        runs.log_dataset(tracked, suite, digest, suite, profile, context="evaluation")
    mlflow = runs.client(tracked.tracking_uri)
    for path in files:
        mlflow.log_artifact(tracked.run_id, str(path))
    mlflow.log_artifact(tracked.run_id, str(folder / "scores.json"))
    for path in sorted((folder / "answers").rglob("*.jsonl")):
        mlflow.log_artifact(tracked.run_id, str(path), f"answers/{path.parent.name}")


def _path(group: str, known: dict[str, Any]) -> str:
    """A group as a part of a metric's name: letters, digits, slashes and dashes."""
    kind = known.get("kind", "group")
    if kind == "direction":
        kind = "zero_shot" if known["zero_shot"] else kind
        return f"{kind}/{known['source_lang']}-{known['target_lang']}"
    plain = "".join(one if one.isalnum() or one in "-_." else "_" for one in group.split(" ")[-1])
    return f"{kind}/{plain}"


def _questions(result: dict[str, Any], suite: str) -> int:
    figures = result["systems"][result["main"]][suite]["groups"].get(ALL, {}).get("figures", {})
    return max((figure["items"] for figure in figures.values()), default=0)


def of_version(tracking_uri: str, version: Version) -> dict[str, Any] | None:
    """What `scores.json` of a version's evaluation has; None where there is none to be had."""
    text = _artifact(tracking_uri, version, "scores.json")
    return None if text is None else json.loads(text)


def answers_of(
    tracking_uri: str, version: Version, suite: str, digest: str
) -> list[dict[str, Any]] | None:
    """The answers that a version gave to a suite with this digest; None where it was not asked."""
    known = of_version(tracking_uri, version)
    if known is None or known.get("digests", {}).get(suite) != digest:
        return None
    text = _artifact(tracking_uri, version, f"answers/{known['main']}/{suite}.jsonl")
    return None if text is None else [json.loads(line) for line in text.split("\n") if line]


def _artifact(tracking_uri: str, version: Version, path: str) -> str | None:
    """The text of a file of the run that evaluated a version."""
    run_id = version.tags.get(RUN_TAG)
    if run_id is None or not runs.exists(tracking_uri, run_id):
        return None
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory() as folder:
        try:
            found = runs.client(tracking_uri).download_artifacts(run_id, path, folder)
        except (MlflowException, OSError):
            return None
        return Path(found).read_text("utf-8")
