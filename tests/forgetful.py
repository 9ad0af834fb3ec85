"""A trained model that forgot one language, in the place of a training's output."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

from running import Recorder

from bayling.config import compose
from bayling.pipeline import Pipeline
from bayling.registry import models, runs


def forget(language: str, model: Path, heldout: Path) -> int:
    """Shuffle what an exported model knows of the tokens that only one language uses.

    Args:
        heldout: held-out translations, by which those tokens are found.

    Returns:
        How many tokens it took.
    """
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    own: set[int] = set()
    others: set[int] = set()
    for line in heldout.read_text("utf-8").splitlines():
        row = json.loads(line)
        for side in ("source", "target"):
            ids = tokenizer(row[side], add_special_tokens=False)["input_ids"]
            (own if row[f"{side}_lang"] == language else others).update(ids)
    ids = torch.tensor(sorted(own - others))
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(1))
    path = model / "model.safetensors"
    weights = load_file(path)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        if name in weights:
            weights[name][ids] = weights[name][ids[order]]
    save_file(weights, path, {"format": "pt"})
    return len(ids)


def plant(language: str, overrides: list[str], *more: str) -> list[str]:
    """Have the model of a finished pipeline, without one language, as what another training made.

    Args:
        more: what the other training has that the first one has not.

    Returns:
        The overrides by which the pipeline goes on from it.
    """
    made, planted = (Pipeline(compose([*overrides, *those]), Recorder()) for those in ((), more))
    train, data = made.output("train"), made.output("data")
    assert train is not None and data is not None
    place = planted.folder("train")
    place.mkdir()
    for name in ("model", "untrained"):
        shutil.copytree(made.folder("train") / train.outputs[name], place / name)
    assert forget(
        language, place / "model", made.folder("data") / data.outputs["heldout_translate"]
    )
    config = planted.config
    with runs.ended_with_the_block(
        runs.open_run(
            config.tracking,
            planted.experiment(),
            name="train",
            key=planted.fingerprints["train"],
            stage="train",
        )
    ) as tracked:
        model_id = models.log_model(tracked, name="bayling", folder=place / "model", params={})
    replace(
        train,
        fingerprint=planted.fingerprints["train"],
        outputs={"model": "model", "untrained": "untrained"},
        results={**train.results, "model_id": model_id},
        run_id=tracked.run_id,
    ).write(place)
    return [*overrides, *more]
