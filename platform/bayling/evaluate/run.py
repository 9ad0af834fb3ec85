"""The evaluate stage: suites, answered by the model and by what it is compared with."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from bayling.errors import UserError
from bayling.evaluate import report, systems
from bayling.evaluate.answers import Answers
from bayling.evaluate.card import with_scores
from bayling.evaluate.config import EvaluateConfig
from bayling.evaluate.endpoint import Endpoint
from bayling.evaluate.generate import AHEAD, Answerers
from bayling.evaluate.suite import ALL, Contest, Row, Scored, Suite, digest_of
from bayling.evaluate.suites import HARNESS, SUITES
from bayling.evaluate.suites.harness import Harness
from bayling.evaluate.systems import CHAMPION, TRAINED, UNTRAINED, System
from bayling.evaluate.tasks import put_through
from bayling.model_folder import CARD
from bayling.registry import models, runs, scores
from bayling.stage import Context, Manifest, fingerprint, write_json

SCHEMA = 2
"""Of `scores.json`."""


def run(config: EvaluateConfig, context: Context) -> Manifest:
    """Put a model through the suites: the trained one, beside the untrained and the champion, or
    the one that `evaluate.model` names, beside what `evaluate.against` names.

    Writes every answer as JSON lines, and logs scores per direction, per language and overall.
    """
    suites = _suites(config, context)
    harness = Harness(config) if HARNESS in config.suites else None
    compared = _systems(config, context)
    main, baseline = compared[0], compared[-1] if len(compared) > 1 else None
    speed: dict[str, Any] = {}
    answered: dict[str, dict[str, list[Row]]] = {}
    scored: dict[str, dict[str, Scored]] = {}
    with closing(_Asking(config, context, suites)) as asking:
        for number, system in enumerate(compared):
            answered[system.name], speed[system.name] = asking.all_of(
                system, number / len(compared), 1 / len(compared)
            )
        no_room = asking.no_room
    for system in compared:
        context.report(f"scoring the {system.name} model", 1, 1)
        scored[system.name] = {
            suite.name: suite.score(answered[system.name][suite.name]) for suite in suites
        }
        if harness is not None:
            scored[system.name][HARNESS] = put_through(harness, system, config, context)
    systems.let_go(context)
    for suite in suites:
        if isinstance(suite, Contest):
            theirs = answered[baseline.name][suite.name] if baseline else None
            folder = context.folder / "answers" / main.name
            found = suite.compare(answered[main.name][suite.name], theirs, folder, context.report)
            alone = scored[main.name][suite.name].samples[ALL]
            found.samples[ALL] = {**found.samples.get(ALL, {}), **alone}
            found.groups.setdefault(ALL, {"kind": "overall"})
            scored[main.name][suite.name] = found
    tests = {suite.name: (digest_of(suite), str(suite.decoding)) for suite in suites}
    if harness is not None:
        tests[HARNESS] = (harness.digest, harness.decoding)
    result = {**result_of(tests, compared, scored, speed), **_cost(speed[main.name], context)}
    write_json(context.folder / "scores.json", result)
    context.report("writing the report", 1, 1)
    files = report.write(context.folder / "report", result, answered)
    train = context.inputs.get("train")
    model_id = train[1].results["model_id"] if train and main.name == TRAINED else None
    scores.log(context.tracked, result, model_id, files, context.folder)
    if model_id is not None and train is not None:
        _put_into_card(context, train[0] / train[1].outputs["model"], result, model_id)
    manifest = _manifest(config, context, result, answered)
    if no_room:
        manifest.dropped = {"turns that the context had no room for": no_room}
    return manifest


def result_of(
    tests: Mapping[str, tuple[str, str]],
    compared: Sequence[System],
    scored: dict[str, dict[str, Scored]],
    speed: dict[str, Any],
) -> dict[str, Any]:
    """What `scores.json` says.

    Args:
        tests: suite → what names its questions, and how answers were made.
        compared: the model first, and what it is compared with last.
        scored: system → suite → what was found.
        speed: system → tokens that were generated, and seconds.
    """
    main, baseline = compared[0], compared[-1] if len(compared) > 1 else None
    champion = next((one.version for one in compared if one.name == CHAMPION), None)
    return {
        "schema": SCHEMA,
        "digests": {suite: digest for suite, (digest, _) in tests.items()},
        "decoding": {suite: decoding for suite, (_, decoding) in tests.items()},
        "systems": {
            name: {suite: one.as_dict() for suite, one in those.items()}
            for name, those in scored.items()
        },
        "called": {system.name: system.called for system in compared},
        "main": main.name,
        "baseline": baseline.name if baseline else None,
        "champion_version": champion.version if champion else None,
        "comparison": _comparison(scored, main, baseline),
        "speed": speed,
    }


def _suites(config: EvaluateConfig, context: Context) -> list[Suite]:
    known = [*SUITES, HARNESS]
    for name in config.suites:
        if name not in known:
            raise UserError(
                f"evaluate.suites: there is no suite {name!r}; there are {', '.join(known)}"
            )
    made = [SUITES[name](config, context) for name in config.suites if name in SUITES]
    for suite in made:
        ids = [row["id"] for row in suite.questions]
        if len(set(ids)) < len(ids):
            twice = next(one for one in ids if ids.count(one) > 1)
            raise UserError(f"the suite {suite.name} has two questions with the id {twice}")
        if not ids:
            context.note(f"the suite {suite.name} has no questions and is left out")
    asked = [suite for suite in made if suite.questions]
    if not asked and HARNESS not in config.suites:
        raise UserError("none of evaluate.suites has a question")
    return asked


def _systems(config: EvaluateConfig, context: Context) -> list[System]:
    """The model first, and what it is compared with last."""
    if config.model is not None:
        found = [systems.named("model", config.model, context)]
        if config.against is not None:
            found.append(systems.named("baseline", config.against, context))
        else:
            own = found[0].version.model_id if found[0].version else None
            found += [one for one in [systems.replaced(context, own)] if one is not None]
        return found
    folder, train = context.upstream("train")
    found = [
        System(TRAINED, "trained model", folder=folder / train.outputs["model"]),
        System(UNTRAINED, "untrained model", folder=folder / train.outputs["untrained"]),
    ]
    if config.against is not None:
        return [*found, systems.named("baseline", config.against, context)]
    champion = systems.replaced(context, train.results["model_id"])
    return [*found, *([champion] if champion is not None else [])]


class _Asking:
    """Has systems answer; what is on disk, or in MLflow for the champion, is not asked again."""

    def __init__(self, config: EvaluateConfig, context: Context, suites: Sequence[Suite]) -> None:
        self._config, self._context, self._suites = config, context, suites
        self._answerers: Answerers | None = None
        self.no_room = 0

    def all_of(
        self, system: System, begun: float, part: float
    ) -> tuple[dict[str, list[Row]], dict[str, float]]:
        """A system's answers to every suite, and the tokens and seconds that the new ones took.

        Args:
            begun: which part of all the work is done, and `part` which part this is.
        """
        place = self._context.folder / "answers" / system.name
        answers = [Answers(place, suite) for suite in self._suites]
        for one in answers:
            one.finish()
            if not one.path.exists():
                self._take_over(system, one)
        # To a server pieces of a shard make no difference.
        size = self._shard if system.url is not None else self._piece
        work = [(one, piece) for one in answers for piece in one.missing(size)]
        total = sum(len(suite.questions) for suite in self._suites)
        started, tokens = time.monotonic(), 0
        done = total - sum(len(piece) for _, piece in work)

        def report() -> None:
            share = done / total if total else 1.0
            self._context.report(f"{system.called} answers", begun + part * share, 1)

        report()
        for one, piece, rows, made in self._answered(system, work):
            one.keep(piece, rows)
            done, tokens = done + len(rows), tokens + made
            report()
        seconds = time.monotonic() - started
        return {one.suite.name: one.read() for one in answers}, (
            {"tokens": tokens, "seconds": round(seconds, 2)} if work else {}
        )

    @property
    def _shard(self) -> int:
        """How many questions are on their way at a time."""
        side_by_side = self._config.max_batch * self._context.scale.engines
        return self._config.shard_size or AHEAD * side_by_side

    @property
    def _piece(self) -> int:
        """How many of them an engine is given at a time."""
        return max(1, self._shard // (AHEAD * self._context.scale.engines))

    def _answered(
        self, system: System, work: list[tuple[Answers, range]]
    ) -> Iterator[tuple[Answers, range, list[Row], int]]:
        """Pieces as they come back: whose, which, the answered rows, generated tokens."""
        if not work:
            return
        if system.url is not None:
            endpoint = Endpoint(system.url, self._config)
            for one, piece in work:
                rows, tokens = endpoint.answer(one.questions(piece), one.suite.decoding)
                yield one, piece, rows, tokens
            return
        assert system.folder is not None
        if self._answerers is None:
            self._answerers = Answerers(self._config, self._context.scale)
        waiting, running = list(work), 0
        while waiting or running:
            while waiting and self._answerers.room:
                one, piece = waiting.pop(0)
                rows, decoding = one.questions(piece), one.suite.decoding
                self._answerers.submit((one, piece), system.folder, decoding, rows)
                running += 1
            (one, piece), made = self._answerers.next()
            running -= 1
            self.no_room += made.no_room
            yield one, piece, made.rows, made.tokens

    def _take_over(self, system: System, answers: Answers) -> None:
        """The answers that a registered version gave when it was evaluated itself."""
        if system.version is None:
            return
        suite = answers.suite
        uri = self._context.tracked.tracking_uri
        rows = scores.answers_of(uri, system.version, suite.name, digest_of(suite))
        if rows and [row["id"] for row in rows] == [row["id"] for row in suite.questions]:
            answers.take_over(rows)

    def close(self) -> None:
        if self._answerers is not None:
            self._answerers.close()


def _comparison(
    scored: dict[str, dict[str, Scored]], main: System, baseline: System | None
) -> dict[str, Any]:
    if baseline is None:
        return {}
    return {
        suite: {
            group: {figure: one.as_dict() for figure, one in figures.items()}
            for group, figures in those.against(scored[baseline.name][suite]).items()
        }
        for suite, those in scored[main.name].items()
    }


def _cost(speed: dict[str, float], context: Context) -> dict[str, float]:
    """What a million tokens cost at the pace at which they were generated here."""
    price = context.scale.price_per_gpu_hour
    if price is None or not speed.get("tokens"):
        return {}
    hours = speed["seconds"] / 3600 * context.scale.engines * max(1, context.scale.gpus_per_worker)
    return {"cost_per_million_tokens": round(price * hours / speed["tokens"] * 1e6, 4)}


def _put_into_card(context: Context, model: Path, result: dict[str, Any], model_id: str) -> None:
    card = context.folder / "card" / CARD
    card.parent.mkdir(exist_ok=True)
    card.write_text(with_scores((model / CARD).read_text("utf-8"), result), "utf-8")
    models.replace_file(context.tracked.tracking_uri, model_id, card)


def _manifest(
    config: EvaluateConfig,
    context: Context,
    result: dict[str, Any],
    answered: dict[str, dict[str, list[Row]]],
) -> Manifest:
    manifest = context.manifest("evaluate", config)
    manifest.outputs = {
        "scores": "scores.json",
        **{name: f"answers/{name}" for name in answered},
        "page": "report/scores.html",
        "table": "report/scores.csv",
    }
    for name in ("heatmap", "languages", "differences"):
        if (context.folder / "report" / f"{name}.png").exists():
            manifest.outputs[name] = f"report/{name}.png"
    if (context.folder / "card" / CARD).exists():
        manifest.outputs["card"] = f"card/{CARD}"
    first = next(iter(answered.values()))
    manifest.counts = {
        **{suite: len(rows) for suite, rows in first.items()},
        "systems": list(answered),
    }
    manifest.results = {
        "digest": fingerprint(result["digests"]),
        "main": result["main"],
        **runs.rounded(scores.headline(result)),
    }
    return manifest
