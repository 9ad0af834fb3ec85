from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import SHAPES, pieces, progress, whole

from bayling.train import checkpoint
from bayling.train.checkpoint import complete
from bayling.train.state import KEYS
from bayling.train.writer import Writer

pytestmark = pytest.mark.unit


def make(root: Path, rank: int = 0, workers: int = 1, **more: Any) -> Writer:
    options = {"attempt": "a1", "newest": 2, "best": 1, **more}
    return Writer(root, rank=rank, workers=workers, **options)


def save(writer: Writer, step: int, rank: int = 0, workers: int = 1, **more: Any) -> None:
    writer.save(pieces(rank, workers), progress(step, workers, **more))


def steps(root: Path) -> list[int]:
    return [one.progress.step for one in complete(root)]


def leftovers(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if not path.name.startswith("step-"))


@pytest.mark.parametrize("workers", [1, 3])
def test_all_parts_together_are_one_checkpoint(tmp_path: Path, workers: int) -> None:
    writers = [make(tmp_path, rank, workers) for rank in range(workers)]
    for rank, writer in reversed(list(enumerate(writers))):
        save(writer, 10, rank, workers)
    for writer in writers:
        writer.wait()
        assert writer.failure is None
    [found] = complete(tmp_path)
    assert found.damage() is None
    for name in SHAPES:
        for key in KEYS:
            size = whole(name, key).numel()
            assert torch.equal(found.read(name, key, 0, size), whole(name, key))
    assert [writer.written for writer in writers] == [1] + [0] * (workers - 1)
    assert leftovers(tmp_path) == []


def test_there_is_no_checkpoint_before_the_last_part(tmp_path: Path) -> None:
    first, second = make(tmp_path, 0, 2), make(tmp_path, 1, 2)
    save(first, 10, 0, 2)
    assert steps(tmp_path) == []
    save(second, 10, 1, 2)
    second.wait()
    first.wait()
    assert steps(tmp_path) == [10]


def test_what_is_written_is_the_state_of_the_moment_of_saving(tmp_path: Path) -> None:
    """Training goes on in the same memory while the file is written."""
    writer, parts = make(tmp_path), pieces(0, 1)
    for step in (1, 2):
        writer.save(parts, progress(step, 1))
        for piece in parts:
            for tensor in piece.tensors.values():
                tensor += 0.5
    writer.wait()
    newer, older = complete(tmp_path)
    for name in SHAPES:
        assert torch.equal(older.weight(name).flatten(), whole(name, "weight"))
        assert torch.equal(newer.weight(name).flatten(), whole(name, "weight") + 0.5)


class SlowDisk:
    """Parts of the given steps are written when `go` is set, and not before."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go, self.began = threading.Event(), threading.Event()
        usual = checkpoint.write_shard

        def slow(*arguments: Any) -> None:
            self.began.set()
            assert self.go.wait(60)
            usual(*arguments)

        monkeypatch.setattr(checkpoint, "write_shard", slow)


def test_a_slow_disk_does_not_stop_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SlowDisk(monkeypatch)
    writer = make(tmp_path)
    save(writer, 1)  # would hang here otherwise
    assert disk.began.wait(60)
    assert steps(tmp_path) == []
    assert writer.pause_s > 0
    before = writer.pause_s
    disk.go.set()
    writer.wait()
    assert writer.pause_s == before, "writing is not counted as standing still"
    assert writer.write_s > 0
    assert steps(tmp_path) == [1]


def test_a_second_checkpoint_waits_for_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its memory is that of the first."""
    disk = SlowDisk(monkeypatch)
    writer = make(tmp_path)
    save(writer, 1)
    second = threading.Thread(target=save, args=(writer, 2), daemon=True)
    second.start()
    second.join(0.3)
    assert second.is_alive()
    disk.go.set()
    second.join(60)
    writer.wait()
    assert steps(tmp_path) == [2, 1]
    assert all(one.damage() is None for one in complete(tmp_path))


def test_a_part_that_never_comes_is_given_up(tmp_path: Path) -> None:
    writer = make(tmp_path, 0, 2)
    save(writer, 1, 0, 2)
    writer.give_up()
    writer.wait()
    assert list(tmp_path.iterdir()) == []
    assert writer.failure is None
    other = make(tmp_path, 1, 2)
    for rank, one in ((0, writer), (1, other)):
        save(one, 2, rank, 2)
    writer.wait()
    assert steps(tmp_path) == [2]


def test_nobody_waits_for_ever_when_another_worker_could_not_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each asks for its own part first; then all give up together, and no part is left behind."""
    usual = checkpoint.write_shard

    def full_for_the_second(folder: Path, rank: int, parts: Any) -> None:
        if rank == 1:
            raise OSError(28, "No space left on device")
        usual(folder, rank, parts)

    monkeypatch.setattr(checkpoint, "write_shard", full_for_the_second)
    writers = [make(tmp_path, rank, 3) for rank in range(3)]
    for rank in (0, 2):
        save(writers[rank], 1, rank, 3)
        assert writers[rank].wait_for_part()
    save(writers[1], 1, 1, 3)
    assert not writers[1].wait_for_part()
    for writer in writers:
        writer.give_up()
    for writer in writers:
        writer.wait()
    assert list(tmp_path.iterdir()) == []
    assert writers[0].written == 0


def test_a_part_that_is_written_after_all_gave_up_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SlowDisk(monkeypatch)
    writer = make(tmp_path, 1, 2)
    save(writer, 1, 1, 2)
    assert disk.began.wait(60)
    writer.give_up()
    disk.go.set()
    writer.wait()
    assert list(tmp_path.iterdir()) == []


def test_giving_up_too_late_takes_no_checkpoint_away(tmp_path: Path) -> None:
    writer = make(tmp_path)
    save(writer, 1)
    writer.wait()
    writer.give_up()
    assert steps(tmp_path) == [1]
    assert complete(tmp_path)[0].damage() is None


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    writer = make(tmp_path, newest=2, best=1)
    for step, score in ((1, 3.0), (2, 1.0), (3, 2.0), (4, 2.5), (5, 2.2)):
        save(writer, step, heldout=score)
    writer.wait()
    assert steps(tmp_path) == [5, 4, 2]
    assert leftovers(tmp_path) == []


_FULL = """
import resource, sys
from pathlib import Path
sys.path[:0] = {paths!r}
from checkpoints import progress
from bayling.train.state import KEYS, Piece
from bayling.train.writer import Writer
import torch
root = Path(sys.argv[1])
def part(size):
    return [Piece("embed.weight", 0, {{key: torch.zeros(size) for key in KEYS}})]
writer = Writer(root, rank=0, workers=1, attempt="a", newest=2, best=0)
writer.save(part(10), progress(1, 1)); writer.wait()
assert writer.failure is None
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
writer.save(part(1_000_000), progress(2, 1)); writer.wait()
print(writer.failure)
print([path.name for path in root.iterdir()])
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
writer.save(part(1_000_000), progress(3, 1)); writer.wait()
print(writer.failure)
"""


def test_a_file_that_cannot_be_written_is_reported_and_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    """A quota is reached; when there is room again, checkpoints are written again."""
    here = Path(__file__).parent
    code = _FULL.format(paths=[str(here), str(here.parents[1] / "platform")])
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    failure, there, later = done.stdout.splitlines()
    assert "File too large" in failure
    assert there == "['step-00000001']"
    assert later == "None"
    assert steps(tmp_path) == [3, 1]


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="mounts a small disk")
def test_a_full_disk_is_reported_and_leaves_what_was_there(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("this container may not mount")
    try:
        writer = make(disk)
        save(writer, 1)
        writer.wait()
        filler = disk / "filler"
        filler.write_bytes(b"0" * 4096)
        with filler.open("ab", buffering=0) as file, pytest.raises(OSError, match="No space"):
            while file.write(b"0" * 4096):
                pass
        save(writer, 2)
        writer.wait()
        assert "No space left" in str(writer.failure)
        assert steps(disk) == [1]
        assert leftovers(disk) == ["filler"]
        filler.unlink()
        save(writer, 3)
        writer.wait()
        assert writer.failure is None
        assert steps(disk) == [3, 1]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_place_that_is_gone_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    writer = make(tmp_path / "file")
    save(writer, 1)
    writer.wait()
    assert "NotADirectoryError" in str(writer.failure)
