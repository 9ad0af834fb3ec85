"""The evaluate stage: the held-out part, answered by the trained and the untrained model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from bayling.evaluate import generate, metrics, report
from bayling.evaluate.card import with_scores
from bayling.evaluate.config import EvaluateConfig
from bayling.model_folder import CARD
from bayling.registry import models, runs, scores
from bayling.stage import Context, Manifest, fingerprint, write_json

_WORST = 12


def run(config: EvaluateConfig, context: Context) -> Manifest:
    """Score the trained model, the untrained one, and the champion where its scores on this
    test set are not known yet.

    Writes every answer as JSON lines, and logs scores per direction, per language and overall.
    """
    data_folder, data = context.upstream("data")
    train_folder, train = context.upstream("train")
    rows = {
        "translate": generate.read_lines(data_folder / data.outputs["heldout_translate"]),
        "converse": generate.read_lines(data_folder / data.outputs["heldout_interactive"]),
    }
    digest = fingerprint(data.results["heldout_digest"], config.max_new_tokens)
    systems = {
        "trained": train_folder / train.outputs["model"],
        "untrained": train_folder / train.outputs["untrained"],
    }
    champion = models.by_alias(
        context.tracked.tracking_uri, context.registered_model, models.CHAMPION
    )
    if champion is not None and champion.model_id != train.results["model_id"]:
        known = scores.of_version(context.tracked.tracking_uri, champion)
        if known is None or known["digest"] != digest:
            systems["champion"] = models.fetch(
                context.tracked.tracking_uri, champion.name, champion.version
            )
    each = sum(map(len, rows.values()))
    result: dict[str, Any] = {"digest": digest}
    with closing(_Answers(config, context)) as answers:
        for number, (name, folder) in enumerate(systems.items()):

            def progress(done: int, name: str = name, number: int = number) -> None:
                context.report(f"{name} model answers", number * each + done, len(systems) * each)

            progress(0)
            answered = answers.of(name, folder, rows, progress)
            context.report(f"scoring the {name} model", (number + 1) * each, len(systems) * each)
            result[name] = scores_of(answered["translate"], answered["converse"])
    if "champion" in systems and champion is not None:
        result["champion"]["version"] = champion.version
    write_json(context.folder / "scores.json", result)
    files = report.write(context.folder / "report", result, data.config["languages"])
    scores.log(context.tracked, result, train.results["model_id"], data, files, context.folder)
    card = context.folder / "card" / CARD
    card.parent.mkdir(exist_ok=True)
    plain = (systems["trained"] / CARD).read_text("utf-8")
    card.write_text(with_scores(plain, result, digest), "utf-8")
    models.replace_file(context.tracked.tracking_uri, train.results["model_id"], card)

    manifest = context.manifest("evaluate", config)
    manifest.outputs = {
        "scores": "scores.json",
        **{name: f"answers/{name}" for name in systems},
        "page": "report/scores.html",
        "table": "report/scores.csv",
        "heat_map": "report/heatmap.png",
        "card": f"card/{CARD}",
    }
    manifest.counts = {
        "translations": len(rows["translate"]),
        "conversations": len(rows["converse"]),
        "systems": list(systems),
    }
    manifest.results = {"digest": digest, **runs.rounded(scores.headline(result))}
    return manifest


class _Answers:
    """Answers of several systems; read back where an interrupted run wrote them already."""

    def __init__(self, config: EvaluateConfig, context: Context) -> None:
        self._config, self._context = config, context
        self._answerers: generate.Answerers | None = None

    def of(
        self,
        name: str,
        folder: Path,
        rows: dict[str, list[dict[str, Any]]],
        progress: Callable[[int], None],
    ) -> dict[str, list[dict[str, Any]]]:
        place = self._context.folder / "answers" / name
        files = {method: place / f"{method}.jsonl" for method in rows}
        if all(path.exists() for path in files.values()):
            return {method: generate.read_lines(path) for method, path in files.items()}
        if self._answerers is None:
            self._answerers = generate.Answerers(self._config, self._context.scale)
        answered = self._answerers.answer(folder, rows, progress)
        for method, path in files.items():
            generate.write_lines(path, answered[method])
        return answered

    def close(self) -> None:
        if self._answerers is not None:
            self._answerers.close()


def scores_of(
    translations: list[dict[str, Any]], conversations: list[dict[str, Any]]
) -> dict[str, Any]:
    """All scores of one system: overall, zero-shot, per language, per direction, interactive.

    `overall`, `into` and `from` are over the trained directions only.
    """
    trained = [row for row in translations if not row["zero_shot"]]
    zero_shot = [row for row in translations if row["zero_shot"]]
    directions: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    into: dict[str, list[dict[str, Any]]] = defaultdict(list)
    out_of: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in translations:
        directions[row["source_lang"], row["target_lang"]].append(row)
    for row in trained:
        into[row["target_lang"]].append(row)
        out_of[row["source_lang"]].append(row)
    return {
        "overall": metrics.score(trained).as_dict(),
        "zero_shot": metrics.score(zero_shot).as_dict() if zero_shot else None,
        "into": {tag: metrics.score(rows).as_dict() for tag, rows in sorted(into.items())},
        "from": {tag: metrics.score(rows).as_dict() for tag, rows in sorted(out_of.items())},
        "directions": [
            {
                "source_lang": source,
                "target_lang": target,
                "zero_shot": rows[0]["zero_shot"],
                **metrics.score(rows).as_dict(),
            }
            for (source, target), rows in sorted(directions.items())
        ],
        "interactive": metrics.score_conversations(conversations),
        "worst": _worst(trained),
    }


def _worst(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """The answers furthest from right, for a person to look at; at most one a direction."""
    import sacrebleu

    wrong = [row for row in rows if row["output"].strip() != row["target"]]
    ranked = sorted(
        wrong,
        key=lambda row: (
            sacrebleu.sentence_chrf(row["output"], [row["target"]], word_order=2).score,
            row["id"],
        ),
    )
    seen: set[tuple[str, str]] = set()
    result = []
    for row in ranked:
        direction = (row["source_lang"], row["target_lang"])
        if direction not in seen:
            seen.add(direction)
            keys = ("source_lang", "target_lang", "source", "output", "target")
            result.append({key: row[key] for key in keys})
    return result[:_WORST]
