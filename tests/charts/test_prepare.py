"""The two programs that the chart carries: what prepares MLflow, and what `helm test` asks it."""

from __future__ import annotations

import base64
import configparser
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from charted import CHARTS

FILES = CHARTS / "platform" / "files"


def _prepare(folder: Path, **changed: str) -> str:
    environment = {
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{folder}/database/mlflow.db",
        "AUTH_DATABASE_URI": f"sqlite:///{folder}/database/accounts.db",
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_AUTH_ADMIN_USERNAME": "admin",
        "MLFLOW_AUTH_ADMIN_PASSWORD": "the password of admin",
        "AUTH_DEFAULT_PERMISSION": "READ",
        "JOBS_USERNAME": "jobs",
        "JOBS_PASSWORD": "the password of jobs",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        **changed,
    }
    command = [sys.executable, str(FILES / "prepare.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_accounts_follow_the_secrets(tmp_path: Path) -> None:
    pytest.importorskip("flask_wtf", reason="MLflow's auth extra is not installed")
    assert _prepare(tmp_path).splitlines() == [
        "created the account admin",
        "created the account jobs",
    ]
    assert _prepare(tmp_path) == ""
    changed = _prepare(tmp_path, JOBS_PASSWORD="another password")
    assert changed.splitlines() == ["changed the password of jobs"]
    written = configparser.ConfigParser()
    written.read(tmp_path / "auth.ini")
    assert written["mlflow"]["database_uri"] == f"sqlite:///{tmp_path}/database/accounts.db"
    assert (tmp_path / "auth.ini").stat().st_mode & 0o077 == 0


@pytest.mark.unit
def test_a_volume_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    environment = {"MLFLOW_BACKEND_STORE_URI": f"sqlite:///{tmp_path}/file/database/mlflow.db"}
    command = [sys.executable, str(FILES / "prepare.py")]
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"cannot write to {tmp_path}/file/database as user")
    assert "fsGroup" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.unit
def test_a_password_with_a_percent_sign_reaches_mlflow(tmp_path: Path) -> None:
    code = (
        "import runpy, pathlib, sys; made = runpy.run_path(sys.argv[1]);"
        "made['_write_auth_file'](pathlib.Path(sys.argv[2]), 'postgresql://a:p%40ss@host/name')"
    )
    path = tmp_path / "auth.ini"
    environment = {"AUTH_DEFAULT_PERMISSION": "READ", "MLFLOW_AUTH_ADMIN_USERNAME": "admin"}
    command = [sys.executable, "-c", code, str(FILES / "prepare.py"), str(path)]
    subprocess.run(command, env={**os.environ, **environment}, check=True)
    written = configparser.ConfigParser()
    written.read(path)
    assert written["mlflow"]["database_uri"] == "postgresql://a:p%40ss@host/name"


@contextmanager
def _mlflow(accounts: set[str]) -> Iterator[str]:
    """An MLflow that knows /health and accounts; without any it asks for none."""
    known = {f"Basic {base64.b64encode(account.encode()).decode()}" for account in accounts}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            welcome = self.headers.get("Authorization") in known or not known
            self.send_response(200 if self.path == "/health" or welcome else 401)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def _ask(address: str, **account: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "MLFLOW": address, **account}
    command = [sys.executable, "-c", (FILES / "answers.py").read_text(encoding="utf-8")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.unit
def test_helm_test_passes_only_where_mlflow_knows_jobs_and_nobody_else() -> None:
    jobs = {"USERNAME": "jobs", "PASSWORD": "secret"}
    with _mlflow({"jobs:secret"}) as address:
        assert _ask(address, **jobs).returncode == 0
        assert "does not know the account" in _ask(address, USERNAME="jobs", PASSWORD="x").stderr
    with _mlflow(set()) as address:
        assert "without asking who it is" in _ask(address, **jobs).stderr
        assert _ask(address).returncode == 0
