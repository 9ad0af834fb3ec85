"""What a command says at its end: the scores, the version, what came over HTTP, where to go on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayling.errors import StageFailed, UserError
from bayling.stage import Manifest, write_json

if TYPE_CHECKING:
    from bayling.config import Config


def write(path: Path, outputs: dict[str, Manifest], total_seconds: float) -> None:
    """Write a pipeline's outcome as one JSON object under the field's names."""
    folder = path.parent
    evaluation, serve = outputs["evaluate"], outputs["serve"]
    evaluate_folder = folder / f"evaluate-{evaluation.fingerprint[:12]}"
    scores = json.loads((evaluate_folder / evaluation.outputs["scores"]).read_text("utf-8"))
    headline = {key: value for key, value in evaluation.results.items() if isinstance(value, float)}
    write_json(
        path,
        {
            "model": outputs["promote"].results["model"],
            "model_version": outputs["promote"].results["version"],
            **headline,
            "directions": _directions(scores["systems"]["trained"].get("heldout")),
            "train_seconds": outputs["train"].seconds,
            "total_seconds": round(total_seconds, 1),
            "stage_seconds": {name: manifest.seconds for name, manifest in outputs.items()},
            "translations": serve.results["translations"],
            "conversation": serve.results["conversation"],
            "conversation_references": serve.results.get("conversation_references", []),
            "report": str(evaluate_folder / evaluation.outputs["page"]),
        },
    )


def _directions(scored: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The directions of the held-out part, each with its figures."""
    figures = ("chrf", "bleu", "exact_match", "off_target")
    return [
        {
            **{key: row[key] for key in ("source_lang", "target_lang", "zero_shot")},
            **{name: row["figures"][name]["value"] for name in figures},
        }
        for row in (scored["groups"].values() if scored else ())
        if row["kind"] == "direction"
    ]


def show(path: Path, config: Config) -> None:
    """Print a pipeline's summary for a person."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from bayling.serve.run import base_url

    result = json.loads(path.read_text("utf-8"))
    console = Console(highlight=False)
    table = Table(
        title=f"{result['model']} version {result['model_version']}", title_justify="left"
    )
    table.add_column("held-out values")
    table.add_column("untrained", justify="right")
    table.add_column("trained", justify="right")
    trained = [row for row in result["directions"] if not row["zero_shot"]]
    if trained:
        weakest = min(trained, key=lambda row: row["chrf"])
        table.add_row(
            f"chrF++, {len(trained)} trained directions",
            f"{result['chrf_untrained']:.1f}",
            f"{result['chrf']:.1f}",
        )
        name = f"{weakest['source_lang']} → {weakest['target_lang']}"
        table.add_row(f"  the weakest of them, {name}", "", f"{weakest['chrf']:.1f}")
        if "chrf_zero_shot" in result:
            count = len(result["directions"]) - len(trained)
            table.add_row(
                f"chrF++, {count} zero-shot directions", "", f"{result['chrf_zero_shot']:.1f}"
            )
        table.add_row("exact match, trained directions", "", f"{result['exact_match']:.0%}")
    if "interactive_satisfaction" in result:
        met = result["interactive_satisfaction"]
        table.add_row("interactive turns that meet their requirements", "", f"{met:.0%}")
    console.print(table)
    console.print("\n[bold]Over HTTP, from the model just trained[/]")
    for row in result["translations"]:
        console.print(f"  {row['source_lang']} → {row['target_lang']}  ", end="")
        answer = f"{escape(row['source'])}  →  [bold]{escape(row['output'])}[/]"
        console.print(answer, _judged(row["output"], row["target"]), soft_wrap=True)
    if result["conversation"]:
        console.print("\n[bold]One conversation[/]")
    references = iter(result["conversation_references"])
    for message in result["conversation"]:
        said = message["content"]
        if message["role"] == "user":
            console.print(f"  [cyan]user[/]      {escape(said)}", soft_wrap=True)
        else:
            judged = _judged(said, next(references, said))
            console.print(f"  [green]BayLing[/]   {escape(said)}", judged, soft_wrap=True)
    seconds, training = result["total_seconds"], result["train_seconds"]
    now = f"{training:.0f} s of them training" if training < seconds else "trained before"
    console.print(f"\n{seconds:.0f} s in all, {now}.")
    extra = _extra(config)
    console.print("[bold]Where to look next[/]")
    away = config.tracking.startswith("http")
    ui = config.tracking if away else f"bayling ui{extra}"
    serve, there = f"bayling serve{extra}", f"the model at {base_url(config.serve)}"
    if os.environ.get("BAYLING_JOB"):  # in a pod, which goes with the job
        serve, there = "helm install bayling-serving charts/serving", "the model in this cluster"
    for command, what in (
        (ui, "runs, curves, heat map and versions in a browser"),
        (serve, there),
    ):
        console.print(f"  {command:<{max(len(ui), len(serve))}}   {what}", soft_wrap=True)
    console.print(f"  {result['report']}", soft_wrap=True)
    console.print(f"  {path}", soft_wrap=True)


def _judged(answer: str, reference: str) -> str:
    """A tick, or what would have been right."""
    from rich.markup import escape

    right = answer.strip() == reference.strip()
    return "[green]✓[/]" if right else f"[dim](reference: {escape(reference)})[/]"


def stage_table(manifest: Manifest, folder: Path, config: Config) -> None:
    """Print what one stage made, and where to look next."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table(title=manifest.stage, title_justify="left", show_header=False)
    rows: dict[str, Any] = {**manifest.counts, **manifest.results}
    for key, value in rows.items():
        if isinstance(value, dict | list):
            continue
        shown = f"{value:,.4g}" if isinstance(value, float) else str(value)
        table.add_row(key.replace("_", " "), shown)
    for reason, number in manifest.dropped.items():
        table.add_row(f"dropped: {reason}", str(number))
    console.print(table)
    console.print(f"in {folder}", soft_wrap=True)
    following = {"data": "train", "train": "evaluate", "evaluate": "promote", "promote": "serve"}
    # Nothing follows on the evaluation of a model that was not trained here.
    if manifest.stage in following and manifest.results.get("main", "trained") == "trained":
        console.print(f"next: bayling {following[manifest.stage]}{_extra(config)}")


def sweep_table(results: list[tuple[str, Any]]) -> None:
    """Print the combinations of a sweep beside their scores, the best first."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="sweep", title_justify="left")
    table.add_column("overrides")
    table.add_column("outcome")
    for overrides, result in results:
        table.add_row(overrides, _outcome(result))
    Console(highlight=False).print(table)


def _outcome(result: Any) -> str:
    from bayling.watch import summary

    if isinstance(result, Manifest):
        return summary(result)
    if isinstance(result, dict):
        return summary(result["evaluate"])
    if isinstance(result, StageFailed | UserError):
        return f"failed: {result}"
    return "refused by the gate: " + str(result).splitlines()[-1].strip(" -")


def _extra(config: Config) -> str:
    """The overrides that the next command needs to find this run."""
    extra = ""
    if config.name not in ("quickstart", "run"):
        extra += f" name={config.name}"
    if config.output_dir != "outputs":
        extra += f" output_dir={config.output_dir}"
    return extra
