"""A node that sees another disk under the same path, as nodes without shared storage do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from disturbed import Training, apart, wait_until
from running import Recorder
from tiny_model import make_model

from bayling.config import compose
from bayling.errors import UserError
from bayling.pipeline import Pipeline

pytestmark = [pytest.mark.drill, pytest.mark.timeout(600)]


@contextmanager
def blind_node(cluster: Any, folder: Path) -> Iterator[str]:
    """Another node of the cluster with an empty disk of its own at `folder`; yields its id."""
    import ray

    before = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    start = (
        f"mount -t tmpfs tmpfs {folder} && exec {sys.executable} -m ray.scripts.scripts start "
        f"--address={cluster.address} --num-cpus=1 --object-store-memory={80 * 2**20} --block"
    )
    process = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", start],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

    def joined() -> set[str]:
        assert process.poll() is None, "the node did not start"
        return {node["NodeID"] for node in ray.nodes() if node["Alive"]} - before

    try:
        [made] = wait_until(joined, 120, "joining the cluster")
        yield made
    finally:
        process.terminate()
        process.wait(60)
        gone = lambda: made not in {n["NodeID"] for n in ray.nodes() if n["Alive"]}  # noqa: E731
        wait_until(gone, 120, "leaving the cluster")


def test_storage_that_a_node_does_not_see_is_refused_before_training(
    nodes: Any, tmp_path: Path
) -> None:
    if os.geteuid() or subprocess.run(["unshare", "--mount", "true"]).returncode:
        pytest.skip("a disk of its own can be given to a node by root only")
    base = make_model(tmp_path / "models" / "base")
    overrides = ["recipe=smoke", f"output_dir={tmp_path / 'out'}", "model.context_length=256"]
    overrides += [f"model.base={base}"]
    Pipeline(compose(overrides), Recorder()).run_stage("data")
    for hidden, key in ((tmp_path / "out", "output_dir"), (tmp_path / "models", "model.base")):
        copy = apart(overrides, tmp_path / f"no {key}") if key == "model.base" else overrides
        with blind_node(nodes, hidden) as node:
            error = Training(copy).start().failed()
        assert isinstance(error, UserError)
        assert f"is not seen by 127.0.0.1 ({node[:8]})" in str(error) or node[:8] in str(error)
        assert f"set {key} to storage that all nodes share" in str(error)


def test_weights_are_not_brought_to_where_a_node_does_not_look(nodes: Any, tmp_path: Path) -> None:
    if os.geteuid() or subprocess.run(["unshare", "--mount", "true"]).returncode:
        pytest.skip("a disk of its own can be given to a node by root only")
    source = make_model(tmp_path / "source")
    models = tmp_path / "models"
    models.mkdir()
    overrides = ["recipe=smoke", f"output_dir={tmp_path / 'out'}", "model.context_length=256"]
    overrides += [f"model.base={models / 'base'}", f"model.source={source}"]
    pipeline = Pipeline(compose(overrides), Recorder())
    with blind_node(nodes, models), pytest.raises(UserError, match=r"is not seen by .*model\.base"):
        pipeline.run_stage("data")
    assert not (models / "base").exists()
    pipeline.run_stage("data")
    assert (models / "base" / "model.safetensors").exists()
