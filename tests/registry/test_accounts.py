"""Models in a real MLflow that has accounts, through one that is no administrator's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow_server import mlflow_server

from bayling.errors import UserError
from bayling.registry import models, runs

pytest.importorskip("flask_wtf", reason="MLflow's auth extra is not installed")

PREPARE = Path(__file__).parents[2] / "charts" / "platform" / "files" / "prepare.py"
PASSWORDS = {"admin": "the password of admin", "jobs": "the password of jobs"}


@dataclass(frozen=True)
class Server:
    uri: str
    monkeypatch: pytest.MonkeyPatch

    def be(self, account: str) -> None:
        self.monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", account)
        self.monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORDS[account])


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server as the chart runs it, with the accounts that the chart makes."""
    folder = tmp_path_factory.mktemp("mlflow")
    variables = {
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{folder}/mlflow.db",
        "AUTH_DATABASE_URI": f"sqlite:///{folder}/accounts.db",
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_AUTH_ADMIN_USERNAME": "admin",
        "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORDS["admin"],
        "AUTH_DEFAULT_PERMISSION": "READ",
        "JOBS_USERNAME": "jobs",
        "JOBS_PASSWORD": PASSWORDS["jobs"],
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "of the test",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    subprocess.run([sys.executable, str(PREPARE)], env={**os.environ, **variables}, check=True)
    with mlflow_server(folder, "--app-name=basic-auth", variables=variables) as address:
        yield address


@pytest.fixture
def server(address: str, monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server(address, monkeypatch)
    made.be("jobs")
    return made


def _logged(server: Server, folder: Path) -> tuple[str, str]:
    """A run with a model of one file; the ids of model and run."""
    from bayling.stage import TrackedRun

    mlflow = runs.client(server.uri)
    found = mlflow.get_experiment_by_name("bayling")
    experiment = found.experiment_id if found else mlflow.create_experiment("bayling")
    run = mlflow.create_run(experiment).info.run_id
    (folder / "config.json").write_text("{}", "utf-8")
    tracked = TrackedRun(server.uri, experiment, run)
    return models.log_model(tracked, name="model", folder=folder, params={}), run


def test_a_model_that_is_not_there_is_none_whoever_asks(server: Server) -> None:
    assert models.by_alias(server.uri, "nowhere", models.CHAMPION) is None
    with pytest.raises(UserError, match="no registered model 'nowhere'"):
        models.require_alias(server.uri, "nowhere", models.CHAMPION)
    with pytest.raises(UserError, match="no version 1 of model 'nowhere'"):
        models.by_version(server.uri, "nowhere", "1")


def test_who_registers_a_model_may_promote_it(server: Server, tmp_path: Path) -> None:
    version = models.register(server.uri, "ours", *_logged(server, tmp_path))
    assert models.by_alias(server.uri, "ours", models.CHAMPION) is None
    models.move_alias(version, models.CHAMPION, server.uri)
    champion = models.by_alias(server.uri, "ours", models.CHAMPION)
    assert champion is not None and champion.version == version.version
    with pytest.raises(UserError, match="no version 9 of model 'ours'"):
        models.by_version(server.uri, "ours", "9")


def test_a_model_of_others_is_read_and_not_promoted(server: Server, tmp_path: Path) -> None:
    server.be("admin")
    version = models.register(server.uri, "theirs", *_logged(server, tmp_path))
    models.move_alias(version, models.CHAMPION, server.uri)
    server.be("jobs")
    found = models.by_alias(server.uri, "theirs", models.CHAMPION)
    assert found is not None and found.version == version.version
    with pytest.raises(MlflowException, match="Permission denied"):
        models.move_alias(version, models.CHAMPION, server.uri)
