"""A curve arrives whole and once, whatever happens to the process or the tracking server."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from mlflow import MlflowClient
from running import free_port

from bayling.registry import runs
from bayling.registry.curve import Curve
from bayling.stage import TrackedRun

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Address and experiment of a real store."""
    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder}/mlflow.db"
    return uri, runs.experiment_id(uri, "test", folder / "artifacts")


@pytest.fixture
def tracked(store: tuple[str, str], request: pytest.FixtureRequest) -> TrackedRun:
    uri, experiment = store
    return runs.open_run(uri, experiment, name="a run", key=request.node.name, stage="train")


def history(tracked: TrackedRun, metric: str = "loss") -> list[tuple[int, float]]:
    points = MlflowClient(tracked.tracking_uri).get_metric_history(tracked.run_id, metric)
    return sorted((point.step, point.value) for point in points)


def lines(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text("utf-8").splitlines()]


_QUOTA = """
import resource, signal, sys
sys.path[:0] = {paths!r}
from pathlib import Path
from bayling.registry.curve import Curve
from bayling.stage import TrackedRun

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path(sys.argv[4])
curve = Curve(TrackedRun(*sys.argv[1:4]), path)
curve.log(1, {{"loss": 1.0}})
size = path.stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, resource.RLIM_INFINITY))
curve.log(2, {{"loss": 2.0}})
curve.log(3, {{"loss": 3.0}})
print(path.stat().st_size == size)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
curve.log(4, {{"loss": 4.0}})
print(curve.flush(60))
curve.close()
"""


def test_rows_that_a_full_disk_refuses_wait_for_room(tracked: TrackedRun, tmp_path: Path) -> None:
    path = tmp_path / "curve.jsonl"
    code = _QUOTA.format(paths=[str(Path(__file__).parents[2] / "platform")])
    where = [tracked.tracking_uri, tracked.experiment, tracked.run_id, str(path)]
    done = subprocess.run([sys.executable, "-c", code, *where], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "True"], "half a row was left, or one did not arrive"
    assert lines(path) == [1, 2, 3, 4]
    assert history(tracked) == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]


def test_no_step_is_logged_twice(tracked: TrackedRun, tmp_path: Path) -> None:
    before = Curve(tracked, tmp_path / "curve.jsonl")
    for step in (1, 2, 3):
        before.log(step, {"loss": 1.0 / step, "rate": 0.5})
    assert before.flush(60)
    before.close()
    after = Curve(tracked, tmp_path / "curve.jsonl")  # went on from a checkpoint at step 1
    assert after.last_step == 3
    for step in (2, 3, 4):
        after.log(step, {"loss": 100.0 + step})
    assert after.flush(60)
    after.close()
    assert history(tracked) == [(1, 1.0), (2, 0.5), (3, 1 / 3), (4, 104.0)]
    assert history(tracked, "rate") == [(1, 0.5), (2, 0.5), (3, 0.5)]
    assert lines(tmp_path / "curve.jsonl") == [1, 2, 3, 4]


def test_a_row_is_on_disk_before_anybody_sends_it(tracked: TrackedRun, tmp_path: Path) -> None:
    nowhere = TrackedRun(f"http://127.0.0.1:{free_port()}", "0", tracked.run_id)
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from bayling.registry.curve import Curve; from bayling.stage import TrackedRun\n"
        "curve = Curve(TrackedRun(sys.argv[1], '0', sys.argv[2]), Path(sys.argv[3]))\n"
        "for step in (1, 2, 3): curve.log(step, {'loss': 0.5 * step})\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    path = tmp_path / "curve.jsonl"
    arguments = [nowhere.tracking_uri, nowhere.run_id, str(path)]
    killed = subprocess.run([sys.executable, "-c", code, *arguments])
    assert killed.returncode == -9
    after = Curve(tracked, path)
    assert after.flush(60)
    after.close()
    assert history(tracked) == [(1, 0.5), (2, 1.0), (3, 1.5)]


def test_half_a_line_of_a_killed_process_is_cut_off(tracked: TrackedRun, tmp_path: Path) -> None:
    path = tmp_path / "curve.jsonl"
    first = Curve(tracked, path)
    first.log(1, {"loss": 1.0})
    first.close()
    with path.open("a") as file:
        file.write('{"step": 2, "time": 17, "val')
    second = Curve(tracked, path)
    assert second.last_step == 1
    second.log(2, {"loss": 2.0})
    assert second.flush(60)
    second.close()
    assert lines(path) == [1, 2]
    assert history(tracked) == [(1, 1.0), (2, 2.0)]


def test_another_run_gets_the_whole_curve(
    store: tuple[str, str], tracked: TrackedRun, tmp_path: Path
) -> None:
    """The store was replaced, or its run deleted."""
    path = tmp_path / "curve.jsonl"
    first = Curve(tracked, path)
    for step in (1, 2):
        first.log(step, {"loss": float(step)})
    assert first.flush(60)
    first.close()
    other = runs.open_run(*store, name="another", key="another", stage="train")
    second = Curve(other, path)
    second.log(3, {"loss": 3.0})
    assert second.flush(60)
    second.close()
    assert history(other) == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert history(tracked) == [(1, 1.0), (2, 2.0)]


def test_rows_that_were_sent_but_not_noted_are_there_once(
    tracked: TrackedRun, tmp_path: Path
) -> None:
    path = tmp_path / "curve.jsonl"
    first = Curve(tracked, path)
    for step in (1, 2, 3):
        first.log(step, {"loss": float(step), "rate": 0.1})
    assert first.flush(60)
    first.close()
    (tmp_path / "curve.sent").unlink()
    again = Curve(tracked, path)
    assert again.flush(60)
    again.close()
    assert history(tracked) == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert history(tracked, "rate") == [(1, 0.1), (2, 0.1), (3, 0.1)]


def test_many_rows_go_in_requests_that_the_server_takes(
    tracked: TrackedRun, tmp_path: Path
) -> None:
    curve = Curve(tracked, tmp_path / "curve.jsonl")
    values = {f"group/{number}": float(number) for number in range(150)}
    for step in range(1, 21):  # 3,000 values
        curve.log(step, values)
    assert curve.flush(120)
    curve.close()
    for metric in ("group/0", "group/149"):
        assert [step for step, _ in history(tracked, metric)] == list(range(1, 21))


class Server:
    """MLflow's REST address: counts the batches, and refuses them while it is `broken`."""

    def __init__(self) -> None:
        self.broken = True
        self.batches: list[list[int]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if not server.broken:
                    server.batches.append([metric["step"] for metric in body["metrics"]])
                content = b"{}"
                self.send_response(500 if server.broken else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None: ...

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


def test_rows_wait_for_a_server_that_is_away_and_arrive_once(
    server: Server, tmp_path: Path
) -> None:
    curve = Curve(TrackedRun(server.address, "0", "run"), tmp_path / "curve.jsonl")
    for step in (1, 2, 3):
        curve.log(step, {"loss": 1.0})
    assert not curve.flush(0.5)
    deadline = time.monotonic() + 60
    while curve.trouble is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert server.address.rpartition(":")[2] in curve.trouble
    assert server.batches == []
    curve.log(4, {"loss": 1.0})
    server.broken = False
    assert curve.flush(60)
    curve.close()
    assert [step for batch in server.batches for step in batch] == [1, 2, 3, 4]


def test_what_was_not_sent_when_it_was_closed_is_sent_by_the_next(
    server: Server, tmp_path: Path
) -> None:
    tracked = TrackedRun(server.address, "0", "run")
    first = Curve(tracked, tmp_path / "curve.jsonl")
    first.log(1, {"loss": 1.0})
    assert not first.flush(0.2)
    first.close()
    server.broken = False
    second = Curve(tracked, tmp_path / "curve.jsonl")
    assert second.flush(60)
    second.close()
    assert server.batches == [[1]]
