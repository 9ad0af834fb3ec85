"""A stage as the command of a job."""

from __future__ import annotations

COMMANDS = {
    "data": "data",
    "train": "train",
    "evaluate": "evaluate",
    "promote": "promote",
    "pipeline": "run",
    "preflight": "preflight",
}
"""What can be submitted → the command that it is on a laptop."""
NEEDS_DEVICES = ("train", "evaluate", "pipeline", "preflight")
"""Those whose workers compute on GPUs, where the scale has them."""


def command(stage: str, overrides: list[str]) -> list[str]:
    """What is run where the package is installed: that of the entrypoint in jobs/."""
    return ["python", "-m", "bayling.cli", COMMANDS[stage], *overrides]
