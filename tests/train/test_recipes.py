"""Every BayLing recipe on a shrunken model of its kind: trained, resumed, exported, served."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
import scenes
import shrunken
import torch
from disturbed import Training
from gang import play
from peft import PeftModel
from running import Recorder
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from bayling.config import Config, compose, options
from bayling.engines.options import EngineOptions
from bayling.engines.transformers import TransformersEngine
from bayling.model_folder import load_chat
from bayling.pipeline import Pipeline
from bayling.stage import jsonable
from bayling.train import export
from bayling.train.checkpoint import Checkpoint, complete

RECIPES = [name for name in options("recipe") if name.startswith("bayling")]
VARIANTS = [(name, train) for name in RECIPES for train in ("", "lora")]


def overrides(recipe: str, train: str, base: Path, out: Path) -> list[str]:
    """The recipe itself but for the base, fewer data, and two steps, in bf16 where the CPU can."""
    return [
        f"recipe={recipe}",
        *([f"train={train}"] if train else []),
        f"output_dir={out}",
        f"model.base={base}",
        "name=dry-run",
        "data.languages=[en,zh,de]",
        "data.conversations=120",
        "data.partition_size=120",
        "data.heldout_per_direction=2",
        "data.heldout_interactive=2",
        "data.sequence_length=1024",
        "evaluate.max_new_tokens=16",
        "train.global_batch=4",
        "train.zero_stage=3",  # the stage that reads a base in parts
        # bf16 on a CPU without instructions for it takes minutes.
        "train.precision=auto",
        "train.steps=2",
        "train.checkpoint_every=1",
        "train.log_every=1",
    ]


def test_all_five_are_there() -> None:
    assert RECIPES == ["bayling-13b", "bayling-2-13b", "bayling-2-7b", "bayling-2-8b", "bayling-7b"]


def test_dry_runs(ray_cluster: None, tmp_path: Path) -> None:
    """Two steps from a sharded folder, saved, resumed, exported, served with equal logits."""
    configs: dict[tuple[str, str], Config] = {}
    data: dict[str, Path] = {}
    cast = []
    for recipe, train in VARIANTS:
        place = tmp_path / f"{recipe}-{train}"
        base = shrunken.make(compose([f"recipe={recipe}"]), place)
        config = compose(overrides(recipe, train, base, place))
        configs[recipe, train] = config
        template = config.model.template.value
        if template not in data:  # its tokens depend on the template and the tokenizer alone
            pipeline = Pipeline(config, Recorder())
            pipeline.run_stage("data")
            data[template] = pipeline.folder("data")
            (data[template] / "heldout" / "packed").rename(data[template] / "heldout-packed")
        arguments = {"config": config.train, "model": config.model, "folder": data[template]}
        saves = {1: place / "first", 2: place / "last"}
        cast.append((scenes.train, {**arguments, "steps": 2, "save": saves}))
        cast.append((scenes.train, {**arguments, "steps": 2, "resume": place / "first"}))
    results = play(2, cast)
    for index, ((recipe, train), config) in enumerate(configs.items()):
        through, resumed = results[2 * index], results[2 * index + 1]
        np.testing.assert_equal(resumed["weights"], through["weights"], recipe)
        assert resumed["losses"][2] == through["losses"][2]
        place = tmp_path / f"{recipe}-{train}"
        [checkpoint] = complete(place / "last")
        folder = place / "model"
        origin = export.Origin(
            config.model, config.data.languages, {}, jsonable(config.train), "data", "run", 2
        )
        assert config.model.base is not None
        source = export.Trained(checkpoint, Path(config.model.base), config.train.lora)
        template = config.model.template.value
        export.write(folder, source, load_chat(data[template] / "tokenizer", template), origin)
        _check_served(folder, config, checkpoint)


def _check_served(folder: Path, config: Config, checkpoint: Checkpoint) -> None:
    """The engine's log-probabilities are those of the weights that training held."""
    assert config.model.base is not None
    network: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        config.model.base, dtype=torch.bfloat16
    )
    if config.train.lora.rank:
        adapter = folder.with_name("adapter")
        origin = export.Origin(config.model, [], {}, {}, "data", "run", 2)
        export.write_adapter(adapter, checkpoint, config.train.lora, origin)
        network = PeftModel.from_pretrained(network, adapter).merge_and_unload()
    else:
        trained = {name: checkpoint.weight(name) for name in checkpoint.progress.shapes}
        network.load_state_dict({name: weight.bfloat16() for name, weight in trained.items()})
    ids = list(range(5, 45))
    with torch.no_grad():
        logits = network.eval()(torch.tensor([ids])).logits[0, :-1].float()
    expected = logits.log_softmax(-1).gather(1, torch.tensor(ids)[1:, None])[:, 0]
    engine = TransformersEngine(folder, EngineOptions(dtype="bfloat16"))
    try:
        scores = asyncio.run(engine.score("scored", ids))
    finally:
        engine.close()
    scored = torch.tensor([score.logprob for score in scores])
    # peft merges in half precision, the export in single.
    tolerance = 0.02 if config.train.lora.rank else 1e-6
    torch.testing.assert_close(scored, expected, atol=tolerance, rtol=0)


@pytest.mark.timeout(300)
def test_the_whole_stage_with_adapters(ray_cluster: None, tmp_path: Path) -> None:
    """What the command makes: a merged model and the adapters alone, logged and described."""
    base = shrunken.make(compose(["recipe=bayling-2-8b"]), tmp_path)
    chosen = overrides("bayling-2-8b", "lora", base, tmp_path / "out")
    Pipeline(compose(chosen), Recorder()).run_stage("data")
    training = Training(chosen).start().finish()
    assert list(training.curve()) == [1, 2]
    assert training.manifest is not None
    assert training.manifest.outputs["adapter"] == "adapter"
    frozen = load_file(training.folder / "model" / "model.safetensors")
    before = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).state_dict()
    assert torch.equal(frozen["lm_head.weight"], before["lm_head.weight"])
    changed = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(frozen[changed], before[changed])
    names = load_file(training.folder / "adapter" / "adapter_model.safetensors")
    assert all("lora_" in name for name in names)
    card = (training.folder / "model" / "README.md").read_text("utf-8")
    assert "Built with Meta Llama 3" in card
    assert "base_model: meta-llama/Meta-Llama-3-8B-Instruct" in card
    assert "llama-3-bayling-2-8b" in card
