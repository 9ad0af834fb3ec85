from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient

from bayling.registry import runs
from bayling.registry.curve import Curve
from bayling.stage import TrackedRun
from bayling.train.meter import Live, Meter, memory_gib
from bayling.train.trainer import Losses, Outcome

pytestmark = pytest.mark.unit

GROUPS = ["translate/slavic", "interactive/sinitic"]


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> TrackedRun:
    store = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{store}/mlflow.db"
    experiment = runs.experiment_id(uri, "test", store)
    return runs.open_run(uri, experiment, name="a", key="a", stage="train")


def make(folder: Path, tracked: TrackedRun, **more: Any) -> Meter:
    options: dict[str, Any] = {
        "launch": "one",
        "began": time.time(),
        "steps": 100,
        "workers": 2,
        "start": 0,
        "state": {},
        "flops_per_token": 10.0,
        "planned_worker_s": 0.0,
        "peak": 0.0,
        "groups": GROUPS,
        **more,
    }
    return Meter(folder, Curve(tracked, folder / "curve.jsonl"), **options)


def outcome(loss: float, tokens: int = 100, *, applied: bool = True) -> Outcome:
    """Ten supervised tokens, four of them of the first group with half the loss each."""
    share = loss / 16
    table = torch.tensor([[4 * share, 12 * share], [4.0, 6.0]], dtype=torch.float64)
    return Outcome(Losses(loss, 10, table), tokens, 0.5, 1.5, applied, None, [])


def rows(folder: Path) -> list[tuple[int, dict[str, float]]]:
    lines = (folder / "curve.jsonl").read_text("utf-8").splitlines()
    return [(row["step"], row["values"]) for row in map(json.loads, lines)]


def test_a_row_is_the_mean_over_the_supervised_tokens_since_the_last(
    tmp_path: Path, tracked: TrackedRun
) -> None:
    meter = make(tmp_path, tracked, peak=1000.0)
    for step, loss in ((1, 20.0), (2, 40.0), (3, 10.0), (4, 30.0)):
        meter.stepped(step, outcome(loss), seconds=2.0)
        if step % 2 == 0:
            meter.log(outcome(loss))
        meter.commit(step)
    meter.close()
    (first, one), (second, two) = rows(tmp_path)
    assert (first, second) == (2, 4)
    assert (one["train/loss"], two["train/loss"]) == (3.0, 2.0)
    assert one["train/tokens_per_second"] == 50.0
    assert one["train/mfu"] == pytest.approx(0.5)
    assert (one["train/learning_rate"], one["train/gradient_norm"]) == (0.5, 1.5)
    assert one["train/workers"] == 2.0
    assert one["memory/worker_gib"] == pytest.approx(memory_gib(), rel=0.2)


def test_a_step_that_was_left_out_is_not_in_the_mean(tmp_path: Path, tracked: TrackedRun) -> None:
    meter = make(tmp_path, tracked)
    meter.stepped(1, outcome(20.0), 1.0)
    meter.stepped(2, outcome(float("nan"), applied=False), 1.0)
    meter.log(outcome(20.0))
    meter.commit(2)
    meter.close()
    assert rows(tmp_path)[0][1]["train/loss"] == 2.0


def test_training_and_heldout_figures_of_a_step_are_one_row(
    tmp_path: Path, tracked: TrackedRun
) -> None:
    meter = make(tmp_path, tracked)
    for step in (1, 2):
        meter.stepped(step, outcome(16.0), 1.0)
    meter.heldout(outcome(8.0).losses)
    meter.log(outcome(16.0))
    meter.commit(2)
    meter.commit(3)  # nothing new
    meter.close()
    [(step, values)] = rows(tmp_path)
    assert step == 2
    assert values["heldout/loss"] == pytest.approx(0.8)
    assert values["heldout_by_group/translate/slavic"] == pytest.approx(0.5)
    assert values["heldout_by_group/interactive/sinitic"] == pytest.approx(1.0)
    assert values["train_by_group/translate/slavic"] == pytest.approx(1.0)
    assert values["train_by_group/interactive/sinitic"] == pytest.approx(2.0)
    client = MlflowClient(tracked.tracking_uri)
    history = client.get_metric_history(tracked.run_id, "heldout/loss")
    assert [(point.step, point.value) for point in history] == [(2, pytest.approx(0.8))]


def test_a_group_without_tokens_has_no_figure(tmp_path: Path, tracked: TrackedRun) -> None:
    losses = Losses(4.0, 2, torch.tensor([[4.0, 0.0], [2.0, 0.0]], dtype=torch.float64))
    assert losses.means(GROUPS) == {"translate/slavic": 2.0}


def test_sums_go_through_a_checkpoint_so_that_the_curve_has_no_seam(
    tmp_path: Path, tracked: TrackedRun
) -> None:
    losses = [20.0, 40.0, 10.0, 26.0]
    curves = []
    for name, interrupted_after in (("whole", None), ("resumed", 2)):
        folder = tmp_path / name
        folder.mkdir()
        meter = make(folder, tracked)
        for step, loss in enumerate(losses, 1):
            meter.stepped(step, outcome(loss), 1.0)
            if step == interrupted_after:
                kept = json.loads(json.dumps(meter.state))
                meter.stepped(step + 1, outcome(losses[step]), 1.0)  # lost with the worker
                meter.close()
                meter = make(folder, tracked, start=step, state=kept)
        meter.heldout(outcome(8.0).losses)
        meter.log(outcome(1.0))
        meter.commit(4)
        meter.close()
        [(_, values)] = rows(folder)
        curves.append({k: v for k, v in values.items() if "loss" in k or "group" in k})
    assert curves[0] == curves[1]
    assert curves[0]["train/loss"] == 2.4


def test_a_restart_costs_the_silence_and_the_steps_done_again(
    tmp_path: Path, tracked: TrackedRun
) -> None:
    before = make(tmp_path, tracked)
    for step in range(1, 8):
        before.stepped(step, outcome(1.0), 3.0)
    before.say("training")
    before.close()
    # The worker died a hundred seconds ago.
    live = json.loads((tmp_path / "progress.json").read_text())
    live["time"] -= 100
    (tmp_path / "progress.json").write_text(json.dumps(live))
    after = make(tmp_path, tracked, start=5)
    assert after.live.totals.restarts == 0, "not before it trains again"
    after.stepped(6, outcome(1.0), 3.0)
    assert after.live.totals.restarts == 1
    assert after.live.totals.restart_s == pytest.approx(100 + 2 * 3.0, abs=60)
    assert after.live.totals.restart_s >= 106
    after.stepped(7, outcome(1.0), 3.0)
    assert after.live.totals.restarts == 1
    after.close()


def test_a_pause_between_two_commands_is_nobodys_loss(tmp_path: Path, tracked: TrackedRun) -> None:
    before = make(tmp_path, tracked)
    before.stepped(1, outcome(1.0), 3.0)
    before.say("training")
    before.close()
    live = json.loads((tmp_path / "progress.json").read_text())
    live["time"] -= 10_000
    (tmp_path / "progress.json").write_text(json.dumps(live))
    after = make(tmp_path, tracked, launch="two", start=1)
    after.stepped(2, outcome(1.0), 3.0)
    assert after.live.totals.restarts == 0
    assert after.live.totals.restart_s == 0
    after.close()


def test_totals_go_on_over_attempts(tmp_path: Path, tracked: TrackedRun) -> None:
    before = make(tmp_path, tracked, workers=4)
    before.live.totals.checkpoint_s = 7.0
    before.live.totals.bad_steps = 2
    before._began = time.time() - 50
    before.say("training")
    before.close()
    after = make(tmp_path, tracked, workers=1)
    after.say("training")
    totals = after.live.totals
    assert (totals.checkpoint_s, totals.bad_steps) == (7.0, 2)
    assert totals.worker_s >= 200
    read = Live.read(tmp_path)
    assert read is not None
    assert read.totals == totals
    after.close()


def test_the_end_is_foretold_from_the_usual_step(tmp_path: Path, tracked: TrackedRun) -> None:
    meter = make(tmp_path, tracked)
    for step in range(1, 41):
        meter.stepped(step, outcome(1.0), 2.0)
    meter.log(outcome(1.0))
    meter.commit(40)
    meter.close()
    live = Live.read(tmp_path)
    assert live is not None
    assert live.eta_s == pytest.approx(60 * 2.0)
    assert (live.step, live.steps, live.state) == (40, 100, "training")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"launch": "a"}', '{"no": 1}'])
def test_a_file_that_is_no_progress_is_as_none(tmp_path: Path, content: str) -> None:
    assert Live.read(tmp_path) is None
    (tmp_path / "progress.json").write_text(content)
    assert Live.read(tmp_path) is None
