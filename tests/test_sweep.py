"""Several configurations below one MLflow parent, side by side."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient
from running import Finished, Recorder
from transformers import AutoModelForCausalLM

from bayling import sweep
from bayling.config import combinations, compose
from bayling.errors import UserError
from bayling.pipeline import Pipeline
from bayling.stage import Manifest


@pytest.mark.timeout(300)
def test_one_that_does_not_work_costs_the_others_nothing(ray_cluster: None, tmp_path: Path) -> None:
    common = ["recipe=smoke", f"output_dir={tmp_path}", "train.steps=2"]
    chosen = combinations([*common, "scale.workers=1,9", "train.learning_rate=1e-3,2e-3"])
    configs = [(" ".join(one[3:]), compose(one)) for one in chosen]
    recorders = {overrides: Recorder() for overrides, _ in configs}
    Pipeline(configs[0][1], Recorder()).run_stage("data")
    results = sweep.run(
        configs,
        lambda overrides: recorders[overrides],
        lambda pipeline, parent: pipeline.run_stage("train", parent),
        at_once=2,
    )
    assert [overrides for overrides, _ in results] == [overrides for overrides, _ in configs]
    # Some CPUs cannot train in bf16, and that is said, too.
    said = [note for note in recorders[configs[0][0]].notes if "bf16" not in note]
    assert len(said) == 2
    assert said[0].startswith(f"{configs[2][0]} is the same run as {configs[0][0]}: ")
    for overrides, result in results:
        if "scale.workers=9" in overrides and not isinstance(result, Manifest):
            # With the same learning rate the other combination has made this very model, or makes
            # it: the number of workers does not decide what comes out.
            assert isinstance(result, UserError)
            assert "the Ray cluster has 4" in str(result)
        else:
            assert isinstance(result, Manifest)
            assert result.counts["steps"] == 2
    client = MlflowClient(configs[0][1].tracking)
    experiment = client.get_experiment_by_name("bayling").experiment_id
    [parent] = client.search_runs([experiment], "tags.`bayling.stage` = 'sweep'")
    assert parent.info.status == "FINISHED"
    below = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}' and attributes.status = 'FINISHED'"
    assert len(client.search_runs([experiment], below)) == 2


def test_the_model_of_an_earlier_checkpoint(smoke: Finished, tmp_path: Path) -> None:
    pipeline, _ = smoke.pipeline()
    assert pipeline.export(6, tmp_path / "early") == 6
    assert pipeline.export(None, tmp_path / "last") == 12
    early = AutoModelForCausalLM.from_pretrained(tmp_path / "early").state_dict()
    last = AutoModelForCausalLM.from_pretrained(tmp_path / "last").state_dict()
    made = AutoModelForCausalLM.from_pretrained(smoke.folder("train") / "model").state_dict()
    assert all(tensor.equal(made[name]) for name, tensor in last.items())
    assert any(not tensor.equal(made[name]) for name, tensor in early.items())
    with pytest.raises(UserError, match="there is no checkpoint of step 7: it can be 6, 12"):
        pipeline.export(7, tmp_path / "none")
    with pytest.raises(UserError, match="is there already"):
        pipeline.export(6, tmp_path / "early")
