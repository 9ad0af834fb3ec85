"""The errors that a person reads: one sentence, and an exit code that a script can act on.

0 done, 1 failed, 2 wrong usage or configuration, 3 the gate said no, 130 interrupted.
"""

from __future__ import annotations


class UserError(Exception):
    """Something the user can put right. The message names the thing, the place and the way out."""

    exit_code = 2


class StageFailed(Exception):
    """A stage ran and broke. The message says where the details are."""

    exit_code = 1


class GateRefused(Exception):
    """The candidate did not pass the gate; nothing was changed. The message lists the reasons."""

    exit_code = 3
