"""The Ray Serve applications that are to run, as Ray Serve's own configuration files say it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bayling.serve.config import ServeConfig

API = "bayling"
API_BUILDER = "bayling.serve.deployments:api"
ENGINE_BUILDER = "bayling.serve.deployments:engine"
ENGINES = f"{API}-v"
"""What the names of applications with engines begin with."""


def engine_application(version: str) -> str:
    """The name of the application with a version's engines."""
    return f"{ENGINES}{version}"


@dataclass(frozen=True)
class ServedModel:
    """A registered model, and where its versions' files are."""

    tracking_uri: str
    name: str
    folders: Mapping[str, str]
    """Version → the exported folder on every node. Others are fetched from the registry."""
    cache: str | None = None
    """Where a node keeps what it fetched from an MLflow server. Without it each replica fetches
    for itself."""

    def folder(self, version: str, *, weights: bool = True) -> Path:
        """A version's exported folder on this machine.

        Args:
            weights: whether they are needed; without them there is a fraction to fetch.
        """
        if version in self.folders:
            return Path(self.folders[version])
        if self.cache is not None:
            from bayling.serve import model_cache

            return model_cache.folder(
                Path(self.cache), self.tracking_uri, self.name, version, weights=weights
            )
        from bayling.registry import models

        return models.fetch(self.tracking_uri, self.name, version)


@dataclass(frozen=True)
class Arguments:
    """What every deployment is given."""

    config: ServeConfig
    served: ServedModel
    device: str
    cpus: int
    """Of one engine replica."""
    gpus: int
    """Of one engine replica."""
    listen: bool
    """Whether the API listens by itself instead of behind Ray Serve's proxy."""
    api_on: str | None = None
    """A resource that only the nodes have on which the API may be. It takes no CPUs, so that
    Ray's autoscaler would not see that a node is not idle as long as the API is on it."""

    def write(self) -> dict[str, Any]:
        """As JSON has it."""
        written = asdict(self)
        for key, value in written["config"].items():
            written["config"][key] = getattr(value, "value", value)
        return written

    @staticmethod
    def read(written: Mapping[str, Any]) -> Arguments:
        return Arguments(
            config=ServeConfig.read(written["config"]),
            served=ServedModel(**written["served"]),
            device=written["device"],
            cpus=written["cpus"],
            gpus=written["gpus"],
            listen=written["listen"],
            api_on=written.get("api_on"),
        )


def applications(
    arguments: Arguments,
    shares: Mapping[str, float],
    runtime_env: Mapping[str, Any],
    leaving: Collection[str] = (),
) -> dict[str, Any]:
    """Everything that is to run, for Ray Serve's REST API or a RayService's `serveConfigV2`.

    Args:
        shares: version → its share of the traffic, 0 to 1; the others are not to run.
        leaving: versions that get no request any more and finish those they have.
    """
    written = arguments.write()
    engines = [
        {
            "name": engine_application(version),
            "route_prefix": None,
            "import_path": ENGINE_BUILDER,
            "runtime_env": dict(runtime_env),
            "args": {**written, "version": version},
        }
        for version in (*shares, *(one for one in leaving if one not in shares))
    ]
    api = {
        "name": API,
        "route_prefix": None if arguments.listen else "/",
        "import_path": API_BUILDER,
        "runtime_env": dict(runtime_env),
        "args": written,
        # Changed without a restart.
        "deployments": [{"name": "Api", "user_config": {"shares": dict(shares)}}],
    }
    return {"applications": [*engines, api]}


def service_config(
    arguments: Arguments, shares: Mapping[str, float], leaving: Collection[str] = ()
) -> dict[str, Any]:
    """Everything that is to run on a cluster whose image has this package: a RayService's
    `serveConfigV2`. Shares and leaving versions are those of `applications`."""
    return {
        # A node with a replica on it takes requests too; which ones get some is KubeRay's to say.
        "proxy_location": "EveryNode",
        "http_options": {"host": arguments.config.host, "port": arguments.config.port},
        **applications(arguments, shares, {}, leaving),
    }
