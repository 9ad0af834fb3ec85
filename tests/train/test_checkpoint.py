from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from checkpoints import SHAPES, progress, whole, write, write_part

from bayling.errors import UserError
from bayling.train import checkpoint
from bayling.train.checkpoint import Checkpoint, check_fits, complete, retained
from bayling.train.state import KEYS

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 9])
def test_any_worker_count_can_read_what_any_other_wrote(tmp_path: Path, workers: int) -> None:
    found = write(tmp_path, 3, workers)
    rng = random.Random(workers)
    for name in SHAPES:
        size = whole(name, KEYS[0]).numel()
        ranges = {tuple(sorted(rng.sample(range(size + 1), 2))) for _ in range(30)} | {(0, size)}
        for key in KEYS:
            for start, stop in ranges:
                read = found.read(name, key, start, stop)
                assert torch.equal(read, whole(name, key)[start:stop])
        weight = found.weight(name)
        assert list(weight.shape) == SHAPES[name]
        assert torch.equal(weight.flatten(), whole(name, "weight"))


def test_progress_is_read_back_as_it_was(tmp_path: Path) -> None:
    written = replace(progress(40, 2, 1.25), scaler={"cur_scale": 8.0}, meter={"loss": [1.0, 2.0]})
    for rank in range(2):
        folder = write_part(tmp_path, 40, rank, 2)
    checkpoint.publish(folder, written)
    [found] = complete(tmp_path)
    assert found.progress == written
    assert found.folder.name == "step-00000040"


def test_the_newest_comes_first(tmp_path: Path) -> None:
    for step in (9, 100, 20):
        write(tmp_path, step, 1)
    assert [one.progress.step for one in complete(tmp_path)] == [100, 20, 9]
    assert complete(tmp_path / "nothing") == []


def test_what_was_not_published_is_no_checkpoint_and_is_cleaned_away(tmp_path: Path) -> None:
    """A worker that is killed between writing and publishing."""
    kept = write(tmp_path, 1, 2)
    for rank in range(2):
        write_part(tmp_path, 2, rank, 2)
    write_part(tmp_path, 3, 1, 2)
    assert [one.folder for one in complete(tmp_path)] == [kept.folder]
    assert len(list(tmp_path.iterdir())) == 3
    checkpoint.clean(tmp_path)
    assert list(tmp_path.iterdir()) == [kept.folder]
    assert kept.damage() is None


def test_a_part_counts_when_its_entry_is_there(tmp_path: Path) -> None:
    folder = write_part(tmp_path, 2, 0, 2)
    assert not checkpoint.is_written(folder, 2)
    (folder / "worker-00001.safetensors").write_bytes(b"half")
    assert not checkpoint.is_written(folder, 2)
    write_part(tmp_path, 2, 1, 2)
    assert checkpoint.is_written(folder, 2)


def test_a_step_that_is_done_again_replaces_its_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, 5, 3)
    again = write(tmp_path, 5, 2)
    assert [one.folder for one in complete(tmp_path)] == [again.folder]
    assert again.progress.workers == 2
    assert again.damage() is None
    assert len(list(again.folder.glob("*.safetensors"))) == 2


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _lose_the_last_line(path: Path) -> None:
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def _lose_the_first_line(path: Path) -> None:
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))


@pytest.mark.parametrize(
    ("file", "break_it", "said"),
    [
        ("worker-00001.safetensors", _flip, "is damaged: its checksum differs"),
        ("worker-00001.safetensors", _cut, "is damaged: its checksum differs"),
        ("worker-00001.safetensors", Path.unlink, "is missing"),
        ("index.json", Path.unlink, "index.json"),
        ("index.json", _cut, "is damaged: its checksum differs"),
        ("index.json", _flip, "is damaged: its checksum differs"),
        ("progress.json", Path.unlink, "progress.json is missing"),
        ("progress.json", _flip, "is damaged: its checksum differs"),
        ("SHA256SUMS", Path.unlink, "cannot be read"),
        ("SHA256SUMS", _flip, "is damaged"),
        ("SHA256SUMS", _lose_the_last_line, "is damaged: it ends early"),
        ("SHA256SUMS", _lose_the_first_line, "is damaged: it lacks worker-00000.safetensors"),
    ],
)
def test_damage_is_found_and_named(
    tmp_path: Path, file: str, break_it: Callable[[Path], object], said: str
) -> None:
    folder = write(tmp_path, 7, 3).folder
    assert Checkpoint(folder).damage() is None
    break_it(folder / file)
    damage = Checkpoint(folder).damage()
    assert damage is not None
    assert str(folder) in damage
    assert said in damage
    if file.startswith("worker"):
        assert damage.startswith(str(folder / file))


def test_the_workers_share_the_check_among_them(tmp_path: Path) -> None:
    folder = write(tmp_path, 7, 5).folder
    for written in range(5):
        path = folder / f"worker-{written:05d}.safetensors"
        content = path.read_bytes()
        _flip(path)
        for workers in (1, 2, 3, 8):
            found = [Checkpoint(folder).damage(rank, workers) for rank in range(workers)]
            assert len([one for one in found if one is not None]) == 1
        path.write_bytes(content)


def test_a_damaged_checkpoint_is_set_aside_and_stays_to_be_looked_at(tmp_path: Path) -> None:
    before, damaged = write(tmp_path, 1, 1), write(tmp_path, 2, 1)
    for _ in range(2):  # the step is done again, and damaged again
        aside = checkpoint.set_aside(damaged)
        assert [one.folder for one in complete(tmp_path)] == [before.folder]
        assert (aside / "index.json").exists()
        damaged = write(tmp_path, 2, 1)


def test_a_parameter_that_is_not_there_in_whole_is_refused(tmp_path: Path) -> None:
    write_part(tmp_path, 1, 0, 2)
    found = checkpoint.publish(write_part(tmp_path, 1, 0, 2), progress(1, 2))
    with pytest.raises(UserError, match=r"does not hold all of norm\.weight"):
        found.weight("norm.weight")
    with pytest.raises(UserError, match="does not hold all of other"):
        found.read("other", "weight", 0, 1)


def test_a_checkpoint_of_something_else_is_refused_with_the_way_out() -> None:
    check_fits(progress(12, 1), "config", SHAPES)
    with pytest.raises(UserError, match=r"step-00000012 .*another configuration: remove"):
        check_fits(progress(12, 1), "other", SHAPES)
    for shapes in ({**SHAPES, "norm.weight": [8]}, {"embed.weight": [5, 4]}):
        with pytest.raises(UserError, match=r"another model \(norm\.weight differs\)"):
            check_fits(progress(12, 1), "config", shapes)


@pytest.mark.parametrize(
    ("newest", "best", "kept"),
    [
        (1, 0, {50}),
        (2, 0, {50, 40}),
        (1, 1, {50, 30}),  # 20 scores as well, but is older
        (1, 2, {50, 30, 20}),
        (2, 3, {50, 40, 30, 20, 10}),
        (9, 0, {10, 20, 30, 40, 50}),
    ],
)
def test_the_newest_and_the_best_stay(
    tmp_path: Path, newest: int, best: int, kept: set[int]
) -> None:
    for step, score in ((10, 2.0), (20, 1.0), (30, 1.0), (40, None), (50, 3.0)):
        write(tmp_path, step, 1, score)
    stay = retained(complete(tmp_path), newest, best)
    assert {int(folder.name.removeprefix("step-")) for folder in stay} == kept


def test_without_any_score_the_newest_stay(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        write(tmp_path, step, 1)
    assert {folder.name for folder in retained(complete(tmp_path), 1, 2)} == {"step-00000003"}


def test_nothing_of_it_is_a_pickle(tmp_path: Path) -> None:
    folder = write(tmp_path, 1, 2).folder
    names = {path.name for path in folder.iterdir()}
    parts = {"worker-00000.safetensors", "worker-00001.safetensors"}
    assert names == parts | {"index.json", "progress.json", "SHA256SUMS"}


def test_anybody_can_check_the_checksums(tmp_path: Path) -> None:
    folder = write(tmp_path, 1, 2).folder
    command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 4


def test_a_damaged_score_does_not_keep_others_from_being_kept(tmp_path: Path) -> None:
    for step, score in ((1, 1.0), (2, 2.0), (3, 3.0)):
        write(tmp_path, step, 1, score)
    (tmp_path / "step-00000001" / "progress.json").write_text("{")
    stay = retained(complete(tmp_path), 1, 1)
    assert {folder.name for folder in stay} == {"step-00000003", "step-00000002"}
