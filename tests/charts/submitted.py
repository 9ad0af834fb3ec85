"""A job as `bayling submit` makes it for a rendered release of charts/platform."""

from __future__ import annotations

import functools
from typing import Any

from charted import Case, Object, one

from bayling.cluster import rayjob
from bayling.cluster.installation import Installation
from bayling.config import Config, compose


def installation(found: list[Object], release: str = "first") -> Installation:
    """What the rendered ConfigMap says."""
    return Installation.of(release, one(found, "ConfigMap", f"{release}-jobs")["data"])


def job(
    there: Installation, *overrides: str, stage: str = "train", namespace: str | None = None
) -> dict[str, Any]:
    """The RayJob of a stage with a configuration."""
    config = _composed(overrides)
    wanted = rayjob.Job("a-job", stage, list(overrides), config.team)
    return rayjob.manifest(wanted, config.scale, there, namespace)


@functools.cache
def _composed(overrides: tuple[str, ...]) -> Config:
    return compose(list(overrides))


def jobs_of(case: Case, found: list[Object]) -> list[Object]:
    """A job of a case; none of charts that have no jobs."""
    if case.chart != "platform":
        return []
    release = "registry" if case.values == "everything-else" else "first"
    return [job(installation(found, release), "recipe=quickstart")]
