"""Connections to a node that is about to go end with their next answer."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from app_server import serving
from fastapi import FastAPI

from bayling.serve.leaving import LastAnswers


@contextmanager
def _served(leaving: set[str]) -> Iterator[str]:
    app = FastAPI()
    app.add_middleware(LastAnswers, lambda address: address in leaving)

    @app.get("/")
    def here() -> str:
        return "here"

    with serving(app) as address:
        yield address


@pytest.mark.unit
def test_a_client_of_a_leaving_node_makes_a_new_connection() -> None:
    leaving: set[str] = set()
    with _served(leaving) as address, httpx.Client(base_url=address) as client:
        assert "connection" not in client.get("/").headers
        stream = client.get("/").extensions["network_stream"]
        kept = stream.get_extra_info("client_addr")
        leaving.add("127.0.0.1")
        last = client.get("/")
        assert last.json() == "here", "it is still answered"
        assert last.headers["connection"] == "close"
        leaving.clear()
        again = client.get("/").extensions["network_stream"]
        assert again.get_extra_info("client_addr") != kept


@pytest.mark.unit
def test_another_node_that_leaves_ends_no_connection_here() -> None:
    with _served({"10.0.0.7"}) as address:
        assert "connection" not in httpx.get(address).headers


_DRAINED = """
import time, ray
from ray.cluster_utils import Cluster
from bayling.serve.leaving import Nodes
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
ray.init(address=cluster.address)
other = cluster.add_node(num_cpus=1, resources={"other": 1})
cluster.wait_for_nodes()
address = other.node_ip_address

@ray.remote(num_cpus=0, resources={"other": 1})
class Busy:  # keeps the node from leaving at once
    def there(self): return True

busy = Busy.remote()
assert ray.get(busy.there.remote())
nodes = Nodes()
time.sleep(2.5)
print("before", nodes.leaving(address), nodes.leaving("10.0.0.7"))
client = ray._private.worker.global_worker.gcs_client
from ray.core.generated import autoscaler_pb2
accepted, why = client.drain_node(
    other.node_id, autoscaler_pb2.DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION, "test",
    int(time.time() * 1000) + 60000, timeout=20)
assert accepted, why
until = time.monotonic() + 20
while not nodes.leaving(address) and time.monotonic() < until:
    time.sleep(0.1)
print("after", nodes.leaving(address), nodes.leaving("10.0.0.7"))
"""


def test_ray_says_which_nodes_leave() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _DRAINED], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stdout.splitlines() if line.startswith(("before", "after"))]
    assert told == ["before False False", "after True False"]
