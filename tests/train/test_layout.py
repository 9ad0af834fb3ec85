from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from bayling.config import Config, compose, options
from bayling.errors import UserError
from bayling.scale import Device
from bayling.shape import Shape
from bayling.train.config import Offload
from bayling.train.layout import GIB, Layout, choose, notes, plan_memory, room_for

pytestmark = pytest.mark.unit

FREE = 24 * GIB


def layout_of(*overrides: str, workers: int | None = None, free: int = FREE) -> Layout:
    return _choose(compose(list(overrides)), workers, free)


def _choose(config: Config, workers: int | None = None, free: int = FREE) -> Layout:
    return choose(
        config.train,
        Shape.of(config.model),
        config.scale,
        config.data.sequence_length,
        workers or config.scale.workers,
        free=free,
    )


def refusal(*overrides: str, free: int = FREE) -> str:
    with pytest.raises(UserError) as refused:
        layout_of(*overrides, free=free)
    text = str(refused.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("train", ["", "train=lora"])
@pytest.mark.parametrize("scale", options("scale"))
@pytest.mark.parametrize("recipe", options("recipe"))
def test_every_recipe_fits_its_scale_or_is_refused_with_the_way_out(
    recipe: str, scale: str, train: str
) -> None:
    config = compose([f"recipe={recipe}", f"scale={scale}", *filter(None, [train])])
    fewest = config.scale.min_workers or config.scale.workers
    try:
        made = _choose(config)
    except UserError as refused:
        assert "the ways out are" in str(refused)
        assert "GiB" in str(refused)
        return
    for workers in range(fewest, config.scale.workers + 1):
        there = _choose(config, workers)
        assert there.placement == made.placement, "a checkpoint of another layout"
        memory = plan_memory(
            config.train,
            Shape.of(config.model),
            config.scale,
            there.placement,
            config.data.sequence_length,
            workers,
            there.micro_batch,
        )
        assert memory.total <= room_for(config.scale, workers, FREE).device
        assert there.micro_batch * there.micro_steps * workers >= config.train.global_batch


def test_the_quickstart_trains_without_zero_and_any_other_small_model_with_zero_2() -> None:
    made = layout_of("recipe=quickstart")
    assert (made.zero_stage, made.micro_batch, made.micro_steps) == (0, 4, 1)
    made = layout_of("recipe=quickstart", "train.zero_stage=null")
    assert (made.zero_stage, made.micro_batch, made.micro_steps) == (2, 4, 1)
    assert made.offload_optimizer is Offload.none


def test_what_is_set_is_kept() -> None:
    made = layout_of(
        "recipe=bayling-7b", "scale=cluster", "train.zero_stage=3", "train.micro_batch=2",
        "train.offload_optimizer=cpu", "train.offload_parameters=none",
    )  # fmt: skip
    assert (made.zero_stage, made.micro_batch, made.micro_steps) == (3, 2, 8)
    assert made.offload_optimizer is Offload.cpu
    assert made.offload_parameters is Offload.none
    assert not any("ZeRO" in reason for reason in made.reasons)


def test_it_goes_from_fast_to_small() -> None:
    at = ("recipe=bayling-7b", "scale=cluster", "scale.min_workers=8")
    gpus = ("B200", "H100-80GB", "A100-40GB", "A10")
    made = [layout_of(*at, f"scale.gpu={gpu}") for gpu in gpus]
    order = [
        (made.offload_parameters is not Offload.none, made.offload_optimizer is not Offload.none,
         made.zero_stage)
        for made in made
    ]  # fmt: skip
    assert order == sorted(order)
    assert order[0] == (False, False, 2)
    assert order[-1] > (False, False, 2)


def test_an_elastic_run_is_laid_out_for_the_fewest_workers() -> None:
    at = ("recipe=bayling-13b", "scale=cluster", "scale.workers=16")
    alone = layout_of(*at, "scale.min_workers=null")
    elastic = layout_of(*at, "scale.min_workers=4")
    assert alone.zero_stage == 2
    assert elastic.zero_stage == 3
    assert any("scale.min_workers" in reason for reason in elastic.reasons)


def test_micro_steps_are_all_of_a_size() -> None:
    config = compose(["recipe=bayling-2-8b", "scale=cluster"])
    for workers in range(4, 9):
        made = _choose(config, workers)
        share = -(-config.train.global_batch // workers)
        assert made.micro_batch == -(-share // made.micro_steps)


def test_a_cpu_is_planned_with_the_memory_that_is_free() -> None:
    said = refusal("recipe=bayling-7b", free=8 * GIB)
    assert "this machine's free memory" in said
    assert "scale=gpu" in said
    assert "train=lora" in said


def test_a_refusal_names_what_is_short_and_leaves_out_what_is_done() -> None:
    said = refusal("recipe=bayling-13b", "scale=gpu", "train.offload_optimizer=none")
    assert "on a H100-80GB" in said
    for way in ("scale.workers", "scale.gpu", "train=lora", "data.sequence_length"):
        assert way in said
    assert "gradient_checkpointing" not in said, "the recipe has it"
    said = refusal("recipe=bayling-13b", "scale=gpu", "scale.node_memory_gb=350")
    assert "main memory" in said
    assert "nvme" in said


def test_an_impossible_micro_batch_is_refused() -> None:
    said = refusal("recipe=bayling-7b", "scale=gpu", "train.micro_batch=128")
    assert "a smaller train.micro_batch than 128" in said


def test_a_gpu_without_bf16_is_told_to_use_fp16() -> None:
    assert "set train.precision=fp16" in refusal(
        "scale=gpu", "scale.gpu=T4", "train.precision=bf16"
    )
    assert layout_of("scale=gpu", "scale.gpu=T4", "train.precision=fp16").micro_batch == 8


def test_options_without_effect_are_named() -> None:
    config = compose(["recipe=bayling-7b"])
    train = replace(config.train, offload_optimizer=Offload.cpu, liger=True)
    said = "\n".join(notes(train, config.scale))
    for key in ("train.liger", "train.offload_optimizer=cpu"):
        assert f"{key} has no effect" in said
    gpu = replace(config.scale, device=Device.cuda, gpu="H100-80GB", workers=8)
    assert notes(train, gpu) == []
    assert "one worker" in notes(replace(train, zero_stage=3), replace(gpu, workers=1))[0]
    [said_of_best] = notes(replace(train, checkpoint_every=60, heldout_every=100), gpu)
    assert "train.keep_best looks at the checkpoints of every 300 steps only" in said_of_best


def test_it_needs_none_of_the_heavy_packages() -> None:
    code = (
        "import sys, bayling.train.layout, bayling.plan\n"
        "print(*[n for n in ('torch', 'deepspeed', 'ray', 'numpy') if n in sys.modules])"
    )
    answered = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not answered.stdout.split()
