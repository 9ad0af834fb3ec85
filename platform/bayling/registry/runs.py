"""Runs: one per stage below one per pipeline, each ended whatever happens.

A run is named by a key (the fingerprint of what it computes). A stage that was interrupted
goes on in the run it began, so that a curve has no second beginning.
"""

from __future__ import annotations

import getpass
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from bayling.errors import UserError
from bayling.stage import TrackedRun, jsonable

if TYPE_CHECKING:
    from mlflow import MlflowClient

KEY = "bayling.key"
STAGE = "bayling.stage"
TEAM = "bayling.team"
JOB = "bayling.job"
"""The submitted job that a run was made, or gone on with, in."""
_PARENT = "mlflow.parentRunId"
_CONNECT_SECONDS = 5.0


def client(tracking_uri: str) -> MlflowClient:
    """A client for a tracking store. Local stores are made on first use."""
    import logging
    import os

    # A bar for each of many small files, in the middle of a stage's own.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    from mlflow import MlflowClient

    # Making the sqlite schema is forty lines of log that say nothing to a reader.
    for name in ("alembic", "mlflow.store.db.utils", "mlflow.tracking"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient(tracking_uri, registry_uri=tracking_uri)


def check_reachable(tracking_uri: str) -> None:
    """Refuse a tracking store that does not answer, before any work begins.

    Raises:
        UserError: the scheme is not supported, the folder cannot be written or nobody answers.
    """
    parts = urlsplit(tracking_uri)
    if parts.scheme == "sqlite":
        path = Path(tracking_uri.removeprefix("sqlite:///"))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"tracking_uri={tracking_uri}: cannot make {path.parent} ({error.strerror})"
            ) from None
        return
    if parts.scheme not in ("http", "https"):
        raise UserError(
            f"tracking_uri={tracking_uri}: use sqlite:///PATH or the http address of an "
            "MLflow server"
        )
    import httpx

    try:
        answer = httpx.get(f"{tracking_uri.rstrip('/')}/health", timeout=_CONNECT_SECONDS)
        answer.raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise UserError(
            f"the tracking server at {tracking_uri} does not answer ({error}): start it "
            "(`bayling ui`), or name another with tracking_uri=…"
        ) from None


def experiment_id(tracking_uri: str, name: str, artifacts: Path) -> str:
    """The id of the experiment `name`, made where it does not exist.

    Artifacts of a new experiment in a local store go to `artifacts`; a server has its own place.
    """
    from mlflow.exceptions import MlflowException

    mlflow = client(tracking_uri)
    existing = mlflow.get_experiment_by_name(name)
    if existing is None:
        location = artifacts.resolve().as_uri() if tracking_uri.startswith("sqlite") else None
        try:
            return str(mlflow.create_experiment(name, artifact_location=location))
        except MlflowException:  # another process was faster
            existing = mlflow.get_experiment_by_name(name)
    if existing is None or existing.lifecycle_stage == "deleted":
        raise UserError(
            f"the experiment {name!r} was deleted in MLflow: restore it there, or choose "
            "another with experiment=…"
        )
    return str(existing.experiment_id)


def page(tracking_uri: str, name: str) -> str:
    """Where in MLflow's pages the runs of the experiment `name` are; its front page before any."""
    found = client(tracking_uri).get_experiment_by_name(name)
    # Without the query MLflow 3 opens on traces of agents instead of on runs and curves.
    query = "?workflowType=machine_learning"
    return f"/#/experiments/{found.experiment_id}{query}" if found else f"/#/{query}"


def open_run(
    tracking_uri: str,
    experiment: str,
    *,
    name: str,
    key: str,
    stage: str,
    parent: str | None = None,
    config: Any = None,
    labels: Mapping[str, str] | None = None,
) -> TrackedRun:
    """Begin a run, or go on in the unfinished one of the same key and parent.

    Args:
        labels: further tags, set in either case.
    """
    mlflow = client(tracking_uri)
    clauses = [f"tags.`{KEY}` = '{key}'", f"tags.`{STAGE}` = '{stage}'"]
    if parent:
        clauses.append(f"tags.`{_PARENT}` = '{parent}'")
    found = mlflow.search_runs([experiment], " and ".join(clauses), max_results=50)
    unfinished = [run for run in found if run.info.status != "FINISHED"]
    if unfinished:
        run = unfinished[0]
        mlflow.update_run(run.info.run_id, status="RUNNING")
        for tag, value in (labels or {}).items():
            mlflow.set_tag(run.info.run_id, tag, value)
    else:
        tags = {KEY: key, STAGE: stage, **(labels or {})}
        with suppress(Exception):  # a container's user may have no name
            tags["mlflow.user"] = getpass.getuser()
        if parent:
            tags[_PARENT] = parent
        run = mlflow.create_run(experiment, run_name=name, tags=tags)
        if config is not None:
            _log_config(mlflow, run.info.run_id, config)
    return TrackedRun(tracking_uri, experiment, run.info.run_id)


def find(tracking_uri: str, experiment: str, key: str) -> str | None:
    """The id of the newest run of a key, None where there is none; `experiment` is a name."""
    mlflow = client(tracking_uri)
    found = mlflow.get_experiment_by_name(experiment)
    if found is None:
        return None
    runs = mlflow.search_runs([found.experiment_id], f"tags.`{KEY}` = '{key}'", max_results=1)
    return str(runs[0].info.run_id) if runs else None


@contextmanager
def ended_with_the_block(tracked: TrackedRun) -> Iterator[TrackedRun]:
    """End an open run however the block ends: FINISHED, KILLED by Ctrl-C, or FAILED."""
    status = "FAILED"
    try:
        yield tracked
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        # A store that is gone must not hide the reason.
        with suppress(Exception):
            client(tracked.tracking_uri).set_terminated(tracked.run_id, status)


def exists(tracking_uri: str, run_id: str | None) -> bool:
    """Whether the store still knows a run."""
    if run_id is None:
        return False
    known = _in_sqlite(tracking_uri, run_id)
    if known is not None:
        return known
    from mlflow.exceptions import MlflowException

    try:
        run = client(tracking_uri).get_run(run_id)
    except MlflowException:
        return False
    return bool(run.info.lifecycle_stage == "active")


def _in_sqlite(tracking_uri: str, run_id: str) -> bool | None:
    """Whether a local store knows a run; None where that cannot be told without MLflow.

    To import MLflow takes several times as long as all else that a stage does which is done.
    """
    path = tracking_uri.removeprefix("sqlite:///")
    if path == tracking_uri:
        return None
    address = f"{Path(path).absolute().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(address, uri=True)) as store:
            asked = "select lifecycle_stage from runs where run_uuid = ?"
            found = store.execute(asked, (run_id,)).fetchone()
    except sqlite3.Error:
        return None
    return found is not None and found[0] == "active"


def flatten(value: Any, prefix: str = "") -> dict[str, str]:
    """Nested configuration as MLflow parameters: `train.learning_rate` → `0.002`."""
    plain = jsonable(value)
    if isinstance(plain, dict):
        flat: dict[str, str] = {}
        for key, item in plain.items():
            flat.update(flatten(item, f"{prefix}.{key}" if prefix else str(key)))
        return flat
    if isinstance(plain, list):
        return {prefix: ", ".join(str(item) for item in plain)}
    return {prefix: str(plain)}


def _log_config(mlflow: MlflowClient, run_id: str, config: Any) -> None:
    from mlflow.entities import Param

    params = [Param(key[:250], value[:6000]) for key, value in flatten(config).items()]
    for start in range(0, len(params), 100):
        mlflow.log_batch(run_id, params=params[start : start + 100])
    mlflow.log_dict(run_id, jsonable(config), "config.json")


def log_metrics(
    tracked: TrackedRun, metrics: dict[str, float], model_id: str | None = None
) -> None:
    """Single values, on the run and, with `model_id`, on the logged model too."""
    mlflow = client(tracked.tracking_uri)
    if model_id is not None:
        for key, value in metrics.items():
            mlflow.log_metric(tracked.run_id, key, value, model_id=model_id)
        return
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    rows = [Metric(key, value, now, 0) for key, value in metrics.items()]
    for start in range(0, len(rows), 900):
        mlflow.log_batch(tracked.run_id, metrics=rows[start : start + 900])


def log_file(tracked: TrackedRun, path: Path) -> None:
    client(tracked.tracking_uri).log_artifact(tracked.run_id, str(path))


def log_folder(tracked: TrackedRun, folder: Path) -> None:
    """A folder of files, under its name."""
    client(tracked.tracking_uri).log_artifacts(tracked.run_id, str(folder), folder.name)


def set_tags(tracked: TrackedRun, tags: dict[str, str]) -> None:
    mlflow = client(tracked.tracking_uri)
    for key, value in tags.items():
        mlflow.set_tag(tracked.run_id, key, value)


def rounded(values: dict[str, float]) -> dict[str, float]:
    """Scores to four digits, for manifests and tables."""
    return {key: round(value, 4) for key, value in values.items()}


def log_dataset(
    tracked: TrackedRun,
    name: str,
    digest: str,
    source: str,
    profile: Any,
    context: str = "training",
) -> None:
    """Name the data a run used, so that a model leads back to it."""
    import json

    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.exceptions import MlflowException

    dataset = Dataset(
        name=name,
        digest=digest,
        source_type="local",
        source=json.dumps({"uri": source}),
        profile=json.dumps(jsonable(profile), ensure_ascii=False),
    )
    tags = [InputTag("mlflow.data.context", context)]
    inputs = [DatasetInput(dataset, tags)]
    try:
        client(tracked.tracking_uri).log_inputs(tracked.run_id, inputs)
    except MlflowException:
        # MLflow looks whether it knows the dataset and then inserts it: of two runs that name the
        # same one at the same moment, the slower violates a constraint. By now it is known.
        client(tracked.tracking_uri).log_inputs(tracked.run_id, inputs)
