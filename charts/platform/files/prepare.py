"""What MLflow needs before its server starts: a schema, the file of its auth app, its accounts.

The server itself sets the administrator's password once, when it first sees an empty database.
Here the passwords follow the Secrets at every start, so that changing a Secret changes a password.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def main() -> None:
    """Run by the pod's init container; everything comes from its environment."""
    address = os.environ["MLFLOW_BACKEND_STORE_URI"]
    if address.startswith("sqlite:///"):
        _make_folder(Path(address.removeprefix("sqlite:///")).parent)
    # A PostgreSQL with content is left to the hook, which runs once and not in every pod.
    if address.startswith("sqlite:///") or _is_empty(address):
        subprocess.run([sys.executable, "-m", "mlflow", "db", "upgrade", address], check=True)
    if "MLFLOW_AUTH_CONFIG_PATH" in os.environ:
        accounts_address = os.environ.get("AUTH_DATABASE_URI", address)
        _write_auth_file(Path(os.environ["MLFLOW_AUTH_CONFIG_PATH"]), accounts_address)
        _set_accounts(accounts_address)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
    except OSError as error:
        sys.exit(
            f"cannot write to {folder} as user {os.getuid()} ({error.strerror}): the volume's "
            f"folder has to belong to group {os.getgid()} or be writable for all. Most storage "
            "drivers see to it (fsGroup); volumes of type hostPath and NFS do not"
        )


def _is_empty(address: str) -> bool:
    import sqlalchemy
    from mlflow.store.db.utils import create_sqlalchemy_engine_with_retry

    engine = create_sqlalchemy_engine_with_retry(address)
    try:
        return not sqlalchemy.inspect(engine).get_table_names()
    finally:
        engine.dispose()


def _write_auth_file(path: Path, address: str) -> None:
    # MLflow reads it with interpolation, where a percent sign (of a quoted password) is special.
    path.write_text(
        "[mlflow]\n"
        f"default_permission = {os.environ['AUTH_DEFAULT_PERMISSION']}\n"
        f"database_uri = {address.replace('%', '%%')}\n"
        f"admin_username = {os.environ['MLFLOW_AUTH_ADMIN_USERNAME']}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n",
        encoding="utf-8",
    )
    path.chmod(0o600)


def _set_accounts(address: str) -> None:
    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore()
    store.init_db(address)
    for prefix, is_admin in (("MLFLOW_AUTH_ADMIN", True), ("JOBS", False)):
        username = os.environ[f"{prefix}_USERNAME"]
        password = os.environ[f"{prefix}_PASSWORD"]
        if not store.has_user(username):
            store.create_user(username, password, is_admin=is_admin)
            print(f"created the account {username}")
        elif not store.authenticate_user(username, password):
            store.update_user(username, password=password)
            print(f"changed the password of {username}")


if __name__ == "__main__":
    main()
