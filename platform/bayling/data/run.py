"""The data stage: sources, CLDR → conversations → tokenizer → packed tokens, as Ray tasks.

The corpus is made in partitions of fixed size, numbered from 0. One task builds a partition
and writes it to disk, one tokenises and packs it; the driver sees counts only. What a
partition holds depends on the inputs, the seed and its number alone, so the output is the same to
the byte for any number of workers.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import ray

from bayling.data import card, heldout, sourced
from bayling.data.cldr import LICENCE, ORIGIN
from bayling.data.config import DataConfig, trained_directions, zero_shot_directions
from bayling.data.making import Making
from bayling.data.sourced import Sourced
from bayling.data.tokens import Tokens
from bayling.errors import UserError
from bayling.model import ModelConfig
from bayling.model_folder import load_chat, load_tokenizer
from bayling.registry import runs
from bayling.stage import Context, Manifest, total
from bayling.templates import TEMPLATES

_FOLDERS = ("conversations", "packed", "heldout", "tokenizer")


def run(config: DataConfig, model: ModelConfig, context: Context) -> Manifest:
    """Build held-out sets, conversations, tokenizer and packed tokens below `context.folder`.

    Returns the manifest: counts per task, direction, language and origin, what was dropped and
    why, and the digest of the test set.

    Raises:
        UserError: a source cannot be read, CLDR lacks a direction, or the template does not fit the
            base's tokenizer.
    """
    folder = context.folder
    for leftover in (*_FOLDERS, card.CARD, *sourced.FOLDERS):
        shutil.rmtree(folder / leftover, ignore_errors=True)
    from_cldr = -(-config.from_cldr // config.partition_size)

    context.report("held-out values", 0, 1)
    tests = heldout.build(config, context.seed)
    making = Making(config, context.seed, folder)
    gathered = Sourced()
    if config.sources:
        gathered = sourced.gather(config, context, tests, each)
    heldout.write(tests, folder)

    partitions = from_cldr + len(gathered.names)
    steps = 2 * partitions + 1
    texts = ray.put(frozenset(tests.texts))
    made = each(
        "conversations",
        range(from_cldr),
        lambda number: making.from_cldr(number, ray.get(texts)),
        context,
        (0, steps),
    )
    made += each(
        "conversations",
        range(len(gathered.names)),
        lambda number: making.from_rows(
            from_cldr + number, gathered.names[number], gathered.uses, folder / sourced.HELD_OUT
        ),
        context,
        (from_cldr, steps),
    )

    tokens = Tokens(config, model, folder)
    template = TEMPLATES.get(model.template.value)
    if model.base is None:
        assert template is not None  # ModelConfig.validate refuses `own` without a base
        context.report("tokenizer", partitions, steps)
        # In a task of its own, so that the driver never reads conversations.
        _as_a_task(partial(tokens.train_tokenizer, template))
    else:
        load_tokenizer(model.base).save_pretrained(folder / "tokenizer")
    load_chat(folder / "tokenizer", model.template.value)  # refuses a template that misfits

    packed = each("packed", range(partitions), tokens.pack, context, (partitions + 1, steps))
    heldout_size = _as_a_task(tokens.pack_heldout)

    manifest = context.manifest("data", config)
    manifest.outputs = {
        "conversations": "conversations",
        "packed": "packed",
        "heldout_packed": "heldout/packed",
        "tokenizer": "tokenizer",
        "heldout_translate": heldout.TRANSLATE_FILE,
        "heldout_interactive": heldout.INTERACTIVE_FILE,
        **gathered.outputs,
    }
    counts = total(row["counts"] for row in made)
    sizes = total(row["sizes"] for row in packed)
    if not sizes.get("sequences"):
        raise UserError(
            "no conversation was left to train on: see data.conversations and "
            f"data.sequence_length ({config.sequence_length}){gathered.lost}"
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
        **gathered.counts,
    }
    manifest.dropped = total(
        [
            *(row["dropped"] for row in made),
            *(row["dropped"] for row in packed),
            tests.dropped,
            gathered.dropped,
        ]
    )
    manifest.licences = {**({ORIGIN: LICENCE} if from_cldr else {}), **gathered.licences}
    lengths: Counter[int] = Counter()
    for row in packed:
        lengths.update(row["lengths"])
    manifest.outputs["card"] = f"{card.CARD}/README.md"
    manifest.results = {
        "heldout_digest": tests.digest,
        "packed_digest": digest(folder / "packed"),
        "sequence_length": config.sequence_length,
    }
    runs.log_folder(context.tracked, card.write(folder, manifest, lengths, tokens.bin_width))
    return manifest


def each(
    what: str,
    items: Sequence[Any],
    work: Callable[[Any], Any],
    context: Context,
    place: tuple[int, int],
) -> list[Any]:
    """Run `work` on every item as Ray tasks; what comes back is small, and in order.

    Args:
        place: where in the whole of the stage this is, of how much.
    """
    if not items:
        return []
    done, steps = place
    task = ray.remote(_one).options(num_cpus=1)
    shared = ray.put(work)
    made: dict[int, Any] = {}
    running: dict[Any, int] = {}
    waiting = iter(range(len(items)))
    while True:
        # As many as the cluster can run, and as many again, so that none of its cores waits.
        room = 2 * max(1, int(ray.cluster_resources().get("CPU", 1))) - len(running)
        running |= {task.remote(shared, items[index]): index for index in islice(waiting, room)}
        if not running:
            return [made[index] for index in range(len(items))]
        finished, _ = ray.wait(list(running))
        for one in finished:
            made[running.pop(one)] = ray.get(one)
        context.report(f"{what}: {len(made)} of {len(items)}", done + len(made), steps)


def _one(work: Callable[[Any], Any], item: Any) -> Any:
    return work(item)


def _as_a_task(work: Callable[[], Any]) -> Any:
    return ray.get(ray.remote(_call).options(num_cpus=1).remote(work))


def _call(work: Callable[[], Any]) -> Any:
    return work()


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


def digest(folder: Path) -> str:
    """One hash over all files below a folder, names included."""
    import hashlib

    made = hashlib.sha256()
    for path in sorted(item for item in folder.rglob("*") if item.is_file()):
        made.update(str(path.relative_to(folder)).encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                made.update(block)
    return made.hexdigest()[:16]
