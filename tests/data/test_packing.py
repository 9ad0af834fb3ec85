from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from bayling.data import conversations, packing
from bayling.data.config import DataConfig
from bayling.data.packing import IGNORED, Item, fill, write_shard
from bayling.data.tokenizer import train
from bayling.templates import BAYLING, ChatFormat, Encoded
from bayling.train.batches import PackedTokens
from bayling.train.network import PackedLoss

pytestmark = pytest.mark.unit

VOCABULARY = 97


def talk(rng: random.Random, length: int) -> Encoded:
    """A conversation of random ids: a prompt, an answer, and sometimes both again."""
    ids = [rng.randrange(1, VOCABULARY) for _ in range(length)]
    cuts = sorted(rng.sample(range(1, length), 3)) if length > 4 else [1, length, length]
    supervised = [cuts[0] <= i < cuts[1] or i >= cuts[2] for i in range(length)]
    return Encoded(ids, supervised)


def natural() -> list[Item]:
    """The tokens of 2,000 generated conversations, a partition of the data stage's."""
    config = DataConfig(languages=["en", "zh", "de", "ru", "ar", "hi", "sw", "ja"])
    made = []
    for index in range(2000):
        try:
            made.append(conversations.build(index, config, 1))
        except conversations.Dropped:
            continue
    texts = [message.content for row in made for message in row.messages]
    fixed = [*BAYLING.phrases(), *conversations.phrases(config.languages)]
    chat = ChatFormat(train(texts, 3072, BAYLING, fixed), BAYLING)
    encoded = chat.encode([row.messages for row in made])
    kept = zip(made, encoded, strict=True)
    return [Item(row.id, tokens) for row, tokens in kept if isinstance(tokens, Encoded)]


@pytest.mark.parametrize("seed", range(20))
def test_every_item_is_in_one_group_and_no_group_is_too_full(seed: int) -> None:
    rng = random.Random(seed)
    lengths = [rng.randint(1, 64) for _ in range(rng.randint(0, 200))]
    groups = fill(lengths, 64)
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    assert all(0 < sum(lengths[index] for index in group) <= 64 for group in groups)


def test_groups_are_filled_up_where_a_subset_does_it() -> None:
    assert fill([6, 7, 3, 4], 10) == [[1, 2], [0, 3]]
    assert fill([10, 10], 10) == [[0], [1]]
    assert fill([5, 5, 5], 10) == [[0, 1], [2]]
    assert fill([5, 4, 4, 3, 2, 2], 10) == [[0, 4, 3], [1, 5, 2]], "best-fit makes three"
    assert fill([], 10) == []


def test_natural_conversations_fill_99_percent_of_their_sequences(tmp_path: Path) -> None:
    rows = [item for item in natural() if len(item.encoded.ids) <= 256]
    assert len(rows) > 1500
    packed = write_shard(rows, 256, tmp_path)
    assert packed.tokens == sum(len(item.encoded.ids) for item in rows)
    assert packed.tokens / (packed.sequences * 256) >= 0.99


def test_a_shard_holds_every_conversation_once_with_labels_on_its_answers(tmp_path: Path) -> None:
    rng = random.Random(1)
    rows = [Item(f"id-{i}", talk(rng, rng.randint(2, 40)), group=i % 7) for i in range(50)]
    packed = write_shard(rows, 64, tmp_path)
    arrays = {name: np.load(tmp_path / f"{name}.npy") for name in packing.ARRAYS}
    for name, dtype in (("input_ids", "uint32"), ("labels", "int32"), ("position_ids", "uint16")):
        assert arrays[name].dtype == dtype
        assert arrays[name].shape == (packed.sequences, 64)
    lengths = np.load(tmp_path / "lengths.npy")
    supervised = np.load(tmp_path / "supervised.npy")
    places = [line.split("\t") for line in (tmp_path / "conversations.tsv").open(encoding="utf-8")]
    named = {item.id: item for item in rows}
    used = [0] * packed.sequences
    for sequence, name in places:
        row, item = int(sequence), named.pop(name.strip())
        tokens = item.encoded
        start, end = used[row], used[row] + len(tokens.ids)
        used[row] = end
        assert (arrays["groups"][row, start:end] == item.group).all()
        assert arrays["input_ids"][row, start:end].tolist() == tokens.ids
        assert arrays["position_ids"][row, start:end].tolist() == list(range(len(tokens.ids)))
        assert arrays["labels"][row, start:end].tolist() == [
            token if wanted else IGNORED
            for token, wanted in zip(tokens.ids, tokens.supervised, strict=True)
        ]
    assert not named
    assert lengths.tolist() == used
    assert packed.tokens == sum(used)
    for row, end in enumerate(used):
        assert (arrays["labels"][row, end:] == IGNORED).all()
        assert arrays["position_ids"][row, end:].tolist() == list(range(64 - end))
    assert supervised.tolist() == (arrays["labels"] != IGNORED).sum(1).tolist()
    assert packed.supervised == supervised.sum()


def test_long_conversations_are_not_all_at_the_beginning(tmp_path: Path) -> None:
    lengths = [10 if i < 50 else 60 for i in range(100)]
    rows = [Item(str(i), Encoded([1] * n, [True] * n)) for i, n in enumerate(lengths)]
    write_shard(rows, 64, tmp_path)
    first = np.load(tmp_path / "position_ids.npy")[0]
    assert first.max() < 60  # the corpus begins with short ones


def test_a_conversation_longer_than_a_sequence_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="65 tokens is longer than 64"):
        write_shard([Item("long", Encoded([1] * 65, [True] * 65))], 64, tmp_path)


def test_the_same_conversations_give_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        rng = random.Random(2)
        write_shard(
            [Item(str(i), talk(rng, rng.randint(2, 30)), i % 3) for i in range(30)],
            64,
            tmp_path / folder,
        )
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture
def rows() -> list[Item]:
    rng = random.Random(3)
    return [Item(str(i), talk(rng, rng.randint(3, 30)), i % 2) for i in range(12)]


def read(folder: Path, rows: list[Item]) -> PackedTokens:
    """As training reads what was packed."""
    write_shard(rows, 48, folder / "shard-00000")
    (folder / packing.GROUPS).write_text(json.dumps(["even", "odd"]), "utf-8")
    return PackedTokens(folder)


@torch.no_grad()
def test_a_packed_conversation_has_the_logits_it_would_have_alone(
    model: LlamaForCausalLM, rows: list[Item], tmp_path: Path
) -> None:
    packed = read(tmp_path, rows)
    batch = packed.batch(np.arange(len(packed)))
    assert len(packed) > 2
    assert (packed.lengths < 48).any()  # some sequences have padding
    hidden = model.base_model(
        input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False
    ).last_hidden_state
    logits = model.get_output_embeddings()(hidden)
    named = {item.id: item.encoded for item in rows}
    used = [0] * len(packed)
    for line in (tmp_path / "shard-00000" / "conversations.tsv").read_text("utf-8").splitlines():
        sequence, name = line.split("\t")
        row, ids = int(sequence), named[name].ids
        alone = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
        start = used[row]
        used[row] += len(ids)
        torch.testing.assert_close(logits[row, start : used[row]], alone, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_the_loss_of_a_packed_batch_is_that_of_its_conversations_apart(
    model: LlamaForCausalLM, rows: list[Item], tmp_path: Path
) -> None:
    packed = read(tmp_path, rows)
    loss = PackedLoss(model, len(packed.groups))
    together = loss(**packed.batch(np.arange(len(packed))))
    apart = torch.zeros(2, 2)
    for item in rows:
        ids = torch.tensor([item.encoded.ids])
        wanted = torch.tensor([item.encoded.supervised])
        labels = torch.where(wanted, ids, IGNORED)
        apart[0, item.group] += PackedLoss(model)(ids, labels, torch.arange(ids.numel())[None])
        apart[1, item.group] += wanted.sum()
    torch.testing.assert_close(together, apart[0].sum(), atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(loss.by_group, apart, atol=1e-3, rtol=1e-5)
    assert int(packed.supervised.sum()) == apart[1].sum()
