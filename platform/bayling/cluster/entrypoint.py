"""A stage as the command of a job, and that command in the shells on its way."""

from __future__ import annotations

import re
import shlex
import subprocess

from bayling.errors import UserError

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
    """What is run where the package is installed."""
    return ["python", "-m", "bayling.cli", COMMANDS[stage], *overrides]


def through_two_shells(arguments: list[str]) -> str:
    """The entrypoint of a RayJob that ends as these arguments.

    KubeRay puts it into a script of bash, which splits it for `ray job submit`; that joins what it
    gets with `list2cmdline`, whose quoting is Windows', and Ray hands the text to a shell. So
    there is one quoting for bash around another, of backslashes only, for the second shell.

    Raises:
        UserError: an argument that cannot be brought through.
    """
    text = " ".join(shlex.quote(part) for part in _joined(arguments).split(" "))
    arrived = shlex.split(subprocess.list2cmdline(shlex.split(text)))
    # `shlex` keeps a line break after a backslash, shells drop it.
    if arrived != arguments or "\n" in text:
        lost = next((one for one in arguments if "\n" in one or one not in arrived), "")
        raise UserError(
            f"{lost!r} cannot be handed to a job on Kubernetes as it is: put the value into a "
            "file of conf/ in the image, or leave out line breaks and backslashes"
        )
    return text


def _joined(arguments: list[str]) -> str:
    """For the second shell. Double quotes are what `list2cmdline` escapes itself."""
    return " ".join(
        re.sub(r'([^\w@%+=:,./"-])', r"\\\1", argument) if argument else "''"
        for argument in arguments
    )
