"""Models in MLflow: logged by training, registered as versions, found by alias."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from bayling.errors import UserError
from bayling.registry.runs import client
from bayling.stage import TrackedRun

if TYPE_CHECKING:
    from mlflow.exceptions import MlflowException

CANDIDATE, CHAMPION, PREVIOUS = "candidate", "champion", "previous"

# MLflow's own store keeps a version's files but not which logged model they are, and links a
# logged model to its versions by a tag.
_MODEL_ID = "bayling.model_id"
_VERSIONS = "mlflow.modelVersions"
_NOT_THERE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""How MLflow says that it has no such model, version or alias; the rest is trouble of its own."""


@dataclass(frozen=True)
class Version:
    """A version of a registered model."""

    name: str
    version: str
    model_id: str | None
    run_id: str | None
    tags: dict[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()


def log_model(tracked: TrackedRun, *, name: str, folder: Path, params: dict[str, str]) -> str:
    """Log an exported folder as a LoggedModel of the run; returns its id.

    The folder goes in as it is: MLflow's own transformers flavour supports older releases only.
    A model of the same run that is complete is not logged twice.
    """
    mlflow = client(tracked.tracking_uri)
    run = mlflow.get_run(tracked.run_id)
    outputs = run.outputs.model_outputs if run.outputs else []
    for output in outputs:
        if mlflow.get_logged_model(output.model_id).status == "READY":
            return str(output.model_id)
    model = mlflow.create_logged_model(
        tracked.experiment,
        name=name,
        source_run_id=tracked.run_id,
        params=params,
        model_type="bayling",
    )
    try:
        mlflow.log_model_artifacts(model.model_id, str(folder))
    except BaseException:
        mlflow.finalize_logged_model(model.model_id, "FAILED")
        raise
    mlflow.finalize_logged_model(model.model_id, "READY")
    from mlflow.entities import LoggedModelOutput

    mlflow.log_outputs(tracked.run_id, [LoggedModelOutput(model.model_id, step=0)])
    return str(model.model_id)


def replace_file(tracking_uri: str, model_id: str, path: Path) -> None:
    """Put a file in place of the one of its name among a logged model's files."""
    client(tracking_uri).log_model_artifact(model_id, str(path))


def register(tracking_uri: str, name: str, model_id: str, run_id: str) -> Version:
    """The version of the registered model `name` that holds a logged model, made if need be."""
    from mlflow.exceptions import MlflowException

    mlflow = client(tracking_uri)
    try:
        mlflow.get_registered_model(name)
    except MlflowException as error:
        if error.error_code not in _NOT_THERE:
            raise
        mlflow.create_registered_model(name)
    for known in mlflow.search_model_versions(f"name = '{name}'"):
        if known.tags.get(_MODEL_ID) == model_id:
            return by_version(tracking_uri, name, str(known.version))
    model = mlflow.get_logged_model(model_id)
    made = mlflow.create_model_version(
        name,
        source=model.artifact_location,
        run_id=run_id,
        tags={_MODEL_ID: model_id},
        model_id=model_id,
    )
    versions = json.loads(model.tags.get(_VERSIONS, "[]"))
    versions.append({"name": name, "version": made.version})
    mlflow.set_logged_model_tags(model_id, {_VERSIONS: json.dumps(versions)})
    return by_version(tracking_uri, name, str(made.version))


def by_version(tracking_uri: str, name: str, version: str) -> Version:
    """A version by number.

    Raises:
        UserError: there is no such version.
    """
    from mlflow.exceptions import MlflowException

    try:
        found = client(tracking_uri).get_model_version(name, version)
    except MlflowException as error:
        if not _absent(error, tracking_uri, name):
            raise
        raise UserError(f"MLflow has no version {version} of model {name!r}") from None
    return Version(
        name,
        str(found.version),
        found.tags.get(_MODEL_ID),
        found.run_id,
        dict(found.tags),
        tuple(found.aliases),
    )


def by_alias(tracking_uri: str, name: str, alias: str) -> Version | None:
    """The version that an alias points to, or None where there is none.

    Raises:
        MlflowException: the store does not answer; that is not to be taken for an answer.
    """
    from mlflow.exceptions import MlflowException

    try:
        found = client(tracking_uri).get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if not _absent(error, tracking_uri, name):
            raise
        return None
    return by_version(tracking_uri, name, str(found.version))


def _absent(error: MlflowException, tracking_uri: str, name: str) -> bool:
    """Whether an answer means that there is no such version, or none that this account may see."""
    if error.error_code == "PERMISSION_DENIED":
        # A server with accounts says so, too, where there is no model of the name, to all but
        # administrators. Of what may be seen a search tells the truth.
        return not client(tracking_uri).search_registered_models(f"name = '{name}'")
    return error.error_code in _NOT_THERE


def require_alias(tracking_uri: str, name: str, alias: str) -> Version:
    """The version that an alias points to.

    Raises:
        UserError: no such alias, or its version was deleted; the message names those there are.
    """
    found = by_alias(tracking_uri, name, alias)
    if found is not None:
        return found
    from mlflow.exceptions import MlflowException

    try:
        aliases = client(tracking_uri).get_registered_model(name).aliases
    except MlflowException as error:
        if error.error_code not in _NOT_THERE:
            raise
        raise UserError(
            f"MLflow at {tracking_uri} has no registered model {name!r}: train and promote one "
            "first (`bayling run`)"
        ) from None
    if alias in aliases:
        raise UserError(
            f"the alias {alias!r} of model {name!r} points to version {aliases[alias]}, which "
            "MLflow does not have any more: point it to another one, on the model's page"
        )
    others = ", ".join(sorted(aliases))
    there = f"it has {others}" if others else "it has none: promote a version first"
    raise UserError(f"model {name!r} has no alias {alias!r}; {there}")


def move_alias(version: Version, alias: str, tracking_uri: str) -> None:
    client(tracking_uri).set_registered_model_alias(version.name, alias, version.version)


def drop_alias(name: str, alias: str, tracking_uri: str) -> None:
    client(tracking_uri).delete_registered_model_alias(name, alias)


def tag_version(version: Version, tags: dict[str, str], tracking_uri: str) -> None:
    mlflow = client(tracking_uri)
    for key, value in tags.items():
        mlflow.set_model_version_tag(version.name, version.version, key, value)


def untag_version(version: Version, key: str, tracking_uri: str) -> None:
    client(tracking_uri).delete_model_version_tag(version.name, version.version, key)


def describe_version(version: Version, markdown: str, tracking_uri: str) -> None:
    client(tracking_uri).update_model_version(version.name, version.version, markdown)


def fetch(
    tracking_uri: str,
    name: str,
    version: str,
    folder: Path | None = None,
    *,
    weights: bool = True,
) -> Path:
    """The folder of a version's files on this machine.

    A local store is read in place; from a server the files are downloaded, into `folder` or
    into a temporary one.

    Args:
        weights: whether to download them; the rest is small.

    Raises:
        UserError: there is no such version, or its files are gone.
    """
    by_version(tracking_uri, name, version)
    location = client(tracking_uri).get_model_version_download_uri(name, version)
    parts = urlsplit(location)
    if parts.scheme in ("", "file"):
        path = Path(unquote(parts.path))
        if not path.is_dir():
            raise UserError(
                f"version {version} of model {name!r} lies in {path}, which is not there: was "
                "the folder moved or deleted?"
            )
        return path
    from mlflow.artifacts import download_artifacts

    target = str(folder) if folder else tempfile.mkdtemp()
    if weights:
        return Path(
            download_artifacts(artifact_uri=location, dst_path=target, tracking_uri=tracking_uri)
        )
    # As `download_artifacts` names the whole folder.
    place = Path(target) / PurePosixPath(parts.path).name
    place.mkdir()
    for file in _files(location, tracking_uri):
        if not file.endswith(".safetensors"):
            within = (place / file).parent
            within.mkdir(parents=True, exist_ok=True)
            uri = f"{location.rstrip('/')}/{file}"
            download_artifacts(artifact_uri=uri, dst_path=str(within), tracking_uri=tracking_uri)
    return place


def _files(location: str, tracking_uri: str) -> Iterator[str]:
    """The paths of all files below a place, from there."""
    from mlflow.artifacts import list_artifacts

    waiting = [""]
    while waiting:
        below = waiting.pop()
        uri = f"{location.rstrip('/')}/{below}".rstrip("/")
        for found in list_artifacts(artifact_uri=uri, tracking_uri=tracking_uri):
            path = str(PurePosixPath(below) / PurePosixPath(found.path).name)
            if found.is_dir:
                waiting.append(path)
            else:
                yield path
