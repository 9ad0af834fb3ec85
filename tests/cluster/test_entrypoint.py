"""A stage's command through KubeRay's script, `ray job submit` and Ray's own shell."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from bayling.cluster.entrypoint import COMMANDS, through_two_shells
from bayling.errors import UserError

pytestmark = pytest.mark.unit

_SAY = "import json, sys; print(json.dumps(sys.argv[1:]))"


def _arrives(entrypoint: str) -> list[str]:
    """What the program gets: through real shells, and the join of Ray's command line."""
    script = f'exec "{sys.executable}" -c "{_SAY}" {entrypoint}'
    first = subprocess.run(["bash", "-ce", script], capture_output=True, text=True, check=True)
    joined = subprocess.list2cmdline([sys.executable, "-c", _SAY, *json.loads(first.stdout)])
    second = subprocess.run(joined, shell=True, capture_output=True, text=True, check=True)
    return list(json.loads(second.stdout))


def test_overrides_arrive_as_they_were_written() -> None:
    arguments = [
        "recipe=quickstart",
        "data.languages=[en,zh,de]",
        "train.learning_rate=1e-3",
        "model.source='/mnt/a b/c'",
        'name="x"',
        "k=$HOME; rm *",
        "k=`id` && ~/x #!",
        "k={a: 'b  c'}",
        "k=日本 ü",
        "k=",
        "",
    ]
    assert _arrives(through_two_shells(arguments)) == arguments


def test_plain_overrides_stay_readable() -> None:
    text = through_two_shells(["python", "-m", "bayling.cli", "train", "recipe=quickstart"])
    assert text == "python -m bayling.cli train recipe=quickstart"


@pytest.mark.parametrize("argument", ["k=a\nb", 'k=a\\"b', "k=a\tb"])
def test_what_would_arrive_as_something_else_is_refused(argument: str) -> None:
    with pytest.raises(UserError, match="cannot be handed"):
        through_two_shells(["x", argument])


def test_every_stage_but_serve_can_be_submitted() -> None:
    from bayling.cli import STAGE_HELP

    assert set(COMMANDS) == {*STAGE_HELP, "pipeline", "preflight"} - {"serve"}
