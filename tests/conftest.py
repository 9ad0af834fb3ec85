"""One Ray cluster and one small pipeline for the session; ports and folders of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import Finished, Recorder, free_port

from bayling.cluster import local
from bayling.config import compose
from bayling.pipeline import Pipeline

for name, value in local.ENVIRONMENT.items():
    os.environ.setdefault(name, value)
os.environ.pop("MLFLOW_TRACKING_URI", None)


_LONGEST = ("test_quickstart.py", "serve", "train")
"""Files and folders that take minutes, so that beside one process there is work for another."""


@pytest.hookimpl(tryfirst=True)  # xdist reads the marks when its turn comes
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first; what shares a folder stays in one process, as it may share a server."""
    here = Path(__file__).parent

    def group(item: pytest.Item) -> str:
        first = item.path.relative_to(here).parts[0]
        return first if first in _LONGEST or not first.endswith(".py") else "tests"

    for item in items:
        item.add_marker(pytest.mark.xdist_group(group(item)))
    order = {name: place for place, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: order.get(group(item), len(order)))


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A local Ray with more logical CPUs than a laptop has cores, so that stages can overlap."""
    import ray

    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=150 * 2**20,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(_paths())}},
    )
    yield
    ray.shutdown()


def _paths() -> list[str]:
    root = Path(__file__).resolve().parents[1]
    return [str(root / "platform"), str(root / "tests")]


@pytest.fixture(scope="session")
def smoke(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """`recipe=smoke`, data to serve, in a folder and a tracking store of its own."""
    folder = tmp_path_factory.mktemp("smoke")
    overrides = ["recipe=smoke", f"output_dir={folder}", f"serve.port={free_port()}"]
    config = compose(overrides)
    recorder = Recorder()
    return Finished(config, overrides, Pipeline(config, recorder).run(), recorder)
