"""The data stage as a whole: the same bytes for any number of workers, in bounded memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from running import Finished

from bayling.config import compose
from bayling.data import heldout
from bayling.data.config import trained_directions
from bayling.data.making import Making
from bayling.data.packing import IGNORED
from bayling.data.run import digest
from bayling.data.tables import read_conversations
from bayling.data.tokens import Tokens
from bayling.language_families import family_of
from bayling.model_folder import load_chat
from bayling.train.batches import PackedTokens


def test_one_process_without_ray_makes_the_same_bytes(smoke: Finished, tmp_path: Path) -> None:
    config = smoke.config
    folder = smoke.folder("data")
    tests = heldout.build(config.data, config.seed)
    (tmp_path / "tokenizer").symlink_to(folder / "tokenizer")
    making = Making(config.data, config.seed, tmp_path)
    tokens = Tokens(config.data, config.model, tmp_path)
    for partition in (1, 0):  # in another order, too
        making.from_cldr(partition, frozenset(tests.texts))
        tokens.pack(partition)
    assert digest(tmp_path / "conversations") == digest(folder / "conversations")
    assert {path.name for path in (tmp_path / "packed").iterdir()} >= {"groups.json"}
    assert digest(tmp_path / "packed") == digest(folder / "packed")


def test_no_conversation_is_lost_silently(smoke: Finished) -> None:
    manifest = smoke.outputs["data"]
    packed = sum(
        len((shard / "conversations.tsv").read_text("utf-8").splitlines())
        for shard in (smoke.folder("data") / "packed").glob("shard-*")
    )
    too_long = manifest.dropped.get("longer than data.sequence_length", 0)
    assert packed + too_long == manifest.counts["conversations"]
    asked = smoke.config.data.conversations
    assert manifest.counts["conversations"] + sum(manifest.dropped.values()) - too_long >= asked


def test_packed_labels_spell_the_assistants_answers(smoke: Finished) -> None:
    folder = smoke.folder("data")
    chat = load_chat(folder / "tokenizer", "bayling")
    shard = folder / "packed" / "shard-00000"
    names = dict[int, list[str]]()
    for line in (shard / "conversations.tsv").read_text("utf-8").splitlines():
        row, name = line.split("\t")
        names.setdefault(int(row), []).append(name)
    by_id = {
        row.id: row for row in read_conversations(folder / "conversations" / "part-00000.parquet")
    }
    labels = np.load(shard / "labels.npy")
    for row in range(3):
        learnt = [int(token) for token in labels[row] if token != IGNORED]
        answers = "".join(
            message.content + "</s>"
            for name in names[row]
            for message in by_id[name].messages
            if message.role == "assistant"
        )
        assert chat.tokenizer.decode(learnt) == answers


def test_every_token_is_in_the_group_of_its_conversation(smoke: Finished) -> None:
    folder = smoke.folder("data")
    by_id = {
        row.id: row
        for path in (folder / "conversations").glob("part-*.parquet")
        for row in read_conversations(path)
    }
    packed = PackedTokens(folder / "packed")
    assert len(packed.groups) == len(set(packed.groups))
    met = set()
    for sequence in range(len(packed)):
        names = packed.conversations(np.array([sequence]))
        batch = packed.batch(np.array([sequence]))
        groups = batch["groups"][0][: packed.lengths[sequence]]
        starts = torch.nonzero(batch["position_ids"][0][: packed.lengths[sequence]] == 0).flatten()
        parts = torch.tensor_split(groups, starts[1:])
        for name, part in zip(names, parts, strict=True):
            row = by_id[name]
            [group] = {packed.groups[index] for index in part.tolist()}
            assert group == f"{row.task}/{family_of(row.target_lang)}"
            met.add(group)
    assert len(met) > 2


def test_heldout_conversations_are_packed_like_those_of_training(smoke: Finished) -> None:
    folder = smoke.folder("data")
    manifest = smoke.outputs["data"]
    packed = PackedTokens(folder / manifest.outputs["heldout_packed"])
    assert packed.groups == PackedTokens(folder / "packed").groups
    assert packed.sequence_length == smoke.config.data.sequence_length
    assert int(packed.supervised.sum()) == manifest.counts["heldout_supervised_tokens"] > 0
    rows = {row.id: row for row in heldout.as_conversations(folder)}
    names = packed.conversations(np.arange(len(packed)))
    assert sorted(names) == sorted(rows), "each is there once"
    trained = set(trained_directions(smoke.config.data.languages))
    assert {(row.source_lang, row.target_lang) for row in rows.values()} <= trained
    seen = PackedTokens(folder / "packed")
    assert not set(names) & set(seen.conversations(np.arange(len(seen))))


def test_the_driver_does_not_hold_the_corpus(tmp_path: Path) -> None:
    """Ten times the conversations must not make the driver's peak memory grow."""
    peaks = {}
    for conversations in (1_000, 10_000):
        code = f"""
import resource, sys
from bayling.cli import main
overrides = {_overrides(tmp_path, conversations)!r}
assert main(["data", *overrides]) == 0
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        peaks[conversations] = int(done.stdout.rsplit("peak", 1)[1])
        config = compose(_overrides(tmp_path, conversations))
        [manifest] = config.folder.glob("data-*/manifest.json")
        counts = json.loads(manifest.read_text("utf-8"))["counts"]
        assert counts["conversations"] > 0.9 * conversations
    # The larger corpus is more than 20 MB as Python objects; what grows is noise.
    assert peaks[10_000] - peaks[1_000] < 15, peaks


def _overrides(folder: Path, conversations: int) -> list[str]:
    return [
        "recipe=smoke",
        f"name=memory-{conversations}",
        f"output_dir={folder}",
        f"data.conversations={conversations}",
        "data.partition_size=1000",
        "data.tokenizer_sample=1000",
    ]


@pytest.mark.parametrize("template", ["bayling3", "chatml"])
def test_other_templates_train_a_tokenizer_that_fits(
    ray_cluster: None, tmp_path: Path, template: str
) -> None:
    from bayling.cli import main

    overrides = ["recipe=smoke", f"output_dir={tmp_path}", f"model.template={template}"]
    assert main(["data", *overrides]) == 0
    [tokenizer] = tmp_path.glob("smoke/data-*/tokenizer")
    assert load_chat(tokenizer, template).stop_ids
