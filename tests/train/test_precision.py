"""What `train.precision=auto` stands for."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bayling import accelerators
from bayling.config import compose
from bayling.train.config import Precision
from bayling.train.layout import notes
from bayling.train.precision import settled

pytestmark = pytest.mark.unit


def precision(*overrides: str) -> Precision:
    config = compose(list(overrides))
    return settled(config.train, config.scale).precision


@pytest.mark.parametrize(("instructions", "expected"), [(True, "bf16"), (False, "fp32")])
def test_a_cpu_trains_in_what_it_multiplies_fastest(
    monkeypatch: pytest.MonkeyPatch, instructions: bool, expected: str
) -> None:
    monkeypatch.setattr(accelerators, "cpu_multiplies_bf16", lambda: instructions)
    assert precision().value == expected
    assert precision("train.precision=bf16") is Precision.bf16, "what is set is done"


def test_a_gpu_trains_in_half_precision() -> None:
    assert precision("scale=gpu") is Precision.bf16
    assert precision("scale=gpu", "scale.gpu=T4") is Precision.fp16
    assert precision("scale=gpu", "train.precision=fp32") is Precision.fp32


def test_what_this_cpu_has_instructions_for_is_what_the_kernel_says() -> None:
    with open("/proc/cpuinfo", encoding="ascii") as file:  # noqa: PTH123
        flags = next(line for line in file if line.startswith(("flags", "Features"))).split()
    there = bool({"amx_bf16", "avx512_bf16", "bf16"} & set(flags))
    assert accelerators.cpu_multiplies_bf16() is there


def test_it_says_so_where_one_would_not_expect_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def said(*overrides: str) -> str:
        config = compose(list(overrides))
        return " ".join(notes(config.train, config.scale))

    monkeypatch.setattr(accelerators, "cpu_multiplies_bf16", lambda: False)
    assert "training in fp32: this CPU has no instructions for bf16" in said()
    assert "train.precision=auto takes the faster one" in said("train.precision=bf16")
    monkeypatch.setattr(accelerators, "cpu_multiplies_bf16", lambda: True)
    assert "bf16" not in said() + said("train.precision=bf16")


def test_asking_needs_no_torch_in_a_base_install() -> None:
    code = "import sys, bayling.train.precision; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
