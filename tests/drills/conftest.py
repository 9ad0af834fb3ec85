"""A cluster of several local nodes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import held
import pytest
from disturbed import Training, apart, in_fp32
from running import Recorder

from bayling.config import compose
from bayling.pipeline import Pipeline

_BUILD = """
from bayling.scale import Device
from bayling.train import ops, setup
from bayling.train.config import Offload
from bayling.train.layout import Layout

setup.prepare_process(Device.cpu, 1)
ops.build(Layout(1, Offload.nvme, Offload.none, 1, 1, ()))
"""


BEGIN_UNTIL = "BAYLING_DRILLS_BEGIN_UNTIL"
"""When the last drill may begin, in seconds since 1970: for whoever has to end in time."""


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before any fixture of a drill is made."""
    until = os.environ.get(BEGIN_UNTIL)
    if until and time.time() > float(until):
        pytest.skip(f"left out: {BEGIN_UNTIL} is over")


@pytest.fixture(scope="session", autouse=True)
def compiled_meanwhile(request: pytest.FixtureRequest) -> Iterator[None]:
    """What the drills of offload have DeepSpeed compile takes minutes: it begins with the session,
    on what the other drills leave of the cores. Whoever needs it waits for it as for any builder.
    """
    wanted = any("test_offload" in item.nodeid for item in request.session.items)
    if not wanted or os.environ.get("PYTEST_XDIST_WORKER", "gw0") != "gw0":
        yield
        return
    process = subprocess.Popen(
        ["nice", "-n", "19", sys.executable, "-c", _BUILD],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    yield
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="session")
def nodes() -> Iterator[Any]:
    """Ray on several local nodes, all real processes: a head without CPUs, and two with one.

    Training that it runs can be held at a step.
    """
    import ray
    from ray.cluster_utils import Cluster

    from bayling.train import run

    patch = pytest.MonkeyPatch()
    patch.setattr(run, "train_worker", held.train_worker)

    # As a person would set them who cannot wait: what is tested is what follows.
    os.environ["RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S"] = "0.5"
    os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.5"
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = "10"
    paths = os.pathsep.join(str(Path(__file__).parents[2] / name) for name in ("platform", "tests"))
    os.environ["PYTHONPATH"] = paths
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "object_store_memory": 80 * 2**20},
    )
    for _ in range(2):
        cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    patch.undo()
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(scope="session")
def prepared(nodes: Any, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides of a training in fp32 whose data is there."""
    overrides = [*in_fp32(), f"output_dir={tmp_path_factory.mktemp('prepared')}"]
    Pipeline(compose(overrides), Recorder()).run_stage("data")
    return overrides


@pytest.fixture(scope="session")
def undisturbed(prepared: list[str], tmp_path_factory: pytest.TempPathFactory) -> Training:
    """That training, left alone."""
    return Training(apart(prepared, tmp_path_factory.mktemp("undisturbed"))).start().finish()
