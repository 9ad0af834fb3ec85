"""Which precision `train.precision=auto` stands for."""

from __future__ import annotations

from dataclasses import replace

from bayling import accelerators
from bayling.scale import Device, ScaleConfig
from bayling.train.config import Precision, TrainConfig


def settled(train: TrainConfig, scale: ScaleConfig) -> TrainConfig:
    """The configuration with a precision in place of `auto`.

    To be asked once a run, by the driver: all workers must compute alike.

    On a GPU bf16, or fp16 where `scale.gpu` names one without bf16; on a CPU bf16 where it has
    instructions for it, else fp32, which is then several times as fast.
    """
    if train.precision is not Precision.auto:
        return train
    if scale.device is Device.cuda:
        has_bf16 = scale.gpu is None or accelerators.spec(scale.gpu).bf16
        return replace(train, precision=Precision.bf16 if has_bf16 else Precision.fp16)
    has_bf16 = accelerators.cpu_multiplies_bf16()
    return replace(train, precision=Precision.bf16 if has_bf16 else Precision.fp32)
