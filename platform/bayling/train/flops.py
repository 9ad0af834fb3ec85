"""Floating-point operations: what training a token takes, and what the device could do.

MFU is the first over the second, as PaLM (arXiv 2204.02311, appendix B) counts it: forward and
backward passes of the matrix products, nothing for recomputation. By the same convention a token
attends to all positions of its sequence, although a causal mask hides half of them and a packed
sequence's conversations do not see each other: the same as in other papers' figures.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bayling import accelerators

if TYPE_CHECKING:
    import torch


def per_token(
    parameters: int, layers: int, hidden: int, sequence_length: int, frozen: int = 0
) -> float:
    """Operations to train one token.

    6 a parameter: 2 forward, 2 for the gradient of its input and 2 for its own. A frozen one has
    no gradient of its own: 4. And 12 · layers · hidden a position attended to, `hidden` being the
    width of all query heads: grouped-query attention has fewer keys but as many products.

    Args:
        parameters: all, without an embedding that is only looked up if wanted (PaLM counts it).
        frozen: how many of them are not trained.
    """
    products = 6.0 * (parameters - frozen) + 4.0 * frozen
    return products + 12.0 * layers * hidden * sequence_length


def peak(device: torch.device, dtype: torch.dtype) -> float:
    """What one worker's device can do at most, in FLOP/s.

    A GPU's is read from its data sheet (bayling.accelerators), for half precision; 0 for one that
    is not listed. A CPU's is measured: the fastest of a few large matrix products in `dtype` with
    this process's threads.
    """
    import torch

    if device.type == "cuda":
        gpu = accelerators.of_device(torch.cuda.get_device_name(device))
        return gpu.bf16_tflops * 1e12 if gpu else 0.0
    size = 1024
    left, right = torch.randn(2, size, size).to(dtype)
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - started)
    return 2.0 * size**3 / best
