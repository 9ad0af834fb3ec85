from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from bayling.data.packing import GROUPS, Item, write_shard
from bayling.errors import UserError
from bayling.templates import Encoded
from bayling.train.batches import Order, PackedTokens, deal, micro_steps

pytestmark = pytest.mark.unit


def seen(order: Order, steps: int) -> list[int]:
    return np.concatenate([order.step(step) for step in range(steps)]).tolist()


@pytest.mark.parametrize("batch", [1, 4, 7, 12])
def test_every_epoch_sees_every_sequence_once(batch: int) -> None:
    order = Order(sequences=28, global_batch=batch, seed=1)
    indices = seen(order, 28)  # `batch` epochs
    for epoch in range(batch):
        assert sorted(indices[28 * epoch : 28 * (epoch + 1)]) == list(range(28))


def test_epochs_are_in_another_order_each_and_so_are_other_seeds() -> None:
    first = seen(Order(64, 8, seed=1), 16)
    assert first[:64] != first[64:]
    assert first != seen(Order(64, 8, seed=2), 16)
    assert first[:64] != list(range(64))


def test_a_step_can_be_asked_for_without_the_ones_before() -> None:
    """A resumed run asks for step 100 first."""
    order = Order(sequences=30, global_batch=8, seed=5)
    whole = [order.step(step).tolist() for step in range(120)]
    for step in (119, 0, 57, 100):
        assert Order(30, 8, 5).step(step).tolist() == whole[step]


FIRST_EPOCH = [3, 5, 2, 9, 7, 0, 8, 6, 1, 4]
SECOND_EPOCH = [0, 6, 5, 3, 4, 9, 7, 8, 2, 1]


def test_the_order_stays_what_it_was_in_earlier_versions() -> None:
    """A run that is resumed after an update goes on in the same order."""
    assert Order(sequences=10, global_batch=10, seed=1).step(0).tolist() == FIRST_EPOCH
    assert Order(sequences=10, global_batch=10, seed=1).step(1).tolist() == SECOND_EPOCH


def test_steps_follow_from_the_epochs() -> None:
    assert Order(100, 10, 1).steps(1.0) == 10
    assert Order(100, 10, 1).steps(2.5) == 25
    assert Order(105, 10, 1).steps(1.0) == 10
    assert Order(3, 10, 1).steps(1.0) == 1


def test_a_batch_larger_than_the_data_takes_from_several_epochs() -> None:
    counts = np.bincount(Order(sequences=3, global_batch=10, seed=1).step(0), minlength=3)
    assert sorted(counts.tolist()) == [3, 3, 4]


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
@pytest.mark.parametrize("micro_batch", [1, 3, 4])
@pytest.mark.parametrize("batch", [1, 3, 8, 13])
def test_a_step_is_dealt_out_exactly_once_in_as_many_micro_batches_everywhere(
    batch: int, micro_batch: int, workers: int
) -> None:
    step = Order(sequences=50, global_batch=batch, seed=3).step(4)
    hands = [deal(step, micro_batch, rank, workers) for rank in range(workers)]
    dealt = np.concatenate([part for hand in hands for part in hand])
    assert sorted(dealt.tolist()) == sorted(step.tolist())
    assert {len(hand) for hand in hands} == {micro_steps(batch, micro_batch, workers)}
    assert max(len(part) for hand in hands for part in hand) <= micro_batch
    sizes = [sum(map(len, hand)) for hand in hands]
    assert max(sizes) - min(sizes) <= 1


def write(folder: Path, count: int, first: int) -> None:
    rows = [
        Item(f"{first + i}", Encoded([first + i] * 5 + [2], [False] * 3 + [True] * 3), i % 2)
        for i in range(count)
    ]
    write_shard(rows, 8, folder)
    (folder.parent / GROUPS).write_text(json.dumps(["translate/slavic", "translate/semitic"]))


def test_shards_are_read_as_one_list(tmp_path: Path) -> None:
    write(tmp_path / "shard-00000", 3, 10)
    write(tmp_path / "shard-00001", 2, 20)
    packed = PackedTokens(tmp_path)
    assert len(packed) == 5
    assert packed.sequence_length == 8
    batch = packed.batch(np.array([4, 0, 3, 2]))
    assert batch["input_ids"][:, 0].tolist() == [21, 10, 20, 12]
    assert batch["labels"][0].tolist() == [-100, -100, -100, 21, 21, 2, -100, -100]
    assert batch["position_ids"][0].tolist() == [0, 1, 2, 3, 4, 5, 0, 1]
    assert batch["groups"][:, 0].tolist() == [1, 0, 0, 0]
    assert packed.groups == ["translate/slavic", "translate/semitic"]
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}
    assert packed.lengths.tolist() == [6] * 5
    assert packed.supervised.tolist() == [3] * 5


def test_the_conversations_of_a_batch_can_be_named(tmp_path: Path) -> None:
    """Of a step that went wrong one wants to see the texts."""
    write(tmp_path / "shard-00000", 12, 10)
    write(tmp_path / "shard-00001", 2, 30)
    packed = PackedTokens(tmp_path)
    assert packed.conversations(np.array([13, 1, 11])) == ["31", "11", "21"]


def test_a_folder_without_shards_is_refused_with_the_stage_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run the data stage first"):
        PackedTokens(tmp_path)
