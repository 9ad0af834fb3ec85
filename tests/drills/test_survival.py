"""Training goes on whatever happens to its workers, and ends as if nothing had."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from disturbed import Training, check_whole, wait_until
from running import Recorder, free_port
from safetensors.torch import load_file, save_file
from tiny_model import make_model

from bayling.config import compose
from bayling.errors import StageFailed
from bayling.pipeline import Pipeline
from bayling.train.batches import Order, PackedTokens

pytestmark = [pytest.mark.drill, pytest.mark.timeout(1200)]

STEPS, EVERY, LOG = 120, 10, 5
_TRAINING = [
    "recipe=smoke",
    "train.precision=fp32",
    f"train.steps={STEPS}",
    f"train.checkpoint_every={EVERY}",
    "train.heldout_every=40",
    f"train.log_every={LOG}",
]


@pytest.fixture(scope="module")
def prepared(nodes: Any, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides of a training in fp32 whose data is there."""
    overrides = [*_TRAINING, f"output_dir={tmp_path_factory.mktemp('survival')}"]
    Pipeline(compose(overrides), Recorder()).run_stage("data")
    return overrides


@pytest.fixture(scope="module")
def undisturbed(prepared: list[str]) -> Training:
    return Training(prepared).start().finish()


@pytest.fixture(scope="module")
def slowly(prepared: list[str]) -> list[str]:
    """With longer steps: Ray looks for new and doomed nodes every few seconds only."""
    return [*prepared, "train.global_batch=64"]


@pytest.fixture(scope="module")
def undisturbed_slowly(slowly: list[str]) -> Training:
    return Training(slowly).start().finish()


@contextmanager
def two_nodes_again(cluster: Any) -> Iterator[None]:
    """Whatever was lost or added is put right, for the next test."""
    try:
        yield
    finally:
        workers = [node for node in cluster.list_all_nodes() if node is not cluster.head_node]
        for node in workers[2:]:
            cluster.remove_node(node)
        for _ in range(2 - len(workers)):
            add_node(cluster)


def add_node(cluster: Any) -> Any:
    return cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)


def test_a_killed_worker_and_a_flipped_byte(prepared: list[str], undisturbed: Training) -> None:
    """It goes on from the checkpoint before the damaged one, and no bit of the result differs."""
    training = Training([*prepared, "train.max_failures=4"]).start()
    training.reaches(random.randrange(3, 7) * EVERY)
    workers = [psutil.Process(pid) for pid in training.pids()]
    random.choice(workers).kill()
    # Until the last of them is gone, a newer checkpoint may be published.
    psutil.wait_procs(workers, 60)
    shard = training.checkpoints()[0].folder / "worker-00001.safetensors"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    training.finish()
    check_whole(training, STEPS, LOG)
    assert training.weights() == undisturbed.weights()
    assert training.curve() == undisturbed.curve()
    assert training.curve("heldout/loss") == undisturbed.curve("heldout/loss")
    assert any("is damaged: its checksum differs" in text for text in training.events())
    assert training.live().totals.restarts == 1
    assert training.live().totals.restart_s > 0


def test_a_stopped_worker_is_found_shown_and_replaced(
    prepared: list[str], undisturbed: Training
) -> None:
    training = Training([*prepared, "train.stuck_after_s=15"]).start()
    training.reaches(2 * EVERY)
    os.kill(training.pids()[1], signal.SIGSTOP)
    wait_until(lambda: training.events(), 300, "the discovery")
    [said] = training.events()
    assert said.startswith("worker 1 gave no sign of life for 15 s: it is ended and replaced")
    wait_until(lambda: said in training.recorder.notes, 60, "being told")
    [dump] = training.folder.glob("stacks-worker-1-*.txt")
    stacks = dump.read_text("utf-8")
    assert "train_worker" in stacks, stacks
    training.finish()
    check_whole(training, STEPS, LOG)
    assert training.weights() == undisturbed.weights()
    assert training.curve() == undisturbed.curve()


def test_a_node_lost_and_two_more_that_come(
    slowly: list[str], undisturbed_slowly: Training, nodes: Any
) -> None:
    """2 workers, then 1, in the end 3: the same samples in the same order, without a human."""
    elastic = ["scale.workers=4", "scale.min_workers=1", "scale.resize_after_s=1"]
    with two_nodes_again(nodes):
        training = Training([*slowly, *elastic, "train.max_failures=5"]).start()
        training.reaches(2 * EVERY)
        assert training.live().workers == 2
        lost = next(node for node in nodes.list_all_nodes() if node is not nodes.head_node)
        before = training.live().step
        nodes.remove_node(lost, allow_graceful=False)
        wait_until(lambda: training.live().workers == 1, 300, "going on with one worker")
        assert training.live().step >= before - before % EVERY - EVERY
        alone = lambda: training.checkpoints()[0].progress.workers == 1  # noqa: E731
        wait_until(alone, 300, "a checkpoint of one worker")
        add_node(nodes)
        add_node(nodes)
        wait_until(lambda: training.live().workers == 3, 300, "going on with three workers")
        training.finish()
    check_whole(training, STEPS, LOG)
    assert training.checkpoints()[0].progress.workers == 3
    for step, loss in undisturbed_slowly.curve().items():
        assert training.curve()[step] == pytest.approx(loss, abs=1e-3)
    said = [text for text in training.events() if text.startswith("goes on with")]
    assert said[0] == "goes on with 1 workers instead of 2"
    # With two in between, where Ray looked after the first of them had come.
    assert said[-1].startswith("goes on with 3 workers instead of ")


def test_a_notice_that_a_node_is_taken_away_is_answered_with_a_checkpoint(
    slowly: list[str], undisturbed_slowly: Training, nodes: Any
) -> None:
    from ray._raylet import GcsClient
    from ray.core.generated import autoscaler_pb2

    elastic = ["scale.workers=2", "scale.min_workers=1", "train.checkpoint_every=1000"]
    with two_nodes_again(nodes):
        training = Training([*slowly, *elastic]).start()
        wait_until(lambda: (training.folder / "progress.json").exists(), 300, "training")
        wait_until(lambda: training.live().step >= LOG, 300, "the first steps")
        doomed = next(node for node in nodes.list_all_nodes() if node is not nodes.head_node)
        reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
        notice_s = 10.0
        deadline = int((time.time() + notice_s) * 1000)
        GcsClient(address=nodes.gcs_address).drain_node(doomed.node_id, reason, "spot", deadline)
        wait_until(training.checkpoints, notice_s, "a checkpoint in time")
        saved = training.checkpoints()[0].progress.step
        # Not at the deadline: on a fast machine the run would be over by then.
        nodes.remove_node(doomed, allow_graceful=False)
        training.finish()
    assert 0 < saved < STEPS
    check_whole(training, STEPS, LOG)
    [said] = [text for text in training.events() if "is about to be taken away" in text]
    assert said.endswith(f"saved step {saved}")
    assert "goes on with 1 workers instead of 2" in training.events()
    for step, loss in undisturbed_slowly.curve().items():
        assert training.curve()[step] == pytest.approx(loss, abs=1e-3)


def test_a_full_disk_costs_a_checkpoint_and_not_the_run(
    prepared: list[str], undisturbed: Training
) -> None:
    training = Training([*prepared, "train.max_failures=2"])
    disk = training.folder / "checkpoints"
    disk.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk can be mounted by root only")
    try:
        training.start().reaches(2 * EVERY)
        filler = disk / "filler"
        file = os.open(filler, os.O_WRONLY | os.O_CREAT)
        full_at = training.checkpoints()[0].progress.step

        def failed() -> bool:
            # An old checkpoint that is removed makes room: it is taken at once.
            with suppress(OSError):
                while True:
                    os.write(file, b"\0" * 4096)
            return bool(training.events())

        wait_until(failed, 300, "the failed write")
        os.close(file)
        filler.unlink()
        training.reaches(full_at + 2 * EVERY)
        training.finish()
        check_whole(training, STEPS, LOG)
        assert training.weights() == undisturbed.weights()
        assert "a checkpoint could not be written" in training.events()[0]
        assert "training goes on without it" in training.events()[0]
        totals = training.live().totals
        assert totals.failed_checkpoints >= 1
        assert totals.restarts == 0
        assert not list(disk.glob(".step-*")), "half a checkpoint was left behind"
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_the_tracking_server_goes_away_and_comes_back(
    nodes: Any, undisturbed: Training, tmp_path: Path
) -> None:
    """Training does not wait for it, and every metric arrives once."""
    port = free_port()
    server = _server(tmp_path, port)
    uri = f"http://127.0.0.1:{port}"
    overrides = [*_TRAINING, f"output_dir={tmp_path / 'out'}", f"tracking_uri={uri}"]
    try:
        Pipeline(compose(overrides), Recorder()).run_stage("data")
        training = Training(overrides).start()
        training.reaches(2 * EVERY)
        _kill(server)
        gone_at = training.live().step
        training.reaches(gone_at - gone_at % EVERY + 3 * EVERY)
        server = _server(tmp_path, port)
        training.finish()
        check_whole(training, STEPS, LOG)
        assert training.curve() == undisturbed.curve()
        assert training.live().totals.restarts == 0
    finally:
        _kill(server)


def _kill(server: subprocess.Popen[bytes]) -> None:
    """With the processes that it started, which are the ones that answer."""
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def _server(folder: Path, port: int) -> subprocess.Popen[bytes]:
    import httpx

    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1"]
    command += ["--port", str(port), "--backend-store-uri", f"sqlite:///{folder}/server.db"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    server = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
    )

    def up() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
        except httpx.HTTPError:
            return False

    wait_until(up, 300, "the tracking server's start")
    return server


@dataclass(frozen=True)
class Poisoned:
    """A training in which the loss of some batches is no number."""

    overrides: list[str]
    steps: list[int]
    """From 1."""
    conversations: set[str]
    """Those of the sequences with the token."""


@pytest.fixture(scope="module")
def poisoned(nodes: Any, tmp_path_factory: pytest.TempPathFactory) -> Poisoned:
    """The embedding of a token that occurs in few sequences is not a number."""
    folder = tmp_path_factory.mktemp("poisoned")
    base = make_model(folder / "base")
    overrides = [
        *_TRAINING,
        f"output_dir={folder}",
        f"model.base={base}",
        "model.context_length=256",
        "train.learning_rate=1e-3",
    ]
    pipeline = Pipeline(compose(overrides), Recorder())
    pipeline.run_stage("data")
    packed = PackedTokens(pipeline.folder("data") / "packed")
    ids = packed.batch(np.arange(len(packed)))["input_ids"].numpy()
    rows_of = {token: np.flatnonzero((ids == token).any(1)) for token in np.unique(ids)}
    order = Order(len(packed), pipeline.config.train.global_batch, pipeline.config.seed)
    batches = [order.step(step) for step in range(STEPS)]
    met = {
        token: [step + 1 for step, batch in enumerate(batches) if np.isin(rows, batch).any()]
        for token, rows in rows_of.items()
    }
    # One that is met late, and seldom.
    token = max(met, key=lambda token: (len(met[token]) < 10, met[token][0]))
    steps, rows = met[token], rows_of[token]
    assert EVERY < steps[0] < STEPS
    path = base / "model.safetensors"
    tensors = load_file(path)
    tensors["model.embed_tokens.weight"][int(token)] = float("nan")
    save_file(tensors, path, metadata={"format": "pt"})
    return Poisoned(overrides, steps, set(packed.conversations(rows)))


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_batch(poisoned: Poisoned) -> None:
    training = Training(poisoned.overrides).start()
    error = training.failed()
    assert isinstance(error, StageFailed)
    assert f"training was stopped at step {poisoned.steps[0]}: the loss is nan" in str(error)
    assert "train.on_bad_step=rollback" in str(error)
    assert training.run().info.status == "FAILED"
    lines = (training.folder / "events.jsonl").read_text("utf-8").splitlines()
    [event] = [json.loads(line) for line in lines]
    assert poisoned.conversations & set(event["conversations"])
    assert training.live().totals.restarts == 0, "a second try of the same step is pointless"


def test_a_loss_that_is_no_number_is_left_out_by_going_back(poisoned: Poisoned) -> None:
    training = Training([*poisoned.overrides, "train.on_bad_step=rollback"]).start().finish()
    assert training.run().info.status == "FINISHED"
    logged = [step for step in range(LOG, STEPS + 1, LOG) if step not in poisoned.steps]
    assert list(training.curve()) == logged
    left_out = json.loads((training.folder / "left-out.json").read_text("utf-8"))
    assert [step + 1 for step in left_out] == poisoned.steps
    assert training.live().totals.bad_steps == len(poisoned.steps)
    assert training.live().totals.restarts == 0
    assert all(math.isfinite(loss) for loss in training.curve().values())
