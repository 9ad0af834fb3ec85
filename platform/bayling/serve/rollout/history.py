"""A rollout as a run in MLflow: the figures of both versions over time, and how it ended."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bayling.registry import runs
from bayling.serve.rollout.comparison import Finding
from bayling.serve.rollout.config import RolloutConfig
from bayling.serve.rollout.plan import Rollout
from bayling.stage import TrackedRun

STAGE = "rollout"
_SHOWN = {
    "errors": "failed requests",
    "off_target": "wrong language or script",
    "ttft_median": "first token, median (s)",
    "ttft_p90": "first token, slowest tenth (s)",
    "tpot_median": "token, median (s)",
    "tpot_p90": "token, slowest tenth (s)",
}


class History:
    """Writes the runs of rollouts, each found again by the rollout's id."""

    def __init__(
        self, tracking_uri: str, experiment: Callable[[], str], config: RolloutConfig
    ) -> None:
        """
        Args:
            experiment: gives the id of the experiment that the runs belong to.
        """
        self._tracking_uri = tracking_uri
        self._experiment = experiment
        self._config = config
        self._open: dict[str, tuple[TrackedRun, float]] = {}

    def log(
        self,
        rollout: Rollout,
        at: float,
        rates: Mapping[str, Mapping[str, float | int | None]],
        findings: list[Finding],
    ) -> None:
        """Add a row to the run's curves: figures of both versions, and limits of a look."""
        from mlflow.entities import Metric

        tracked, began = self._run(rollout)
        values: dict[str, float] = {"share": rollout.share(self._config)}
        for side, version in (("base", rollout.old), ("candidate", rollout.new)):
            for measure, value in rates.get(version or "", {}).items():
                if value is not None:
                    values[f"{side}/{measure}"] = float(value)
        for one in findings:
            values[f"lower/{one.measure}"] = one.lower
            if one.upper < float("inf"):
                values[f"upper/{one.measure}"] = one.upper
        step = max(0, int(at - began))
        metrics = [Metric(key, value, int(at * 1000), step) for key, value in values.items()]
        runs.client(self._tracking_uri).log_batch(tracked.run_id, metrics=metrics)

    def end(self, rollout: Rollout, findings: list[Finding]) -> None:
        """Close the run: a table, a plot, and how the rollout ended."""
        tracked, _ = self._run(rollout)
        mlflow = runs.client(self._tracking_uri)
        runs.set_tags(
            tracked,
            {
                "rollout.state": rollout.state.value,
                "rollout.reason": rollout.reason,
                "rollout.version": rollout.new,
                "rollout.base": rollout.old or "",
                "mlflow.note.content": f"**{rollout.state.value.replace('_', ' ')}**: "
                f"{rollout.reason}",
            },
        )
        mlflow.log_text(tracked.run_id, _page(rollout, findings), "comparison.md")
        curves = self._curves(tracked.run_id)
        if any(len(points) > 1 for points in curves.values()):
            with tempfile.TemporaryDirectory() as folder:
                picture = Path(folder) / "comparison.png"
                _plot(curves, rollout, picture)
                mlflow.log_artifact(tracked.run_id, str(picture))
        mlflow.set_terminated(tracked.run_id)

    def _run(self, rollout: Rollout) -> tuple[TrackedRun, float]:
        if rollout.id not in self._open:
            tracked = runs.open_run(
                self._tracking_uri,
                self._experiment(),
                name=f"rollout of version {rollout.new}",
                key=rollout.id,
                stage=STAGE,
                config=self._config,
            )
            began = runs.client(self._tracking_uri).get_run(tracked.run_id).info.start_time
            self._open[rollout.id] = tracked, began / 1000
        return self._open[rollout.id]

    def _curves(self, run_id: str) -> dict[str, list[tuple[float, float]]]:
        mlflow = runs.client(self._tracking_uri)
        keys = ["share", *(f"{side}/{key}" for side in ("base", "candidate") for key in _SHOWN)]
        return {
            key: [(one.step, one.value) for one in mlflow.get_metric_history(run_id, key)]
            for key in keys
        }


def _page(rollout: Rollout, findings: list[Finding]) -> str:
    lines = [
        f"# Version {rollout.new} after version {rollout.old}",
        "",
        f"**{rollout.state.value.replace('_', ' ')}**: {rollout.reason}",
        "",
        f"{time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime(rollout.since))}, "
        f"asked for by {rollout.asked_by}.",
    ]
    if findings:
        lines += ["", "The last comparison, on the traffic of its step:", ""]
        lines += [f"- {one.verdict.value}: {one.sentence()}" for one in findings]
    return "\n".join(lines) + "\n"


def _plot(curves: Mapping[str, list[tuple[float, float]]], rollout: Rollout, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, places = pyplot.subplots(len(_SHOWN) + 1, 1, figsize=(8, 14), sharex=True)
    colours: dict[str, Any] = {"base": "tab:blue", "candidate": "tab:orange"}
    for place, (measure, title) in zip(places, _SHOWN.items(), strict=False):
        for side, version in (("base", rollout.old), ("candidate", rollout.new)):
            points = curves[f"{side}/{measure}"]
            if points:
                xs, ys = zip(*points, strict=True)
                place.plot(xs, ys, marker=".", color=colours[side], label=f"version {version}")
        place.set_title(title, fontsize=9, loc="left")
        place.set_ylim(bottom=0)
    if places[0].get_legend_handles_labels()[0]:
        places[0].legend(fontsize=8)
    if curves["share"]:
        xs, ys = zip(*curves["share"], strict=True)
        places[-1].step(xs, ys, where="post", color=colours["candidate"])
    places[-1].set_title(f"share of version {rollout.new}", fontsize=9, loc="left")
    places[-1].set_ylim(0, 1)
    places[-1].set_xlabel("seconds")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
