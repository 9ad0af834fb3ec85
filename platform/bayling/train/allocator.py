"""What a CPU worker's C library does with memory that was freed.

glibc takes large blocks from the system one by one (mmap) and gives them back when they are
freed – but each freed block raises the size from which it does so, up to 32 MiB (mallopt(3),
M_MMAP_THRESHOLD). After the first step most activations come from the heap then, whose holes stay
with the process: a third more than all tensors at their worst moment. With the threshold fixed,
what a worker takes is what its tensors take.
"""

from __future__ import annotations

import ctypes

THRESHOLD = 2**20
"""Bytes. Small enough that what matters goes back, large enough that a small network's tensors
are not mapped, and their pages zeroed, anew in every step."""
_M_MMAP_THRESHOLD = -3
_M_TRIM_THRESHOLD = -1


def give_back(threshold: int = THRESHOLD) -> bool:
    """Give blocks of `threshold` bytes and more back when they are freed; False without glibc."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False  # macOS, musl: nothing of the kind
    return bool(mallopt(_M_MMAP_THRESHOLD, threshold) and mallopt(_M_TRIM_THRESHOLD, threshold))
