"""The promote stage: a version, a verdict, and, if it is favourable, the aliases."""

from __future__ import annotations

import time

from bayling.errors import UserError
from bayling.promote.config import PromoteConfig
from bayling.promote.evaluation import Evaluation
from bayling.promote.gate import Verdict, judge
from bayling.registry import champion, models, runs, scores
from bayling.stage import Context, Manifest, write_json

VERDICT, PAGE = "verdict.json", "verdict.md"
_LONGEST = 5000
"""Characters of a version's description that MLflow's tables take."""
_ON_THE_RUN = ("gate.verdict", "gate.baseline", "gate.reasons", "gate.override", "gate.override_by")


def run(config: PromoteConfig, context: Context) -> Manifest:
    """Register the trained model as `candidate` and let the gate decide.

    When it accepts, or is overridden, `champion` moves to the version and `previous` to the
    champion before it; when it refuses, nothing moves. The verdict with its reasons is on the
    version either way. The manifest's `results["accepted"]` says whether the version was promoted;
    the caller turns a refusal into exit code 3.

    Raises:
        UserError: the evaluation compared with another model than the one that is champion now.
    """
    evaluate_folder, evaluated = context.upstream("evaluate")
    _, train = context.upstream("train")
    uri, name = context.tracked.tracking_uri, context.registered_model
    context.report("judging", 0, 2)
    evaluation = Evaluation.read(evaluate_folder / evaluated.outputs["scores"])
    check_baseline(evaluation, uri, name, str(train.results["model_id"]))
    verdict = judge(evaluation, config, train.licences)

    context.report("registering", 1, 2)
    version = models.register(uri, name, train.results["model_id"], str(train.run_id))
    models.move_alias(version, models.CANDIDATE, uri)
    models.tag_version(version, {scores.RUN_TAG: str(evaluated.run_id)}, uri)
    overridden = bool(context.override) and not verdict.accepted
    if context.override and verdict.accepted:
        context.note("the gate accepts the candidate: there was nothing to override")
    _record(verdict, version, context, context.override if overridden else "")
    promoted = verdict.accepted or overridden
    if promoted:
        champion.promote(
            uri,
            version,
            evaluation.champion_version,
            champion.How.overridden if overridden else champion.How.accepted,
            context.override if overridden else f"passed the gate against the {verdict.baseline}",
            verdict.word,
        )

    manifest = context.manifest("promote", config)
    manifest.outputs = {"verdict": VERDICT, "page": PAGE}
    manifest.results = {
        "accepted": promoted,
        "verdict": verdict.word,
        "version": version.version,
        "model": name,
        "baseline": verdict.baseline,
        "reasons": verdict.reasons,
    }
    if overridden:
        manifest.results["override"] = context.override
    return manifest


def check_baseline(evaluation: Evaluation, tracking_uri: str, name: str, model_id: str) -> None:
    """See that the evaluation compared with the model that would be replaced.

    A model that is champion already is judged again by what it was compared with.

    Raises:
        UserError: another model is champion now.
    """
    now = models.by_alias(tracking_uri, name, models.CHAMPION)
    if now is not None and now.model_id == model_id:
        return
    version = now.version if now is not None else None
    if version == evaluation.champion_version:
        return
    who = f"version {version}" if version is not None else "no version"
    raise UserError(
        f"this model was compared with the {evaluation.baseline}, but {who} of {name!r} is "
        "champion now: remove the evaluate folder of this run and evaluate again"
    )


def _record(verdict: Verdict, version: models.Version, context: Context, override: str) -> None:
    """The verdict as tags and description of the version, and as files of the run."""
    uri = context.tracked.tracking_uri
    tags = {
        "gate.verdict": verdict.word,
        "gate.baseline": verdict.baseline,
        "gate.reasons": "; ".join(verdict.reasons) or "every rule passed",
    }
    for finding in verdict.findings:
        mark = "passed" if finding.passed else "failed"
        tags[f"gate.{finding.key}"] = f"{mark}: {finding.sentence}"
    page = verdict.markdown()
    if override:
        at, by = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), champion.who()
        tags |= {"gate.override": override, "gate.override_by": by, "gate.override_at": at}
        page = f"**Promoted although refused**, by {by} on {at}: {override}\n\n{page}"
    stale = [
        tag
        for tag in version.tags
        if tag.startswith("gate.") and tag not in tags and not tag.startswith("gate.override")
    ]
    for tag in stale:  # of an earlier verdict, by other rules
        models.untag_version(version, tag, uri)
    models.tag_version(version, tags, uri)
    models.describe_version(version, _fitting(page), uri)
    runs.log_metrics(
        context.tracked,
        {f"gate/{finding.key}": finding.value for finding in verdict.findings},
    )
    write_json(context.folder / VERDICT, verdict)
    (context.folder / PAGE).write_text(page, "utf-8")
    for file in (VERDICT, PAGE):
        runs.log_file(context.tracked, context.folder / file)
    runs.set_tags(context.tracked, {key: tags[key] for key in _ON_THE_RUN if key in tags})


def _fitting(page: str) -> str:
    """As much of a page as a description takes, in whole lines."""
    if len(page) <= _LONGEST:
        return page
    end = f"\n… all of it is in the run's {PAGE}\n"
    return page[: page.rindex("\n", 0, _LONGEST - len(end))] + end
