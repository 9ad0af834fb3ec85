"""`bayling plan`: what it says, from the command line and in JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from running import Recorder

from bayling import plan
from bayling.cli import main
from bayling.config import compose, options
from bayling.errors import UserError
from bayling.pipeline import Pipeline
from bayling.stage import Manifest

pytestmark = pytest.mark.unit

CLUSTER = ("recipe=bayling-7b", "scale=cluster")


@pytest.mark.parametrize("train", ["", "train=lora"])
@pytest.mark.parametrize("scale", [name for name in options("scale") if name != "laptop"])
@pytest.mark.parametrize("recipe", options("recipe"))
def test_every_recipe_plans_on_gpus_or_is_refused(recipe: str, scale: str, train: str) -> None:
    overrides = [f"recipe={recipe}", f"scale={scale}", *filter(None, [train])]
    try:
        made = plan.make(compose(overrides))
    except UserError as refused:
        assert "the ways out are" in str(refused)
        return
    assert sum(row.picked for row in made.rows) == 1
    picked = next(row for row in made.rows if row.picked)
    assert not picked.short
    assert made.runs[0].memory == picked.memory
    assert made.steps >= 1
    assert made.runs[0].hours


def test_the_quickstart_plans_on_a_cpu(tmp_path: Path) -> None:
    made = plan.make(compose(["recipe=quickstart", f"output_dir={tmp_path}"]))
    assert made.device == "CPU"
    # The recipe makes 2,037 steps of 2,077,434 tokens.
    assert made.steps == pytest.approx(2037, rel=0.1)
    assert made.tokens == pytest.approx(2_077_434, rel=0.1)
    assert made.runs[0].hours
    assert made.runs[0].price is None
    assert "assumption" in made.corpus.source


def test_a_corpus_that_is_there_is_counted(tmp_path: Path) -> None:
    config = compose(["recipe=smoke", f"output_dir={tmp_path}"])
    pipeline = Pipeline(config, Recorder())
    folder = pipeline.folder("data")
    folder.mkdir(parents=True)
    counts = {"conversations": 590, "sequences": 100, "tokens": 25_000, "supervised_tokens": 6_400}
    Manifest("data", pipeline.fingerprints["data"], {}, {}, counts=counts).write(folder)
    corpus = plan.make(config).corpus
    assert corpus.counted
    assert (corpus.conversations, corpus.sequences, corpus.tokens) == (590, 100, 25_000)
    assert corpus.supervised == 6_400 / (100 * 256)
    # Other data have another fingerprint, and are not there.
    other = compose(["recipe=smoke", f"output_dir={tmp_path}", "data.conversations=700"])
    assert not plan.make(other).corpus.counted


def test_hours_and_price_follow_from_operations() -> None:
    [full, fewer] = plan.make(compose([*CLUSTER, "scale.price_per_gpu_hour=2"])).runs
    assert full.gpu_hours == pytest.approx(fewer.gpu_hours)
    assert (full.workers, fewer.workers) == (8, 4)
    assert full.hours == pytest.approx(fewer.hours / 2)
    assert full.price == pytest.approx(2 * full.gpu_hours)
    made = plan.make(compose(list(CLUSTER)))
    flops = made.tokens * made.flops_per_token
    assert made.runs[0].hours == pytest.approx(flops / (8 * 989e12 * 0.4) / 3600)
    # PaLM, appendix B: 6 a parameter, and attention.
    assert made.flops_per_token == 6 * made.parameters + 12 * 32 * 4096 * 2048


def test_frozen_weights_save_a_third_of_the_operations() -> None:
    full, lora = (
        plan.make(compose([*CLUSTER, *more])).flops_per_token for more in ((), ("train=lora",))
    )
    assert 0.66 < lora / full < 0.75


def test_pods_ask_for_what_the_workers_of_a_node_take() -> None:
    made = plan.make(compose([*CLUSTER, "scale.workers=16", "scale.min_workers=null"]))
    head, worker = made.runs[0].pods
    assert (head.count, head.gpu) == (1, 0)
    assert (worker.count, worker.gpu, worker.cpu) == (2, 8, 33)
    # Nothing is offloaded, and weights are read to the GPUs: processes, Ray and shared memory.
    assert worker.shared_memory >= 2**30
    assert worker.shared_memory < worker.memory < 8 * 4 * made.parameters


def test_disk_holds_all_checkpoints_that_are_kept() -> None:
    made = plan.make(compose(list(CLUSTER)))
    assert made.checkpoint_bytes == 12 * made.parameters  # in fp32, with two moments
    assert made.checkpoints == 2 + 1 + 1
    assert made.export_bytes == 2 * made.parameters
    assert made.disk_bytes == 4 * made.checkpoint_bytes + made.export_bytes


def test_a_checkpoint_of_adapters_holds_adapters_alone() -> None:
    made = plan.make(compose([*CLUSTER, "train=lora"]))
    assert made.checkpoint_bytes == 12 * made.trainable < 2 * made.parameters


def test_the_command_writes_all_figures(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["plan", *CLUSTER, "--json", str(tmp_path / "plan.json")]) == 0
    shown = capsys.readouterr().out
    for text in ("6,738,415,616", "ZeRO-3", "picked", "short", "nvidia.com/gpu", "H100-80GB"):
        assert text in shown
    written = json.loads((tmp_path / "plan.json").read_text())
    assert written["parameters"] == 6_738_415_616
    assert written["layout"]["zero_stage"] == 2
    assert [run["workers"] for run in written["runs"]] == [8, 4]
    assert {"weights", "gradients", "optimizer", "activations"} <= set(written["runs"][0]["memory"])
    assert {"steps", "tokens", "disk_bytes", "notes", "rows", "corpus"} <= set(written)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["scale=gpu", "scale.gpu=H100"], "did you mean H100-80GB?"),
        (["scale=gpu", "train.micro_batch=900"], "must lie between 1 and"),
        (["recipe=bayling-13b", "scale=gpu"], "the ways out are"),
        (["train=lora", "train.lora.targets=[qproj]"], "which is no linear layer"),
        (["--json", "/nowhere/plan.json", *CLUSTER], "cannot write"),
    ],
)
def test_bad_input_is_one_sentence(
    capsys: pytest.CaptureFixture[str], overrides: list[str], sentence: str
) -> None:
    assert main(["plan", *overrides]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("bayling: ")
    assert sentence in said
    assert len(said.splitlines()) == 1
