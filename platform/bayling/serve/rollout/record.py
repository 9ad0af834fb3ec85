"""What is recorded of rollouts in MLflow: the request and the status on the registered model, the
outcome on its version. The only thing that the command and the controller share.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from bayling.errors import UserError
from bayling.registry import runs

REQUEST, STATUS = "rollout.request", "rollout.status"
_MISSED = 12
"""So many heartbeats missed in a row, and nobody is there."""


class Action(StrEnum):
    start = "start"
    undo = "undo"


@dataclass(frozen=True)
class Request:
    """What somebody asked for."""

    id: str
    action: Action
    version: str | None
    """To roll out. None for an undo."""
    who: str
    when: float
    """Seconds since 1970."""
    force: bool = False
    """Whether the version becomes full without being compared."""


@dataclass(frozen=True)
class Registered:
    """What MLflow says of a registered model."""

    aliases: Mapping[str, str]
    """Alias → version."""
    request: Request | None
    status: Mapping[str, Any] | None
    """As the controller wrote it last."""
    missing: frozenset[str] = frozenset()
    """Versions that an alias or the request names and that were deleted."""


@dataclass(frozen=True)
class Record:
    """The record of one registered model. Its methods raise what MLflow raises when it is away."""

    tracking_uri: str
    name: str

    def read(self) -> Registered:
        """All of it.

        Raises:
            UserError: there is no such model.
            MlflowException: the store does not answer.
        """
        from mlflow.exceptions import MlflowException

        try:
            model = runs.client(self.tracking_uri).get_registered_model(self.name)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                raise UserError(
                    f"MLflow at {self.tracking_uri} has no registered model {self.name!r}"
                ) from None
            raise
        tags = dict(model.tags)
        aliases = {alias: str(version) for alias, version in model.aliases.items()}
        request = _request(tags.get(REQUEST))
        named = {*aliases.values(), *([request.version] if request and request.version else [])}
        missing = frozenset(version for version in named if not self.has(version))
        return Registered(aliases, request, _json(tags.get(STATUS)), missing)

    def has(self, version: str) -> bool:
        """Whether MLflow has the version."""
        from mlflow.exceptions import MlflowException

        try:
            runs.client(self.tracking_uri).get_model_version(self.name, version)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return False
            raise
        return True

    def ask(self, action: Action, version: str | None, who: str, force: bool = False) -> Request:
        """Write a request, in place of one before it."""
        request = Request(uuid.uuid4().hex[:12], action, version, who, time.time(), force)
        text = json.dumps(asdict(request), ensure_ascii=False)
        runs.client(self.tracking_uri).set_registered_model_tag(self.name, REQUEST, text)
        return request

    def write_status(self, status: Mapping[str, Any]) -> None:
        text = json.dumps(status, ensure_ascii=False)
        runs.client(self.tracking_uri).set_registered_model_tag(self.name, STATUS, text)

    def write_outcome(self, version: str, outcome: Mapping[str, str]) -> None:
        """Tags of a version, each below `rollout.`; nothing for a version that was deleted."""
        if not self.has(version):
            return
        mlflow = runs.client(self.tracking_uri)
        for key, value in outcome.items():
            mlflow.set_model_version_tag(self.name, version, f"rollout.{key}", value)


def listening(status: Mapping[str, Any] | None, at: float) -> bool:
    """Whether the controller that wrote a status was there a moment ago."""
    if status is None or status.get("stopped"):
        return False
    every_s = float(status.get("heartbeat_every_s", 0))
    return at - float(status.get("heartbeat", 0)) < _MISSED * every_s


def _json(text: str | None) -> Mapping[str, Any] | None:
    try:
        value = json.loads(text) if text else None
    except ValueError:  # somebody wrote into the tag by hand
        return None
    return value if isinstance(value, dict) else None


def _request(text: str | None) -> Request | None:
    written = _json(text)
    try:
        return Request(**{**written, "action": Action(written["action"])}) if written else None
    except (TypeError, KeyError, ValueError):
        return None
