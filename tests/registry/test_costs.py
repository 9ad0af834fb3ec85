"""What runs on GPUs cost, by team."""

from __future__ import annotations

from pathlib import Path

import pytest

from bayling.cli import main
from bayling.config import compose
from bayling.registry import costs, runs
from bayling.stage import Manifest

CLUSTER = ["scale=cluster", "scale.price_per_gpu_hour=2"]


def _manifest(stage: str, **results: float) -> Manifest:
    return Manifest(stage, "f", {}, {}, results=dict(results), seconds=1800)


@pytest.mark.unit
def test_training_costs_its_workers_hours_and_evaluation_its_engines() -> None:
    scale = compose(CLUSTER).scale
    trained = costs.of_stage(_manifest("train", worker_hours=12.5), scale)
    assert trained == {costs.GPU_HOURS: 12.5, costs.PRICE: 25.0}
    evaluated = costs.of_stage(_manifest("evaluate"), scale)
    assert evaluated == {costs.GPU_HOURS: 0.5 * scale.engines, costs.PRICE: 1.0 * scale.engines}
    assert costs.of_stage(_manifest("data"), scale) == {}
    assert costs.of_stage(_manifest("train", worker_hours=9), compose([]).scale) == {}


def test_costs_are_summed_over_experiments_and_told_by_team(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    for team, hours, price in (("a", 2.0, 4.0), ("a", 1.5, None), ("b", 1.0, 2.0), (None, 3.0, 6)):
        experiment = runs.experiment_id(uri, f"bayling-{team}", tmp_path / "artifacts")
        labels = {runs.TEAM: team} if team else {}
        run = runs.open_run(
            uri, experiment, name="r", key=f"{team}{hours}", stage="train", labels=labels
        )
        metrics = {costs.GPU_HOURS: hours, **({costs.PRICE: price} if price else {})}
        runs.log_metrics(run, metrics)
    spent = costs.by_team(uri)
    assert {t: (s.runs, s.gpu_hours, s.price) for t, s in spent.items()} == {
        "a": (2, 3.5, 4.0),
        "b": (1, 1.0, 2.0),
        "": (1, 3.0, 6.0),
    }
    assert main(["job", "cost", f"tracking_uri={uri}"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["a", "2", "3.50", "4.00"] in rows and ["(none)", "1", "3.00", "6.00"] in rows


@pytest.mark.unit
def test_a_team_has_an_experiment_unless_one_is_given() -> None:
    assert compose([]).experiment == "bayling"
    assert compose(["team=speech"]).experiment == "bayling-speech"
    assert compose(["team=speech", "experiment=mine"]).experiment == "mine"
