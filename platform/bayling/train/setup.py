"""A DeepSpeed engine around the network: from our configuration to DeepSpeed's.

Imports without Ray, so that benchmarks can run the trainer's own step.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

from bayling.scale import Device
from bayling.train import network, ops
from bayling.train.config import Offload, Precision, TrainConfig
from bayling.train.layout import Layout

DTYPES = {
    Precision.bf16: torch.bfloat16,
    Precision.fp16: torch.float16,
    Precision.fp32: torch.float32,
}


ALLOCATOR = "PYTORCH_ALLOC_CONF"


def environment(device: Device) -> dict[str, str]:
    """Variables that must be set before a worker touches its device."""
    if device is Device.cpu:
        return {}
    # Blocks of fixed size leave holes: on an H200 a fifth of what training had taken, so that a
    # step that would have fitted did not.
    return {ALLOCATOR: os.environ.get(ALLOCATOR, "expandable_segments:True")}


def prepare_process(device: Device, threads: int) -> None:
    """Settings that must be in place before DeepSpeed is imported."""
    transformers.utils.logging.disable_progress_bar()
    if device is Device.cpu:
        os.environ["DS_ACCELERATOR"] = "cpu"
        # Importing DeepSpeed compiles an optimizer that is not used here: seconds a worker.
        os.environ["TORCHDYNAMO_DISABLE"] = "1"
        # More threads than this worker's cores make OpenMP spin against the other workers.
        torch.set_num_threads(threads)


def deepspeed_config(train: TrainConfig, layout: Layout, device: Device) -> dict[str, Any]:
    """DeepSpeed's configuration for this layout; the global batch stays the same."""
    zero: dict[str, Any] = {"stage": layout.zero_stage}
    if device is Device.cpu:
        # There is no second stream to overlap with, and over gloo one all-reduce is faster than
        # a reduction to each owner: by about 5 % of a step of the quickstart's.
        zero |= {"overlap_comm": False, "reduce_scatter": False}
    for key, where in (
        ("offload_optimizer", layout.offload_optimizer),
        ("offload_param", layout.offload_parameters),
    ):
        if where is not Offload.none:
            zero[key] = {"device": where.value, "pin_memory": device is Device.cuda}
            if where is Offload.nvme:
                zero[key]["nvme_path"] = train.nvme_path
    result = {
        "train_micro_batch_size_per_gpu": layout.micro_batch,
        "gradient_accumulation_steps": layout.micro_steps,
        "gradient_clipping": train.clip,
        "bf16": {"enabled": train.precision is Precision.bf16},
        "fp16": {"enabled": train.precision is Precision.fp16},
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 1_000_000_000,
        "wall_clock_breakdown": False,
    }
    if layout.micro_steps > 1 and layout.zero_stage >= 2:
        # A sum of many bf16 gradients in bf16 loses the small ones.
        result["data_types"] = {"grad_accum_dtype": "fp32"}
    return result


def optimizer(train: TrainConfig, model: torch.nn.Module, layout: Layout) -> torch.optim.Optimizer:
    """AdamW over the trained parameters; its learning rate is set before each step."""
    groups = network.parameter_groups(model, train.weight_decay)
    # A rate of 0 until then: some of DeepSpeed's wrappers take a step to make the state.
    betas = (train.beta1, train.beta2)
    if layout.offload_optimizer is not Offload.none:
        from deepspeed.ops.adam import DeepSpeedCPUAdam

        made: torch.optim.Optimizer = DeepSpeedCPUAdam(groups, lr=0.0, betas=betas)
        return made
    # Fused: one pass over the state instead of ten, on a CPU too.
    return torch.optim.AdamW(groups, lr=0.0, betas=betas, fused=True)


def engine(train: TrainConfig, module: network.PackedLoss, layout: Layout, device: Device) -> Any:
    """A DeepSpeed engine, ready for its first step. Every worker must call it."""
    import deepspeed

    model: PreTrainedModel = module.model
    if train.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    ops.build(layout)
    buffers = network.exact_buffers(model)
    made, *_ = deepspeed.initialize(
        model=module,
        optimizer=optimizer(train, model, layout),
        config=deepspeed_config(train, layout, device),
    )
    network.restore_buffers(model, buffers)
    if layout.zero_stage == 3:
        # The loss takes the head's weights in slices, not by calling the head: workers may have
        # different numbers of slices, and under ZeRO-3 every call is a collective.
        deepspeed.zero.register_external_parameter(module, module.head)
    return made
