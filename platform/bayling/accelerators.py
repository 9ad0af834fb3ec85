"""What devices can do.

GPUs by name: how much they hold and how fast they multiply, from the makers' data sheets; and
whether this machine's CPU has instructions for bf16.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from bayling.errors import UserError


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU."""

    memory_gib: float
    """What a process can have of it: what the driver shows, not the round number of the sheet."""
    bf16_tflops: float
    """Dense matrix products in bf16; in fp16 where the device has no bf16."""
    bf16: bool = True
    """Whether it computes in bf16: those before Ampere do not."""


GPUS = {
    "B200": Gpu(178.4, 2250.0),
    "H200": Gpu(139.8, 989.0),
    "H100-80GB": Gpu(79.1, 989.0),
    "A100-80GB": Gpu(79.2, 312.0),
    "A100-40GB": Gpu(39.4, 312.0),
    "L40S": Gpu(44.4, 362.0),
    "A10": Gpu(22.0, 125.0),
    "L4": Gpu(22.0, 121.0),
    "T4": Gpu(14.6, 65.0, bf16=False),
    "V100-32GB": Gpu(31.7, 125.0, bf16=False),
    "RTX4090": Gpu(23.5, 165.2),
}


def spec(name: str) -> Gpu:
    """The GPU called `name`.

    Raises:
        UserError: there is none of that name; the message names those there are.
    """
    if name not in GPUS:
        begun = [key for key in GPUS if key.startswith(name.upper())]  # H100 → H100-80GB
        near = begun or difflib.get_close_matches(name.upper(), GPUS, n=1, cutoff=0.3)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise UserError(
            f"scale.gpu={name} is not known{hint}: it can be {', '.join(GPUS)}; add others in "
            "bayling/accelerators.py"
        )
    return GPUS[name]


def of_device(name: str) -> Gpu | None:
    """The GPU for what a driver calls it, such as `NVIDIA H100 80GB HBM3`; None when unlisted."""
    plain = name.upper().replace(" ", "").replace("-", "")
    matches = [key for key in GPUS if all(part in plain for part in key.upper().split("-"))]
    return GPUS[max(matches, key=len)] if matches else None


def cpu_multiplies_bf16() -> bool:
    """Whether this CPU has instructions for products in bf16.

    Those without take a multiple of the time that fp32 takes. False where torch is not installed.
    """
    try:
        from torch.cpu import get_capabilities
    except ImportError:
        return False
    there = get_capabilities()
    return any(there.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16"))
