"""Training goes on whatever happens to its workers, and ends as if nothing had."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from disturbed import EVERY, LOG, STEPS, Training, apart, check_whole, in_fp32, wait_until
from running import Recorder, free_port
from safetensors.torch import load_file
from tiny_model import make_model

from bayling.config import compose
from bayling.errors import StageFailed, UserError
from bayling.pipeline import Pipeline

pytestmark = [pytest.mark.drill, pytest.mark.timeout(1200)]


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


def test_a_killed_worker_a_flipped_byte_and_a_stopped_worker(
    prepared: list[str], undisturbed: Training, tmp_path: Path
) -> None:
    """It goes on from the checkpoint before the damaged one, the worker that stands still is found,
    shown and replaced, and no bit of the result differs."""
    step = random.randrange(3, 6) * EVERY
    training = Training([*apart(prepared, tmp_path), "train.stuck_after_s=15"])
    training.hold(step).start().reaches(step)
    workers = [psutil.Process(pid) for pid in training.pids()]
    training.release()
    time.sleep(random.uniform(0, 0.2))  # at any moment of a step
    training.hold(STEPS - EVERY)
    random.choice(workers).kill()
    # Until the last of them is gone, a newer checkpoint may be published.
    psutil.wait_procs(workers, 60)
    shard = training.checkpoints()[0].folder / "worker-00001.safetensors"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    training.reaches(STEPS - EVERY)
    assert any("is damaged: its checksum differs" in text for text in training.events())
    assert training.live().totals.restarts == 1

    os.kill(training.pids()[1], signal.SIGSTOP)
    training.release()
    still = "worker 1 gave no sign of life for 15 s: it is ended and replaced"
    found = lambda: [text for text in training.events() if text.startswith(still)]  # noqa: E731
    [said] = wait_until(found, 300, "the discovery")
    wait_until(lambda: said in training.recorder.notes, 60, "being told")
    [dump] = training.folder.glob("stacks-worker-1-*.txt")
    stacks = dump.read_text("utf-8")
    assert "train_worker" in stacks, stacks
    training.finish()
    check_whole(training)
    assert training.weights() == undisturbed.weights()
    assert training.curve() == undisturbed.curve()
    assert training.curve("heldout/loss") == undisturbed.curve("heldout/loss")
    assert training.live().totals.restarts == 2
    assert training.live().totals.restart_s > 0
    # It took longer than the ten seconds between two looks at a node.
    shown = training.run().data.metrics
    assert "system/node-0/cpu_utilization_percentage" in shown
    assert shown["system/node-0/system_memory_usage_megabytes"] > 0


def test_a_node_lost_and_two_more_that_come(
    prepared: list[str], undisturbed: Training, nodes: Any, tmp_path: Path
) -> None:
    """2 workers, then 1, in the end 3: the same samples in the same order, without a human."""
    elastic = ["scale.workers=4", "scale.min_workers=1", "scale.resize_after_s=1"]
    with two_nodes_again(nodes):
        training = Training([*apart(prepared, tmp_path), *elastic]).hold(2 * EVERY).start()
        training.reaches(2 * EVERY)
        assert training.live().workers == 2
        lost = next(node for node in nodes.list_all_nodes() if node is not nodes.head_node)
        nodes.remove_node(lost, allow_graceful=False)
        wait_until(lambda: training.live().workers == 1, 300, "going on with one worker")
        assert training.live().step == 2 * EVERY
        training.hold(3 * EVERY).reaches(3 * EVERY)
        assert training.checkpoints()[0].progress.workers == 1
        add_node(nodes)
        add_node(nodes)
        wait_until(lambda: training.live().workers == 3, 300, "going on with three workers")
        training.release().finish()
    check_whole(training)
    assert training.checkpoints()[0].progress.workers == 3
    for step, loss in undisturbed.curve().items():
        assert training.curve()[step] == pytest.approx(loss, abs=1e-3)
    said = [text for text in training.events() if text.startswith("goes on with")]
    assert said[0] == "goes on with 1 workers instead of 2"
    # With two in between, where Ray looked after the first of them had come.
    assert said[-1].startswith("goes on with 3 workers instead of ")


def test_adapters_grow_from_one_worker_to_four(
    nodes: Any, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """1, 2, then 4 workers; what is frozen stays as it was."""
    folder = tmp_path_factory.mktemp("adapters")
    base = make_model(folder / "base")
    overrides = [
        *in_fp32(),
        f"output_dir={folder / 'out'}",
        f"model.base={base}",
        "model.context_length=256",
        "train.lora.rank=4",
        "train.weight_decay=0.1",
        "train.learning_rate=1e-3",
    ]
    Pipeline(compose(overrides), Recorder()).run_stage("data")
    alone = Training(apart(overrides, tmp_path / "alone")).start().finish()
    elastic = ["scale.workers=4", "scale.min_workers=1", "scale.resize_after_s=1"]
    with two_nodes_again(nodes):
        lost = next(node for node in nodes.list_all_nodes() if node is not nodes.head_node)
        nodes.remove_node(lost, allow_graceful=False)
        training = Training([*apart(overrides, tmp_path / "elastic"), *elastic])
        training.hold(EVERY).start().reaches(EVERY)
        assert training.checkpoints()[0].progress.workers == 1
        add_node(nodes)
        wait_until(lambda: training.live().workers == 2, 300, "going on with two workers")
        training.hold(2 * EVERY).reaches(2 * EVERY)
        assert training.checkpoints()[0].progress.workers == 2
        add_node(nodes)
        add_node(nodes)
        wait_until(lambda: training.live().workers == 4, 300, "going on with four workers")
        training.release().finish()
    check_whole(training)
    assert training.checkpoints()[0].progress.workers == 4
    for step, loss in alone.curve().items():
        assert training.curve()[step] == pytest.approx(loss, abs=1e-3)
    assert all("lora_" in name for name in training.checkpoints()[0].progress.shapes)
    made = load_file(training.folder / "model" / "model.safetensors")
    before = load_file(base / "model.safetensors")
    for name in ("lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"):
        assert made[name].equal(before[name].bfloat16()), name


def test_out_of_memory_halves_the_micro_batch_and_more_losses_than_are_allowed_end_the_run(
    prepared: list[str], undisturbed: Training, tmp_path: Path
) -> None:
    """A worker that gets no more memory from the system costs none of `train.max_failures`. One
    that is killed does, and the same command goes on from there."""
    overrides = apart(prepared, tmp_path)
    training = Training([*overrides, "train.max_failures=0"])
    training.hold(EVERY).start().reaches(EVERY)
    before = json.loads((training.folder / "layouts.json").read_text("utf-8"))
    [micro] = [one["micro_batch"] for one in before.values()]
    assert micro > 1
    # No byte more than it has: what the next step asks for is refused.
    resource.prlimit(training.pids()[0], resource.RLIMIT_AS, (2**20, resource.RLIM_INFINITY))
    training.hold(3 * EVERY)
    wait_until(lambda: (training.folder / "micro-batch.json").exists(), 300, "the halving")
    assert json.loads((training.folder / "micro-batch.json").read_text("utf-8")) == micro // 2
    training.reaches(3 * EVERY)
    [said] = [text for text in training.events() if text.startswith("out of memory")]
    assert said.startswith(f"out of memory with a micro batch of {micro} (")
    assert said.endswith(f": {micro // 2} now")

    psutil.Process(training.pids()[0]).kill()
    training.release()
    error = training.failed()
    assert isinstance(error, StageFailed)
    assert str(error).startswith("workers were lost 1 times, train.max_failures=0: ")
    assert training.run().info.status == "FAILED"
    again = Training(overrides).start().finish()
    check_whole(again)
    assert again.run().data.tags["layout.micro_batch"] == str(micro // 2)
    for step, loss in undisturbed.curve().items():
        assert again.curve()[step] == pytest.approx(loss, abs=1e-3)
    assert any("train.max_failures=3 instead of 0" in text for text in again.events())


def test_models_are_exported_while_training_goes_on(
    prepared: list[str], undisturbed: Training, tmp_path: Path
) -> None:
    """Retention removes checkpoints at the same time."""
    often = ["train.checkpoint_every=2", "train.keep_checkpoints=1", "train.keep_best=0"]
    training = Training([*apart(prepared, tmp_path / "run"), *often])
    training.hold(2, pause_s=0.1).start().reaches(2)
    exported, refused = [], 0
    while training.manifest is None:
        assert training.error is None, training.error
        target = tmp_path / f"export-{len(exported)}"
        try:
            exported.append((training.pipeline.export(None, target), target))
        except UserError as error:
            assert "was removed by the run that goes on" in str(error)
            refused += 1
    training.finish()
    assert len(exported) > refused
    assert len({step for step, _ in exported}) > 3
    for step, folder in exported:
        provenance = json.loads((folder / "provenance.json").read_text("utf-8"))
        assert provenance["trained_steps"] == step
        assert all(
            tensor.isfinite().all() for tensor in load_file(folder / "model.safetensors").values()
        )
    assert training.weights() == undisturbed.weights()
    assert not list((training.folder / "checkpoints").glob(".*")), "links were left behind"


def test_a_notice_that_a_node_is_taken_away_is_answered_with_a_checkpoint(
    prepared: list[str], undisturbed: Training, nodes: Any, tmp_path: Path
) -> None:
    from ray._raylet import GcsClient
    from ray.core.generated import autoscaler_pb2

    elastic = ["scale.workers=2", "scale.min_workers=1", "train.checkpoint_every=1000"]
    with two_nodes_again(nodes):
        training = Training([*apart(prepared, tmp_path), *elastic])
        training.hold(LOG, pause_s=0.5).start()  # it asks Ray between steps, every few seconds
        wait_until(lambda: (training.folder / "progress.json").exists(), 300, "training")
        wait_until(lambda: training.live().step >= LOG, 300, "the first steps")
        doomed = next(node for node in nodes.list_all_nodes() if node is not nodes.head_node)
        reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
        notice_s = 10.0
        deadline = int((time.time() + notice_s) * 1000)
        GcsClient(address=nodes.gcs_address).drain_node(doomed.node_id, reason, "spot", deadline)
        wait_until(training.checkpoints, notice_s, "a checkpoint in time")
        saved = training.checkpoints()[0].progress.step
        nodes.remove_node(doomed, allow_graceful=False)
        training.release().finish()
    assert 0 < saved < STEPS
    check_whole(training)
    [said] = [text for text in training.events() if "is about to be taken away" in text]
    assert said.endswith(f"saved step {saved}")
    assert "goes on with 1 workers instead of 2" in training.events()
    for step, loss in undisturbed.curve().items():
        assert training.curve()[step] == pytest.approx(loss, abs=1e-3)


def test_a_full_disk_costs_a_checkpoint_and_not_the_run(
    prepared: list[str], undisturbed: Training, tmp_path: Path
) -> None:
    """The whole of the disk that the stage writes to: checkpoints, curve, signs of life."""
    training = Training(apart(prepared, tmp_path))
    disk = training.folder
    disk.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk can be mounted by root only")
    try:
        training.hold(2 * EVERY, pause_s=0.1).start().reaches(2 * EVERY)
        filler = disk / "filler"
        file = os.open(filler, os.O_WRONLY | os.O_CREAT)
        full_at = training.checkpoints()[0].step
        before = training.steps_of(0)

        def trained_on() -> bool:
            # An old checkpoint that is removed makes room: it is taken at once.
            with suppress(OSError):
                while True:
                    os.write(file, b"\0" * 4096)
            assert training.error is None, training.error
            return training.steps_of(0) > before + 3 * EVERY

        wait_until(trained_on, 300, "going on")
        assert training.checkpoints()[0].step <= full_at + EVERY
        os.close(file)
        filler.unlink()
        training.release().finish()
        check_whole(training)
        assert training.weights() == undisturbed.weights()
        assert training.curve() == undisturbed.curve()
        assert "a checkpoint could not be written" in training.events()[0]
        assert "training goes on without it" in training.events()[0]
        totals = training.live().totals
        assert totals.failed_checkpoints >= 1
        assert totals.restarts == 0
        left = list((disk / "checkpoints").glob(".step-*"))
        assert not left, "half a checkpoint was left behind"
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_the_tracking_server_goes_away_and_comes_back(
    nodes: Any, undisturbed: Training, tmp_path: Path
) -> None:
    """Training does not wait for it, and every metric arrives once."""
    port = free_port()
    server = _server(tmp_path, port)
    uri = f"http://127.0.0.1:{port}"
    overrides = [*in_fp32(), f"output_dir={tmp_path / 'out'}", f"tracking_uri={uri}"]
    try:
        Pipeline(compose(overrides), Recorder()).run_stage("data")
        training = Training(overrides).hold(2 * EVERY).start()
        training.reaches(2 * EVERY)
        _kill(server)
        training.hold(6 * EVERY).reaches(6 * EVERY)
        server = _server(tmp_path, port)
        training.release().finish()
        check_whole(training)
        assert training.curve() == undisturbed.curve()
        assert training.weights() == undisturbed.weights()
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
