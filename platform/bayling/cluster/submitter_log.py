"""The log of the pod that submits: the stage's own lines, without those of `ray job` around them.

KubeRay's pod runs `ray job submit` and `ray job logs`. They say how to ask for what is being shown
here anyway, and after a failure they print the end of the log a second time.
"""

from __future__ import annotations

import re

COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_OF_RAY = re.compile(r"\S+ \S+\s+(INFO|SUCC|WARN|ERR) (cli|sdk|job_manager)\.py:\d+ -- ?(.*)")


class OwnLines:
    """Tells the lines of one submission apart, in their order."""

    def __init__(self) -> None:
        self._repeating = False

    def __contains__(self, line: str) -> bool:
        """Whether the line is the stage's, and comes for the first time."""
        found = _OF_RAY.match(COLOURS.sub("", line))
        if found is None:
            return not self._repeating
        if found[2] != "job_manager":  # whose line is part of the log, and of its repetition
            # A submission that is made anew after a lost connection begins with such lines, too.
            self._repeating = found[3].startswith("Status message: ")
        return False
