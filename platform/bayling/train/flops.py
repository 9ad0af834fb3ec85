"""Floating-point operations: what training a token takes, and what the device could do.

MFU is the first over the second, as PaLM (arXiv 2204.02311, appendix B) counts it: forward
and backward passes of the matrix products, nothing for recomputation.
"""

from __future__ import annotations

import time

import torch

# Dense bf16 peaks from the makers' data sheets, TFLOP/s.
_GPU_PEAKS = {
    "H200": 989.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "A10": 125.0,
    "V100": 125.0,
}


def per_token(parameters: int, layers: int, hidden: int, sequence_length: int) -> float:
    """Operations to train one token: 6 a parameter, 12·layers·hidden a position attended to."""
    return 6.0 * parameters + 12.0 * layers * hidden * sequence_length


def peak(device: torch.device, dtype: torch.dtype) -> float:
    """What one worker's device can do at most, in FLOP/s.

    A GPU's is read from its data sheet; 0 for one that is not listed. A CPU's is measured: the
    fastest of a few large matrix products in `dtype` with this process's threads.
    """
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        return next((value for key, value in _GPU_PEAKS.items() if key in name), 0.0) * 1e12
    size = 1024
    left, right = torch.randn(2, size, size).to(dtype)
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - started)
    return 2.0 * size**3 / best
