"""The data stage: CLDR values → conversations → tokenizer → packed tokens, with Ray Data.

The corpus is made in partitions of fixed size, numbered from 0. One task builds a partition
and writes it to disk, one tokenises and packs it; the driver sees counts only. What a
partition holds depends on the seed and its number alone, so the output is the same to the
byte for any number of workers.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ray

from bayling.data import conversations, heldout, packing, tokenizer
from bayling.data.cldr import LICENCE, ORIGIN
from bayling.data.config import DataConfig, trained_directions, zero_shot_directions
from bayling.errors import UserError
from bayling.language_families import family_of
from bayling.model import ModelConfig
from bayling.model_folder import load_chat, load_tokenizer
from bayling.stage import Context, Manifest, total, write_json
from bayling.templates import TASKS, TEMPLATES, Conversation, Message, Template


def run(config: DataConfig, model: ModelConfig, context: Context) -> Manifest:
    """Build held-out sets, conversations, tokenizer and packed tokens below `context.folder`.

    Returns the manifest: counts per task, direction, language and origin, what was dropped and
    why, and the digest of the test set.

    Raises:
        UserError: CLDR lacks a direction, or the template does not fit the base's tokenizer.
    """
    if config.sources:
        raise UserError(
            "data.sources cannot be built into conversations yet: `bayling data inspect PATH` "
            "reads them; leave the key out to build from the CLDR"
        )
    folder = context.folder
    for leftover in ("conversations", "packed", "heldout", "tokenizer"):
        shutil.rmtree(folder / leftover, ignore_errors=True)
    partitions = -(-config.conversations // config.partition_size)
    steps = 2 * partitions + 1

    context.report("held-out values", 0, steps)
    tests = heldout.build(config, context.seed)
    heldout.write(tests, folder)

    task = _PartitionTask(config, model, context.seed, str(folder))
    texts = ray.put(frozenset(tests.texts))
    made = _each_partition(
        partitions, lambda row: task.build(row["id"], ray.get(texts)), context, 0, steps
    )

    template = TEMPLATES.get(model.template.value)
    if model.base is None:
        assert template is not None  # ModelConfig.validate refuses `own` without a base
        context.report("tokenizer", partitions, steps)
        _train_tokenizer(config, model, template, folder)
    else:
        load_tokenizer(model.base).save_pretrained(folder / "tokenizer")
    load_chat(folder / "tokenizer", model.template.value)  # refuses a template that misfits

    packed = _each_partition(
        partitions, lambda row: task.pack(row["id"]), context, partitions + 1, steps
    )
    heldout_size = _as_a_task(task.pack_heldout)

    manifest = context.manifest("data", config)
    manifest.outputs = {
        "conversations": "conversations",
        "packed": "packed",
        "heldout_packed": "heldout/packed",
        "tokenizer": "tokenizer",
        "heldout_translate": heldout.TRANSLATE_FILE,
        "heldout_interactive": heldout.INTERACTIVE_FILE,
    }
    counts = total(row["counts"] for row in made)
    sizes = total(row["sizes"] for row in packed)
    if not sizes.get("sequences"):
        raise UserError(
            "no conversation was left to train on: see data.conversations and "
            f"data.sequence_length ({config.sequence_length})"
        )
    manifest.counts = {
        **_by_group(counts),
        **sizes,
        "fill": round(sizes["tokens"] / (sizes["sequences"] * config.sequence_length), 4),
        "heldout_translate": len(tests.translate),
        "heldout_interactive": len(tests.interactive),
        "heldout_supervised_tokens": heldout_size["supervised_tokens"],
        "trained_directions": len(trained_directions(config.languages)),
        "zero_shot_directions": len(zero_shot_directions(config.languages)),
    }
    manifest.dropped = total(
        [*(row["dropped"] for row in made), *(row["dropped"] for row in packed), tests.dropped]
    )
    manifest.licences = {ORIGIN: LICENCE}
    manifest.results = {
        "heldout_digest": tests.digest,
        "packed_digest": _digest(folder / "packed"),
        "sequence_length": config.sequence_length,
    }
    return manifest


def _each_partition(
    partitions: int, work: Any, context: Context, done: int, steps: int
) -> list[dict[str, Any]]:
    """Run `work` on every partition as Ray tasks; what comes back is counts, in order."""
    dataset = ray.data.range(partitions, override_num_blocks=partitions)
    rows: list[dict[str, Any]] = []
    for row in dataset.map(lambda item: {"json": json.dumps(work(item))}).iter_rows():
        rows.append(json.loads(row["json"]))
        what = rows[-1]["step"]
        context.report(f"{what} {len(rows)} of {partitions} partitions", done + len(rows), steps)
    return sorted(rows, key=lambda row: int(row["partition"]))


class _PartitionTask:
    """The work on one partition; runs inside a Ray Data task."""

    def __init__(self, config: DataConfig, model: ModelConfig, seed: int, folder: str) -> None:
        self.config, self.model, self.seed, self.folder = config, model, seed, Path(folder)

    def build(self, partition: int, heldout_texts: frozenset[str]) -> dict[str, Any]:
        """Write the partition's conversations to Parquet; returns counts."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        config = self.config
        first = partition * config.partition_size
        last = min(first + config.partition_size, config.conversations)
        counts: Counter[str] = Counter()
        dropped: Counter[str] = Counter()
        rows = []
        for index in range(first, last):
            try:
                made = conversations.build(index, config, self.seed)
            except conversations.Dropped as error:
                dropped[str(error)] += 1
                continue
            if any(message.content in heldout_texts for message in made.messages):
                dropped["an answer equals a held-out text"] += 1
                continue
            counts.update(_groups(made))
            rows.append(_row(made))
        folder = self.folder / "conversations"
        folder.mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows, _SCHEMA), folder / _name(partition))
        return {
            "step": "conversations:",
            "partition": partition,
            "counts": dict(counts),
            "dropped": dict(dropped),
        }

    def pack(self, partition: int) -> dict[str, Any]:
        """Tokenise and pack the partition; returns sizes."""
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one task, one core
        rows = read_conversations(self.folder / "conversations" / _name(partition))
        target = self.folder / "packed" / f"shard-{partition:05d}"
        sizes, dropped = self._pack(list(rows), target)
        return {"step": "packed:", "partition": partition, "sizes": sizes, "dropped": dropped}

    def pack_heldout(self) -> dict[str, int]:
        """Pack the held-out conversations, on which training measures its loss; returns sizes."""
        rows = heldout.as_conversations(self.folder)
        return self._pack(rows, self.folder / "heldout" / "packed" / "shard-00000")[0]

    def _pack(
        self, rows: list[Conversation], target: Path
    ) -> tuple[dict[str, int], dict[str, int]]:
        chat = load_chat(self.folder / "tokenizer", self.model.template.value)
        names = group_names(self.config)
        dropped: Counter[str] = Counter()
        kept = []
        encoded = chat.encode([row.messages for row in rows])
        for row, tokens in zip(rows, encoded, strict=True):
            if isinstance(tokens, str):
                dropped[tokens] += 1
            elif len(tokens.ids) > self.config.sequence_length:
                dropped["longer than data.sequence_length"] += 1
            else:
                group = names.index(f"{row.task}/{family_of(row.target_lang)}")
                kept.append(packing.Item(row.id, tokens, group))
        packed = packing.write_shard(kept, self.config.sequence_length, target)
        write_json(target.parent / packing.GROUPS, names)
        sizes = {
            "sequences": packed.sequences,
            "tokens": packed.tokens,
            "supervised_tokens": packed.supervised,
        }
        return sizes, dict(dropped)


def group_names(config: DataConfig) -> list[str]:
    """The groups by which losses are told apart: every task in every target's language family."""
    families = sorted({family_of(tag) for tag in config.languages})
    return [f"{task}/{family}" for task in TASKS for family in families]


def _train_tokenizer(
    config: DataConfig, model: ModelConfig, template: Template, folder: Path
) -> None:
    """In a task of its own, so that the driver never reads conversations."""

    def train() -> None:
        texts = _sample(folder / "conversations", config.tokenizer_sample)
        fixed = [*template.phrases(), *conversations.phrases(config.languages)]
        made = tokenizer.train(texts, model.vocab_size, template, fixed)
        made.chat_template = template.chat_template()
        made.model_max_length = model.context_length
        made.save_pretrained(folder / "tokenizer")

    _as_a_task(train)


def _as_a_task(work: Callable[[], Any]) -> Any:
    def run_it() -> Any:
        return work()

    return ray.get(ray.remote(run_it).options(num_cpus=1).remote())


def _sample(folder: Path, size: int) -> Iterator[str]:
    """Messages of the first conversations, partition by partition, never all in memory."""
    seen = 0
    for path in sorted(folder.glob("part-*.parquet")):
        for row in read_conversations(path):
            for message in row.messages:
                yield message.content
            seen += 1
            if seen >= size:
                return


def read_conversations(path: Path) -> Iterator[Conversation]:
    """The conversations of one Parquet file, a row group at a time."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=1000):
            for row in batch.to_pylist():
                messages = tuple(
                    Message(item["role"], item["content"]) for item in row.pop("messages")
                )
                yield Conversation(messages=messages, **row)


def _row(made: Conversation) -> dict[str, Any]:
    """A conversation in Parquet's terms; spelt out, as a generic walk costs half of the stage."""
    messages = [
        {**vars(message), "requirements": [vars(item) for item in message.requirements]}
        for message in made.messages
    ]
    return {**vars(made), "messages": messages}


def _groups(row: Conversation) -> list[str]:
    return [
        "conversations",
        "turns:" + str(sum(message.role == "user" for message in row.messages)),
        f"task:{row.task}",
        f"direction:{row.source_lang}-{row.target_lang}",
        f"language:{row.source_lang}",
        f"language:{row.target_lang}",
        f"origin:{row.origin}",
    ]


def _by_group(counts: dict[str, int]) -> dict[str, Any]:
    """`{"task:translate": 3, "conversations": 3}` → `{"task": {"translate": 3}, …}`."""
    grouped: dict[str, Any] = {}
    for key, number in counts.items():
        group, _, member = key.partition(":")
        if member:
            grouped.setdefault(group, {})[member] = number
        else:
            grouped[group] = number
    return grouped


def _name(partition: int) -> str:
    return f"part-{partition:05d}.parquet"


def _digest(folder: Path) -> str:
    """One hash over all files below a folder, names included."""
    import hashlib

    digest = hashlib.sha256()
    for path in sorted(item for item in folder.rglob("*") if item.is_file()):
        digest.update(str(path.relative_to(folder)).encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]


def _schema() -> Any:
    import pyarrow as pa

    requirement = pa.struct([("kind", pa.string()), ("values", pa.list_(pa.string()))])
    message = pa.struct(
        [("role", pa.string()), ("content", pa.string()), ("requirements", pa.list_(requirement))]
    )
    return pa.schema(
        [
            ("id", pa.string()),
            ("messages", pa.list_(message)),
            ("task", pa.string()),
            ("source_lang", pa.string()),
            ("target_lang", pa.string()),
            ("origin", pa.string()),
        ]
    )


_SCHEMA = _schema()
