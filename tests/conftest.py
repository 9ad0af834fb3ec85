"""One Ray cluster and one small pipeline for the session; ports and folders of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_server import RealServer, assets
from cluster_server import running as running_server
from running import Finished, Recorder, free_port

from bayling.cluster import local
from bayling.config import compose
from bayling.pipeline import Pipeline

for name, value in local.ENVIRONMENT.items():
    os.environ.setdefault(name, value)
os.environ.pop("MLFLOW_TRACKING_URI", None)


_ONE_TRAINING = {"drills/test_survival.py", "drills/test_interruption.py"}
"""They are compared with the same training."""
_LONGEST = (
    *("drills/test_survival.py", "drills/test_serving.py", "drills/test_offload.py"),
    *("test_quickstart.py", "serve", ".", "train"),
)
"""Files and folders that take minutes: begun first, so that the short ones fill up the end. `.` has
the files beside this one."""


_SMALL_PIPELINE = {"data/test_run.py", "evaluate/test_chat_run.py", "evaluate/test_run.py"}
"""They look at the pipeline that files beside this one run, and so need the process that has it."""


def _group(path: str) -> str:
    """The folder of a test; its file where that is long or a drill. `path` is from here."""
    if path in _SMALL_PIPELINE:
        return "."
    first = path.split("/")[0]
    if first == "drills":
        return "drills/test_survival.py" if path in _ONE_TRAINING else path
    return first if first in _LONGEST or not first.endswith(".py") else "."


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first."""
    order = {name: place for place, name in enumerate(_LONGEST)}
    here = Path(__file__).parent

    def place(item: pytest.Item) -> int:
        return order.get(_group(item.path.relative_to(here).as_posix()), len(order))

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadscope` a folder's tests stay in one process, as they may share a server."""
    if config.getoption("dist") != "loadscope":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class ByFolder(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _group(nodeid.split("::")[0].removeprefix("tests/"))

    return ByFolder(config, log)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A local Ray with more logical CPUs than a laptop has cores, so that stages can overlap."""
    import ray

    root = Path(__file__).resolve().parents[1]
    with pytest.MonkeyPatch.context() as patch:
        # What runs on it is imported from here; see `bayling.cluster.local`.
        patch.setenv("PYTHONPATH", os.pathsep.join(str(root / n) for n in ("platform", "tests")))
        ray.init(
            address="local",
            num_cpus=4,
            include_dashboard=False,
            object_store_memory=150 * 2**20,
            log_to_driver=False,
            logging_level="ERROR",
        )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def real_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """A real API server, for tests that take namespaces of their own in it."""
    assets()
    with running_server(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(scope="session")
def smoke(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """`recipe=smoke`, data to serve, in a folder and a tracking store of its own."""
    folder = tmp_path_factory.mktemp("smoke")
    overrides = ["recipe=smoke", f"output_dir={folder}", f"serve.port={free_port()}"]
    config = compose(overrides)
    recorder = Recorder()
    return Finished(config, overrides, Pipeline(config, recorder).run(), recorder)
