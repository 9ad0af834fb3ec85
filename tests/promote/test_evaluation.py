from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from judged import of_all, scores, translations

from bayling.errors import UserError
from bayling.promote.evaluation import Evaluation

pytestmark = pytest.mark.unit


def read(folder: Path, raw: Any) -> Evaluation:
    path = folder / "scores.json"
    path.write_text(raw if isinstance(raw, str) else json.dumps(raw), "utf-8")
    return Evaluation.read(path)


def test_the_baseline_has_a_name(tmp_path: Path) -> None:
    assert read(tmp_path, scores(None, heldout=translations())).baseline == "untrained model"
    assert read(tmp_path, scores("7", heldout=translations())).baseline == "champion (version 7)"


def test_scores_of_an_earlier_release_are_refused_with_the_way_out(tmp_path: Path) -> None:
    old = {"digest": "d", "trained": {"overall": {"chrf": 60}}, "untrained": {}}
    with pytest.raises(UserError, match="earlier release") as refused:
        read(tmp_path, old)
    assert f"remove {tmp_path} and run `bayling evaluate` again" in str(refused.value)


def test_a_broken_file_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"scores\.json cannot be read"):
        read(tmp_path, "{")


def test_a_suite_that_only_the_candidate_was_asked_is_no_comparison(tmp_path: Path) -> None:
    raw = scores("3", heldout=translations(), knowledge=of_all("accuracy", (0.3, 0.3)))
    del raw["comparison"]["knowledge"]
    with pytest.raises(UserError, match="no comparison of knowledge with the champion"):
        read(tmp_path, raw)


def test_a_champion_without_a_version_is_refused(tmp_path: Path) -> None:
    raw = {**scores("3", heldout=translations()), "champion_version": None}
    with pytest.raises(UserError, match="does not say which champion"):
        read(tmp_path, raw)


def test_a_comparison_with_whatever_was_named_is_none_with_the_champion(tmp_path: Path) -> None:
    raw = {**scores(None, heldout=translations()), "baseline": "baseline"}
    with pytest.raises(UserError, match=r"evaluate without evaluate\.against"):
        read(tmp_path, raw)
