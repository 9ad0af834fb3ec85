"""What a release of charts/platform says to whoever submits jobs: its ConfigMap RELEASE-jobs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from bayling import __version__
from bayling.errors import UserError

CHART = "0.2.0"
"""The oldest chart whose ConfigMap has what is read here."""
RAY_VERSION = "2.60.0"
"""Of the image, where no release says it: what constraints.txt pins."""


@dataclass(frozen=True)
class Installation:
    """A release, as jobs see it. Empty texts are what it does not have."""

    release: str
    """What its objects' names begin with."""
    instance: str
    """The release's own name, by which its network policies choose pods."""
    image: str
    gpu_image: str
    tracking_uri: str
    credentials_secret: str
    service_account: str
    pull_policy: str = "IfNotPresent"
    ray_version: str = RAY_VERSION
    team: str = ""
    queue: str = ""
    claim: str = ""
    claim_size: str = ""
    """Of the claim that the first job makes; empty where the claim is somebody else's."""
    claim_class: str = ""
    claim_access: str = "ReadWriteOnce"
    assumed: bool = False
    """Nobody was asked: these are the chart's names and defaults."""

    @classmethod
    def of(cls, release: str, data: Mapping[str, str]) -> Installation:
        """Read a ConfigMap's data.

        Raises:
            UserError: the chart is older than this code.
        """
        version = data.get("chart-version", "")
        if _numbers(version) < _numbers(CHART):
            raise UserError(
                f"the release {release!r} is of the chart platform {version or '0.1.0'}, and this "
                f"code needs {CHART} or newer: helm upgrade {release} charts/platform"
            )
        return cls(
            release=release,
            instance=data["instance"],
            image=data["image"],
            gpu_image=data["gpu-image"],
            tracking_uri=data["MLFLOW_TRACKING_URI"],
            credentials_secret=data["credentials-secret"],
            service_account=data["service-account"],
            pull_policy=data["pull-policy"],
            ray_version=data["ray-version"],
            team=data["team"],
            queue=data["queue"],
            claim=data["storage-claim"],
            claim_size=data["storage-size"],
            claim_class=data["storage-class"],
            claim_access=data["storage-access"],
        )

    @classmethod
    def assume(cls, release: str, namespace: str | None) -> Installation:
        """What the chart's defaults make of a release of this name, without asking anybody."""
        host = f"{release}-mlflow.{namespace}.svc" if namespace else f"{release}-mlflow"
        return cls(
            release=release,
            instance=release,
            image=f"bayling:{__version__}-cpu",
            gpu_image=f"bayling:{__version__}-gpu",
            tracking_uri=f"http://{host}:5000",
            credentials_secret=f"{release}-jobs-mlflow",
            service_account=f"{release}-jobs",
            claim=f"{release}-jobs",
            claim_size="20Gi",
            assumed=True,
        )

    @classmethod
    def none(cls) -> Installation:
        """No release at all: everything is in the configuration."""
        return cls("", "", "", "", "", "", "")

    @property
    def config_map(self) -> str:
        return f"{self.release}-jobs"


def _numbers(version: str) -> tuple[int, ...]:
    """`0.10.1` → (0, 10, 1); nothing that can be read is older than all."""
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    return tuple(int(part) for part in found.groups()) if found else (0,)
