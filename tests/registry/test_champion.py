"""The story of a model's champions, in a real MLflow store."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from rollout_place import make_store

from bayling.errors import UserError
from bayling.registry import champion, models, runs
from bayling.registry.champion import How


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = make_store(tmp_path_factory.mktemp("store"))
    mlflow = runs.client(f"sqlite:///{store}")
    mlflow.delete_registered_model_alias("bayling", "champion")
    return store


@pytest.fixture
def uri(made: Path, tmp_path: Path) -> str:
    """A store with four versions, none of them champion."""
    shutil.copy(made, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def promote(uri: str, version: str, over: str | None, how: How = How.accepted) -> None:
    one = models.by_version(uri, "bayling", version)
    models.move_alias(one, models.CANDIDATE, uri)
    champion.promote(uri, one, over, how, f"reason of {version}", "accepted")


def aliases(uri: str) -> dict[str, str]:
    found = runs.client(uri).get_registered_model("bayling").aliases
    return {alias: str(version) for alias, version in found.items()}


def story(uri: str) -> list[tuple[str, str | None, str]]:
    found = champion.history(uri, "bayling").changes
    return [(change.version, change.before, change.how.value) for change in found]


def test_every_change_is_kept_the_newest_first(uri: str) -> None:
    assert story(uri) == []
    promote(uri, "1", None)
    promote(uri, "2", "1", How.overridden)
    assert aliases(uri) == {"champion": "2", "previous": "1"}
    assert story(uri) == [("2", "1", "overridden"), ("1", None, "accepted")]
    newest = champion.history(uri, "bayling").changes[0]
    assert newest.reason == "reason of 2"
    assert newest.verdict == "accepted"
    assert "@" in newest.who
    assert newest.as_dict()["time"].endswith("Z")


def test_undo_goes_back_and_undone_twice_all_is_as_it_was(uri: str) -> None:
    promote(uri, "1", None)
    promote(uri, "2", "1")
    change = champion.undo(uri, "bayling", "reads badly")
    assert (change.version, change.before) == ("1", "2")
    assert aliases(uri) == {"champion": "1", "previous": "2"}
    assert "reads badly" in models.by_version(uri, "bayling", "2").tags["champion.undone"]

    champion.undo(uri, "bayling")
    assert aliases(uri) == {"champion": "2", "previous": "1"}
    two, one = (models.by_version(uri, "bayling", version) for version in "21")
    assert "champion.undone" not in two.tags
    assert "champion.undone" in one.tags
    assert [how for *_, how in story(uri)] == ["undone", "undone", "accepted", "accepted"]


def test_what_was_undone_is_no_baseline_for_the_next_one(uri: str) -> None:
    promote(uri, "1", None)
    promote(uri, "2", "1")
    champion.undo(uri, "bayling")
    promote(uri, "3", "1")
    assert aliases(uri) == {"champion": "3", "previous": "1"}


def test_there_is_nothing_to_undo_before_a_second_champion(uri: str) -> None:
    with pytest.raises(UserError, match="has no alias 'champion'"):
        champion.undo(uri, "bayling")
    promote(uri, "1", None)
    with pytest.raises(UserError, match="version 1 of 'bayling' is the first champion"):
        champion.undo(uri, "bayling")
    runs.client(uri).set_registered_model_alias("bayling", "previous", "1")
    with pytest.raises(UserError, match="both point to version 1"):
        champion.undo(uri, "bayling")
    assert story(uri) == [("1", None, "accepted")]


def test_a_model_that_was_judged_against_another_champion_is_not_promoted(uri: str) -> None:
    promote(uri, "1", None)
    promote(uri, "2", "1")
    with pytest.raises(UserError, match="version 2 of 'bayling' became champion while version 3"):
        promote(uri, "3", "1")
    assert aliases(uri) == {"champion": "2", "previous": "1", "candidate": "3"}


def test_who_is_champion_already_is_not_promoted_again(uri: str) -> None:
    promote(uri, "1", None)
    promote(uri, "1", None)
    assert aliases(uri) == {"champion": "1"}
    assert len(story(uri)) == 1


def test_a_champion_that_somebody_set_by_hand_is_part_of_the_story(uri: str) -> None:
    mlflow = runs.client(uri)
    mlflow.set_registered_model_alias("bayling", "champion", "1")
    assert story(uri) == [("1", None, "elsewhere")]
    promote(uri, "2", "1")
    mlflow.set_registered_model_alias("bayling", "champion", "4")
    assert story(uri) == [
        ("4", "2", "elsewhere"),
        ("2", "1", "accepted"),
        ("1", None, "elsewhere"),
    ]
    assert champion.history(uri, "bayling").changes[0].at is None


def test_the_models_page_tells_the_story_below_what_a_person_wrote(uri: str) -> None:
    mlflow = runs.client(uri)
    mlflow.update_registered_model("bayling", "Ours. Ask Lin.")
    promote(uri, "1", None)
    promote(uri, "2", "1")
    champion.undo(uri, "bayling", "a | b\nc")
    page = mlflow.get_registered_model("bayling").description
    assert page.startswith("Ours. Ask Lin.\n\n")
    assert "**Champion: version 1**" in page
    rows = [line for line in page.splitlines() if line.startswith("| 20")]
    assert [row.split(" | ")[3] for row in rows] == ["undone", "accepted", "accepted"]
    assert rows[0].endswith("| a \\| b c |")
    mlflow.update_registered_model("bayling", page.replace("Lin", "Wu") + "\nPS")
    champion.undo(uri, "bayling")
    page = mlflow.get_registered_model("bayling").description
    assert page.startswith("Ours. Ask Wu.") and page.endswith("PS")
    assert page.count("**Champion:") == 1


def test_a_long_story_stays_within_what_mlflow_keeps(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(champion, "KEPT", 6)
    promote(uri, "1", None)
    promote(uri, "2", "1")
    for _ in range(7):
        champion.undo(uri, "bayling", "why " * 1000)
    known = champion.history(uri, "bayling")
    assert (len(known.changes), known.dropped) == (6, 3)
    assert {change.how for change in known.changes} == {How.undone}
    model = runs.client(uri).get_registered_model("bayling")
    assert len(model.description) <= 5000
    assert all(len(value) <= 5000 for value in model.tags.values())
    assert known.changes[0].reason.endswith("…")


def test_a_page_without_room_keeps_what_a_person_wrote(uri: str) -> None:
    mlflow = runs.client(uri)
    mlflow.update_registered_model("bayling", "x" * 4990)
    promote(uri, "1", None)
    assert mlflow.get_registered_model("bayling").description == "x" * 4990


def test_a_tag_that_somebody_wrote_by_hand_breaks_nothing(uri: str) -> None:
    promote(uri, "1", None)
    runs.client(uri).set_registered_model_tag("bayling", "champion.change.0000000000001", "{")
    assert story(uri) == [("1", None, "accepted")]


def test_a_model_that_does_not_exist_is_named(uri: str) -> None:
    with pytest.raises(UserError, match="has no registered model 'other'"):
        champion.history(uri, "other")
