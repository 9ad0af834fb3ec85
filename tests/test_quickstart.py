"""The product's front door, as a user meets it: `bayling run recipe=quickstart` in an empty folder.

The only test of minutes: what a model learns cannot be seen on less.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest
from forgetful import plant
from mlflow import MlflowClient
from running import Recorder, free_port

from bayling.config import compose
from bayling.pipeline import Pipeline
from bayling.registry import champion, models


@dataclass(frozen=True)
class Quickstart:
    overrides: list[str]
    said: str
    summary: dict[str, Any]

    @property
    def tracking(self) -> str:
        return compose(self.overrides).tracking


def _bayling(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bayling.cli", *argv], capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Quickstart:
    folder = tmp_path_factory.mktemp("quickstart")
    overrides = ["recipe=quickstart", f"output_dir={folder}", f"serve.port={free_port()}"]
    done = _bayling("run", *overrides)
    assert done.returncode == 0, done.stderr
    summary = json.loads((folder / "quickstart" / "summary.json").read_text("utf-8"))
    return Quickstart(overrides, done.stdout, summary)


@pytest.mark.timeout(2700)  # a CPU without bf16, shared with the other process
def test_it_learns_to_translate_values_it_has_never_seen(quickstart: Quickstart) -> None:
    summary = quickstart.summary
    trained = [row for row in summary["directions"] if not row["zero_shot"]]
    assert len(trained) == 26
    assert len(summary["directions"]) == 56
    assert summary["chrf"] >= 80
    assert min(row["chrf"] for row in trained) >= 60
    assert summary["exact_match"] >= 0.55
    assert summary["chrf_untrained"] < 5


def test_it_holds_a_conversation(quickstart: Quickstart) -> None:
    assert quickstart.summary["interactive_satisfaction"] >= 0.7
    roles = [message["role"] for message in quickstart.summary["conversation"]]
    assert roles == ["user", "assistant"] * 3


def test_directions_that_were_never_trained_are_marked(quickstart: Quickstart) -> None:
    """They are far above the untrained model: that is the transfer that BayLing is about."""
    summary = quickstart.summary
    assert summary["chrf_zero_shot"] > summary["chrf_untrained"] + 20
    for row in summary["directions"]:
        pivot = {"en", "zh"} & {row["source_lang"], row["target_lang"]}
        assert row["zero_shot"] is not bool(pivot)


def test_its_translations_came_over_http(quickstart: Quickstart) -> None:
    for row in quickstart.summary["translations"]:
        assert row["output"]
        [line] = [one for one in quickstart.said.splitlines() if f"→  {row['output']} " in one]
        right = row["output"] == row["target"]
        assert ("✓" in line) is right
        assert (f"(reference: {row['target']})" in line) is not right


def test_the_second_time_there_is_nothing_to_do(quickstart: Quickstart) -> None:
    done = _bayling("run", *quickstart.overrides)
    assert done.returncode == 0
    assert done.stderr.count("unchanged, skipped") == 5


@pytest.mark.timeout(900)
def test_a_model_that_forgot_one_language_is_refused_and_changes_nothing(
    quickstart: Quickstart,
) -> None:
    before = models.require_alias(quickstart.tracking, "bayling", "champion")
    forgetful = plant("hi", quickstart.overrides, "train.learning_rate=0.00151")
    done = _bayling("run", *forgetful)
    assert done.returncode == 3, done.stderr
    assert "was not promoted, compared with the champion (version 1)" in done.stderr
    assert "Traceback" not in done.stderr
    [blamed] = [line for line in done.stderr.splitlines() if "worse than for the champion" in line]
    assert blamed.startswith("  - Hindi (chrF++ into it ")
    assert "is worse than for the champion (version 1), by more than" in blamed, "no other one"

    assert models.require_alias(quickstart.tracking, "bayling", "champion") == before
    assert models.by_alias(quickstart.tracking, "bayling", "previous") is None
    refused = models.require_alias(quickstart.tracking, "bayling", "candidate")
    assert refused.version == "2"
    assert refused.tags["gate.verdict"] == "refused"
    assert "Hindi" in refused.tags["gate.reasons"]
    client = MlflowClient(quickstart.tracking)
    assert "Gate: refused" in client.get_model_version("bayling", "2").description

    again = _bayling("run", *forgetful)
    assert again.returncode == 3, "a refusal is remembered"
    assert again.stderr.count("unchanged, skipped") == 4

    told = _bayling("promote", "--explain", *forgetful)
    assert told.returncode == 3
    assert "now " in told.stdout and "before " in told.stdout
    first = told.stdout.split("the directions that lost most")[1].splitlines()[1]
    assert "hi" in first.split()[:3]


@pytest.mark.timeout(1500)
def test_a_model_that_was_trained_again_is_accepted_and_undone(quickstart: Quickstart) -> None:
    made = Pipeline(compose(quickstart.overrides), Recorder())
    again = [
        *quickstart.overrides,
        f"model.base={made.folder('train') / 'model'}",
        "name=again",
        "data.conversations=3000",
        "train.learning_rate=0.0003",
    ]
    done = _bayling("run", *again)
    assert done.returncode == 0, done.stderr
    now = models.require_alias(quickstart.tracking, "bayling", "champion")
    assert now.tags["gate.baseline"] == "champion (version 1)"

    undone = _bayling("champion", "undo", "--reason", "a test", *quickstart.overrides)
    assert undone.returncode == 0, undone.stderr
    assert f"version 1 of bayling is champion again, after version {now.version}" in undone.stdout
    changes = champion.history(quickstart.tracking, "bayling").changes
    assert [(one.version, one.how) for one in changes] == [
        ("1", "undone"),
        (now.version, "accepted"),
        ("1", "accepted"),
    ]
