"""What runs in each of vLLM's processes when it starts.

vLLM loads it as a plugin (`vllm.general_plugins` in pyproject.toml).
"""

from __future__ import annotations

import ctypes
import os
import signal

OWNER = "BAYLING_VLLM_OWNER"
"""The environment variable with the process that an engine was started in."""
_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Have this process killed when the one that started it is gone.

    Otherwise vLLM's processes outlive a replica that is killed, and keep its GPU's memory. Does
    nothing in processes that the platform's engine has not started.
    """
    owner = os.environ.get(OWNER)
    if owner is None or owner == str(os.getpid()):
        return
    parent = os.getppid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent or parent == 1:  # it was gone before
        os.kill(os.getpid(), signal.SIGKILL)
