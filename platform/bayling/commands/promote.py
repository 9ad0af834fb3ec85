"""`bayling promote`: the stage, and what a person asks of the gate beside it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from bayling.errors import GateRefused, UserError

if TYPE_CHECKING:
    from bayling.pipeline import Pipeline
    from bayling.promote.evaluation import Evaluation
    from bayling.promote.gate import Verdict


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what only this stage understands."""
    parser.add_argument(
        "--explain",
        action="store_true",
        help="show each rule's numbers, the directions that lost most, and examples",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="judge and show the verdict; register nothing, move nothing",
    )
    parser.add_argument(
        "--override",
        metavar="REASON",
        help="promote although the gate refuses; the reason stays on record",
    )


def asked(arguments: argparse.Namespace) -> bool:
    """Whether anything but the stage as it is was asked for.

    Raises:
        UserError: options that do not go together, or an override without a reason.
    """
    override = arguments.override
    given = arguments.explain or arguments.dry_run or override is not None
    if given and arguments.multirun:
        raise UserError("--explain, --dry-run and --override are for one model, not for -m")
    if override is not None and not override.strip():
        raise UserError(
            "--override needs a reason, such as 'Hindi is served by another model': it stays on "
            "record"
        )
    if override is not None and arguments.dry_run:
        raise UserError("--override promotes and --dry-run does not: leave one of them out")
    return bool(given)


def run(arguments: argparse.Namespace) -> int:
    """Judge, and promote unless it is a rehearsal; returns 0, or 3 where the gate says no."""
    from contextlib import closing

    from bayling.config import compose
    from bayling.pipeline import Pipeline
    from bayling.summary import stage_table
    from bayling.watch import watcher

    config = compose(arguments.overrides)
    override = (arguments.override or "").strip()
    manifest, refusal = None, None
    with closing(watcher()) as watched:
        pipeline = Pipeline(config, watched)
        if not arguments.dry_run:
            try:
                manifest = pipeline.run_stage("promote", override=override)
            except GateRefused as error:
                refusal = error
        evaluation, verdict = _judged(pipeline, rehearsal=arguments.dry_run)
    if arguments.dry_run or arguments.explain:
        _show(evaluation, verdict, pipeline.folder("evaluate") if arguments.explain else None)
    if arguments.dry_run:
        print("a rehearsal: nothing was registered, no alias has moved")
        return 0 if verdict.accepted else GateRefused.exit_code
    if refusal is not None:
        raise refusal
    assert manifest is not None
    stage_table(manifest, pipeline.folder("promote"), config)
    return 0


def _judged(pipeline: Pipeline, *, rehearsal: bool) -> tuple[Evaluation, Verdict]:
    """What the gate says of the model that was trained and evaluated with this configuration."""
    from bayling.promote.evaluation import Evaluation
    from bayling.promote.gate import judge
    from bayling.promote.run import check_baseline

    pipeline.prepare()
    pipeline.require("promote")
    train, evaluated = pipeline.output("train"), pipeline.output("evaluate")
    assert train is not None and evaluated is not None  # they are required
    config = pipeline.config
    evaluation = Evaluation.read(pipeline.folder("evaluate") / evaluated.outputs["scores"])
    if rehearsal:  # a verdict that was given stays what it is, whoever is champion now
        model_id = str(train.results["model_id"])
        check_baseline(evaluation, config.tracking, config.registered_model, model_id)
    return evaluation, judge(evaluation, config.promote, train.licences)


def _show(evaluation: Evaluation, verdict: Verdict, answers: Path | None) -> None:
    """
    Args:
        answers: the folder of the evaluation, for examples.
    """
    from bayling.promote import explain

    lines = [*explain.rules(verdict)]
    if answers is not None:
        lines += explain.worst(evaluation, answers)
    print("\n".join(lines))
