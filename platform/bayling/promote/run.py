"""The promote stage: a version, a verdict, and, if it is favourable, the aliases."""

from __future__ import annotations

import json
from typing import Any

from bayling.errors import UserError
from bayling.promote.config import PromoteConfig
from bayling.promote.gate import Verdict, judge
from bayling.registry import models, runs, scores
from bayling.stage import Context, Manifest, jsonable


def run(config: PromoteConfig, context: Context) -> Manifest:
    """Register the trained model as `candidate` and let the gate decide.

    When it accepts, `champion` moves to the version and `previous` to the champion before it;
    when it refuses, nothing moves. The verdict with its reasons is on the version either way.
    The manifest's `results["accepted"]` says which; the caller turns a refusal into exit code 3.

    Raises:
        UserError: the champion was not scored on this test set.
    """
    evaluate_folder, evaluation = context.upstream("evaluate")
    _, train = context.upstream("train")
    uri, name = context.tracked.tracking_uri, context.registered_model
    result = json.loads((evaluate_folder / evaluation.outputs["scores"]).read_text("utf-8"))

    context.report("registering", 0, 2)
    version = models.register(uri, name, train.results["model_id"], str(train.run_id))
    models.move_alias(version, models.CANDIDATE, uri)
    models.tag_version(version, {scores.RUN_TAG: str(evaluation.run_id)}, uri)

    context.report("judging", 1, 2)
    champion = models.by_alias(uri, name, models.CHAMPION)
    if champion is not None and champion.version == version.version:
        champion = models.by_alias(uri, name, models.PREVIOUS)
    baseline, called = _baseline(uri, champion, result)
    verdict = judge(result["trained"], baseline, called, config)
    _record(verdict, version, context)
    if verdict.accepted:
        if champion is not None:
            models.move_alias(champion, models.PREVIOUS, uri)
        models.move_alias(version, models.CHAMPION, uri)
        models.drop_alias(name, models.CANDIDATE, uri)

    manifest = context.manifest("promote", config)
    manifest.results = {
        "accepted": verdict.accepted,
        "version": version.version,
        "model": name,
        "baseline": called,
        "reasons": verdict.reasons,
    }
    return manifest


def _baseline(
    uri: str, champion: models.Version | None, result: dict[str, Any]
) -> tuple[dict[str, Any], str]:
    """The scores to beat, and what to call the model they belong to."""
    if champion is None:
        return result["untrained"], "untrained model"
    called = f"champion (version {champion.version})"
    measured = result.get("champion")
    if measured is not None and measured["version"] == champion.version:
        return measured, called
    known = scores.of_version(uri, champion)
    if known is None or known["digest"] != result["digest"]:
        raise UserError(
            f"the {called} was not scored on this test set, because it became champion after "
            "this model was evaluated: remove the evaluate folder of this run and evaluate again"
        )
    return known, called


def _record(verdict: Verdict, version: models.Version, context: Context) -> None:
    uri = context.tracked.tracking_uri
    tags = {
        "gate.verdict": "accepted" if verdict.accepted else "refused",
        "gate.baseline": verdict.baseline,
        "gate.reasons": "; ".join(verdict.reasons) or "every rule passed",
    }
    for finding in verdict.findings:
        mark = "passed" if finding.passed else "failed"
        tags[f"gate.{finding.rule}"] = f"{mark}: {finding.sentence}"
    models.tag_version(version, tags, uri)
    models.describe_version(version, verdict.markdown(), uri)
    runs.log_metrics(
        context.tracked,
        {f"gate/{finding.rule}": finding.value for finding in verdict.findings},
    )
    mlflow = runs.client(uri)
    mlflow.log_dict(context.tracked.run_id, jsonable(verdict), "verdict.json")
    mlflow.log_text(context.tracked.run_id, verdict.markdown(), "verdict.md")
    for key in ("gate.verdict", "gate.baseline", "gate.reasons"):
        mlflow.set_tag(context.tracked.run_id, key, tags[key])
