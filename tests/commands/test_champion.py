"""`bayling champion`, through a real MLflow store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rollout_place import make_store

from bayling.cli import main
from bayling.registry import champion, models
from bayling.registry.champion import How

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def uri(tmp_path: Path) -> str:
    """A store in which version 2 became champion after version 1, which somebody had set."""
    uri = f"sqlite:///{make_store(tmp_path)}"
    two = models.by_version(uri, "bayling", "2")
    models.move_alias(two, models.CANDIDATE, uri)
    champion.promote(uri, two, "1", How.overridden, "Arabic is not served", "refused")
    return uri


@pytest.fixture
def command(
    uri: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Command:
    """Runs `bayling champion …`; returns the exit code and what was said."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: str) -> tuple[int, str, str]:
        code = main(["champion", *words, f"tracking_uri={uri}"])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_history_and_undo(command: Command, tmp_path: Path) -> None:
    code, out, _ = command("undo", "--reason", "Hindi reads badly")
    assert code == 0
    assert "version 1 of bayling is champion again, after version 2" in out
    assert "bayling rollout status" in out

    code, out, _ = command("history", "--json", str(tmp_path / "history.json"))
    assert code == 0
    assert out.index("undone") < out.index("overridden") < out.index("elsewhere")
    assert "Hindi reads badly" in out and "Arabic is not served" in out
    assert "#/models/bayling/versions/1" in out
    written = json.loads((tmp_path / "history.json").read_text())
    assert (written["champion"], written["previous"]) == ("1", "2")
    assert [change["how"] for change in written["changes"]] == ["undone", "overridden", "elsewhere"]
    assert written["changes"][1]["verdict"] == "refused"
    assert written["changes"][0]["time"].startswith("20")


def test_what_is_wrong_is_one_sentence(command: Command) -> None:
    code, _, err = command("undo", "registered_model=other")
    assert code == 2
    assert "no registered model 'other'" in err and len(err.strip().splitlines()) == 1
