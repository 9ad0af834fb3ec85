"""lm-eval's tasks in a process of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_tasks

from bayling.config import compose
from bayling.errors import UserError
from bayling.evaluate.suites.harness import Harness
from bayling.evaluate.systems import System
from bayling.evaluate.tasks import put_through
from bayling.stage import Context, TrackedRun


def test_what_the_process_refuses_is_said_in_one_sentence(
    ray_cluster: None, tmp_path: Path
) -> None:
    tasks = tiny_tasks.make_tasks(tmp_path)
    config = compose(["evaluate.harness.tasks=[chose]", f"evaluate.harness.include_path={tasks}"])
    context = Context(
        folder=tmp_path,
        inputs={},
        fingerprint="none",
        seed=1,
        scale=config.scale,
        tracked=TrackedRun("sqlite:///unused", "none", "none"),
        report=lambda what, done, of: None,
        note=lambda text: None,
    )
    system = System("model", "model", folder=tmp_path)
    with pytest.raises(UserError) as raised:
        put_through(Harness(config.evaluate), system, config.evaluate, context)
    assert str(raised.value).startswith("evaluate.harness.tasks: lm-eval ")
    assert "\n" not in str(raised.value)
