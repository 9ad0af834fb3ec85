"""What every stage has in common: fingerprints, manifests, and the place and run it works in.

Stages exchange files. Each writes into a folder named by the fingerprint of everything that
decides its content, and writes `manifest.json` last: a folder with a manifest is complete,
one without is the remains of an interrupted run, which the same stage picks up again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from bayling import __version__
from bayling.errors import UserError
from bayling.scale import ScaleConfig

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"


def jsonable(value: Any) -> Any:
    """Dataclasses, enums and paths as plain JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: jsonable(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    return value


def fingerprint(*parts: Any) -> str:
    """A 16-digit content hash of configuration objects and upstream fingerprints."""
    text = json.dumps(jsonable(list(parts)), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader finds the old file or the new one, never half of one."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(json.dumps(jsonable(value), indent=2, ensure_ascii=False) + "\n", "utf-8")
    aside.replace(path)


def read_json(path: Path, default: Any) -> Any:
    """What `write_json` wrote; `default` where there is nothing to be read."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return default


@dataclass
class Manifest:
    """What a stage made, from what, and how much of it."""

    stage: str
    fingerprint: str
    config: dict[str, Any]
    inputs: dict[str, str]
    """Upstream stage → the fingerprint of its output that was read."""
    outputs: dict[str, str] = field(default_factory=dict)
    """What → path below the stage's folder."""
    counts: dict[str, Any] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    """Reason → how many were left out."""
    licences: dict[str, str] = field(default_factory=dict)
    """Origin → the licence its texts come under."""
    results: dict[str, Any] = field(default_factory=dict)
    run_id: str | None = None
    seconds: float = 0.0
    """How long the stage took when it ran."""
    code_version: str = __version__
    schema_version: int = SCHEMA_VERSION

    def write(self, folder: Path) -> None:
        write_json(folder / MANIFEST, self)

    @staticmethod
    def read(folder: Path) -> Manifest | None:
        """The manifest of a complete folder; None where there is none.

        Raises:
            UserError: the file is there but is not a manifest of this version, or may not be read.
        """
        path = folder / MANIFEST
        try:
            raw = json.loads(path.read_text("utf-8"))
            manifest = Manifest(**raw)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except PermissionError as error:
            raise UserError(
                f"{error.filename} may not be read by the user {os.getuid()} ({error.strerror}): "
                "set output_dir to a folder that this user owns"
            ) from None
        except (ValueError, TypeError) as error:
            raise UserError(f"{path} is not a manifest ({error}): remove {folder}") from None
        if manifest.schema_version != SCHEMA_VERSION:
            raise UserError(
                f"{path} has schema version {manifest.schema_version}, this code writes "
                f"{SCHEMA_VERSION}: remove {folder} and run the stage again"
            )
        return manifest


@dataclass(frozen=True)
class TrackedRun:
    """Where a stage reports: a run in an MLflow tracking store."""

    tracking_uri: str
    experiment: str
    run_id: str


Report = Callable[[str, float, float], None]
"""Progress: what is being done, how many are done, of how many."""


@dataclass(frozen=True)
class Context:
    """All a stage is given beside its own configuration."""

    folder: Path
    """Where it writes; exists. May hold the remains of an interrupted run."""
    inputs: dict[str, tuple[Path, Manifest]]
    """Upstream stage → its folder and manifest."""
    fingerprint: str
    seed: int
    scale: ScaleConfig
    tracked: TrackedRun
    report: Report
    note: Callable[[str], None]
    """Tells the person who watches something that is to stay on the screen."""
    take_down: bool = True
    """Whether what the stage leaves running on Ray has to be ended by it."""
    registered_model: str = "bayling"
    """The name under which MLflow keeps the versions of the model."""
    override: str = ""
    """Why the candidate is to become champion although the gate refuses it; empty: it is not."""

    def upstream(self, stage: str) -> tuple[Path, Manifest]:
        return self.inputs[stage]

    def manifest(self, stage: str, config: Any) -> Manifest:
        """A manifest for this stage's output, still without counts and outputs."""
        return Manifest(
            stage=stage,
            fingerprint=self.fingerprint,
            config=jsonable(config),
            inputs={name: manifest.fingerprint for name, (_, manifest) in self.inputs.items()},
            run_id=self.tracked.run_id,
        )


def total(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    """The sum of several tables of counts, its keys sorted."""
    result: dict[str, int] = {}
    for table in counts:
        for key, number in table.items():
            result[key] = result.get(key, 0) + number
    return dict(sorted(result.items()))
