"""The data stage: sources, CLDR → conversations → tokenizer → packed tokens, as Ray tasks.

The corpus is made in partitions of fixed size, numbered from 0. One task builds a partition
and writes it to disk, one tokenises and packs it; the driver sees counts only. What a
partition holds depends on the inputs, the seed and its number alone, so the output is the same to
the byte for any number of workers.
"""

from __future__ import annotations

import shutil
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import ray

from bayling.data import card, gathering, heldout, sourced
from bayling.data.cldr import LICENCE, ORIGIN
from bayling.data.config import DataConfig, trained_directions, zero_shot_directions
from bayling.data.making import Making
from bayling.data.passes import Passes
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

    passes = Passes(context)
    context.report("held-out values", 0, 1)
    tests = heldout.build(config, context.seed)
    making = Making(config, context.seed, folder)
    gathered = Sourced()
    if config.sources:
        gathered = sourced.gather(config, context, tests, passes)
    heldout.write(tests, folder)

    partitions = from_cldr + len(gathered.names)
    texts = ray.put(frozenset(tests.texts))
    made = passes.each(
        "conversations",
        range(partitions),
        lambda number: (
            making.from_cldr(number, ray.get(texts))
            if number < from_cldr
            else making.from_rows(
                number,
                gathered.names[number - from_cldr],
                gathered.uses,
                folder / sourced.HELD_OUT,
            )
        ),
    )

    shutil.rmtree(folder / gathering.SIBLINGS, ignore_errors=True)

    tokens = Tokens(config, model, folder)
    template = TEMPLATES.get(model.template.value)
    if model.base is None:
        assert template is not None  # ModelConfig.validate refuses `own` without a base
        passes.alone("tokenizer", partial(tokens.train_tokenizer, template))
    else:
        load_tokenizer(model.base).save_pretrained(folder / "tokenizer")
        load_chat(folder / "tokenizer", model.template.value)  # refuses a template that misfits

    packed = passes.each("packing", range(partitions), tokens.pack)
    heldout_size = passes.alone("packing held-out", tokens.pack_heldout)

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
        "seconds": {name: round(spent, 2) for name, spent in passes.seconds.items()},
    }
    runs.log_folder(context.tracked, card.write(folder, manifest, lengths, tokens.bin_width))
    return manifest


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
