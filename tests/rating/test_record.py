"""Votes in MLflow: a run a session, whatever happens to the store."""

from __future__ import annotations

import json
from pathlib import Path

import pandas
import pytest
from mlflow import MlflowClient
from rated import answered, compared, session_of, write_answers
from running import free_port

from bayling.errors import UserError
from bayling.rating import votes
from bayling.rating.items import read
from bayling.rating.record import Record, fetch_answers
from bayling.rating.session import Session
from bayling.registry import runs

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return session_of(compared(tmp_path, "red", "blue"), tmp_path)


def record(session: Session, uri: str, key: str) -> Record:
    return Record(session, uri, "bayling-people", Path(uri.removeprefix("sqlite:///")).parent, key)


def judge(session: Session, rater: str, *numbers: int) -> None:
    """The rater prefers red."""
    for number in numbers:
        shown = session.order(session.items[number], rater)
        session.vote(number, rater, [1, 2] if shown[0] == "secret-red" else [2, 1], False, 1)


def test_a_session_is_a_run_with_its_votes_table_and_figures(
    session: Session, uri: str, tmp_path: Path
) -> None:
    kept = record(session, uri, "one")
    assert kept.store() is None, "nothing was judged yet"
    judge(session, "Ana", 0, 1, 2)
    run_id = kept.store()
    judge(session, "Ana", 3)
    judge(session, "Bo", 0, 1)
    assert kept.store(over=True) == run_id
    mlflow = MlflowClient(uri)
    run = mlflow.get_run(str(run_id))
    assert run.info.status == "FINISHED"
    assert run.data.tags["bayling.stage"] == "rate"
    assert run.data.tags["bayling.compared"] == "secret-red, secret-blue"
    assert run.data.tags["bayling.comparison"] == session.comparison.fingerprint
    assert "| 1 | secret-red | 100.0% |" in run.data.tags["mlflow.note.content"]
    figures = run.data.metrics
    assert (figures["all/votes"], figures["all/items"], figures["all/raters"]) == (6, 4, 2)
    assert figures["all/secret-red/win_share"] == 1
    assert figures["all/secret-red/rank"] == 1
    assert figures["all/secret-red/strength"] > figures["all/secret-blue/strength"]
    assert figures["all/secret-blue/rank"] == 1, "four items are too few to be sure"
    assert figures["all/agreement/items"] == 2
    assert figures["multi-turn/votes"] == 1
    assert json.loads(run.data.tags["mlflow.loggedArtifacts"]) == [
        {"path": "votes.json", "type": "table"}
    ]
    table = pandas.read_json(
        mlflow.download_artifacts(str(run_id), "votes.json", str(tmp_path)), orient="split"
    )
    assert len(table) == 6, "those of the second time are not added to those of the first"
    assert set(table["rater"]) == {"Ana", "Bo"}
    path = mlflow.download_artifacts(str(run_id), session.path.name, str(tmp_path))
    assert votes.read([Path(path)]) == votes.read([session.path])


def test_the_next_session_has_a_run_of_its_own_with_all_votes(session: Session, uri: str) -> None:
    judge(session, "Ana", 0)
    first = record(session, uri, "first").store(over=True)
    judge(session, "Bo", 1)
    second = record(session, uri, "second").store(over=True)
    assert first != second
    assert MlflowClient(uri).get_run(str(second)).data.metrics["all/votes"] == 2


def test_a_store_that_is_away_costs_no_vote(session: Session, uri: str) -> None:
    judge(session, "Ana", 0)
    away = record(session, f"http://127.0.0.1:{free_port()}", "away")
    with pytest.raises(UserError, match="does not answer"):
        away.store()
    assert len(votes.read([session.path])) == 1
    back = record(session, uri, "back").store(over=True)
    assert MlflowClient(uri).get_run(str(back)).data.metrics["all/votes"] == 1


def test_votes_that_were_all_taken_back_leave_no_run(session: Session, uri: str) -> None:
    judge(session, "Ana", 0)
    session.withdraw(0, "Ana")
    assert record(session, uri, "taken back").store(over=True) is None


@pytest.fixture(scope="module")
def evaluated(uri: str, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two evaluate runs, of two systems and of one, and a run without answers."""
    folder = tmp_path_factory.mktemp("evaluated")
    experiment = runs.experiment_id(uri, "bayling", folder)
    ids = []
    for number, systems in enumerate((("trained", "untrained"), ("trained",), ())):
        answers = folder / str(number) / "answers"
        for system in systems:
            for suite in ("heldout", "interactive"):
                rows = answered(f"{system}-{number}-{suite}")
                write_answers(answers / system / f"{suite}.jsonl", rows)
        tracked = runs.open_run(uri, experiment, name="e", key=str(number), stage="evaluate")
        if systems:
            runs.log_folder(tracked, answers)
        ids.append(tracked.run_id)
    return ids


def test_the_systems_of_an_evaluate_run_are_compared(
    uri: str, evaluated: list[str], tmp_path: Path
) -> None:
    comparison = read(fetch_answers(uri, evaluated[:1], tmp_path))
    assert comparison.systems == ("trained", "untrained")
    assert len(comparison.items) == 8
    assert comparison.sources["trained"][0] == (
        f"run {evaluated[0]}, answers/trained/heldout.jsonl"
    )


def test_the_trained_models_of_two_runs_are_compared(
    uri: str, evaluated: list[str], tmp_path: Path
) -> None:
    one, two = evaluated[:2]
    comparison = read(fetch_answers(uri, [one, two], tmp_path / "a"))
    assert comparison.systems == (f"trained {one[:8]}", f"trained {two[:8]}")
    assert {item.answers[f"trained {two[:8]}"][0][:9] for item in comparison.items} == {"trained-1"}
    chosen = read(fetch_answers(uri, [f"{one}/untrained", two], tmp_path / "b"))
    assert chosen.systems == (f"untrained {one[:8]}", f"trained {two[:8]}")
    both = read(fetch_answers(uri, [f"{one}/trained", f"{one}/untrained"], tmp_path / "c"))
    assert both.systems == ("trained", "untrained")


def test_a_run_without_such_answers_is_told(uri: str, evaluated: list[str], tmp_path: Path) -> None:
    one, _, empty = evaluated
    for chosen, sentence in (
        (["0123abcd"], "has no run '0123abcd'"),
        ([empty], f"run {empty} has no answers"),
        ([f"{one}/champion"], "no answers of 'champion': it has trained, untrained"),
    ):
        with pytest.raises(UserError, match=sentence):
            fetch_answers(uri, chosen, tmp_path)
