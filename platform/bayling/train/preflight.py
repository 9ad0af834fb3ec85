"""What can be known to be wrong with a training before a worker is started."""

from __future__ import annotations

from bayling.errors import UserError
from bayling.model_folder import load_tokenizer
from bayling.shape import Shape
from bayling.stage import Context, jsonable, read_json, write_json
from bayling.train import checkpoint, events
from bayling.train.config import CARRIED_OUT, TrainConfig
from bayling.train.settings import CHECKPOINTS, Settings
from bayling.weights.tensors import Weights

_CARRIED_OUT = "carried-out.json"


def check_vocabulary(settings: Settings) -> None:
    """A token without a row in the embedding would be found by a worker, on its GPU."""
    if settings.model.base is None:
        return
    tokens = len(load_tokenizer(settings.tokenizer))
    rows = Shape.of(settings.model).vocab
    if tokens > rows:
        raise UserError(
            f"model.base={settings.model.base}: the tokenizer has {tokens} tokens, the embedding "
            f"{rows} rows: take the tokenizer the model was made with"
        )


def check_checkpoint(settings: Settings) -> None:
    """Whether training can go on from what is there, as far as that is known without a network.

    Raises:
        UserError: the newest checkpoint is of another configuration or another model.
    """
    there = checkpoint.complete(settings.folder / CHECKPOINTS)
    try:
        progress = there[0].progress if there else None
    except (OSError, ValueError, TypeError):
        return  # it is damaged: the workers set it aside
    if progress is None:
        return
    shapes = progress.shapes
    if settings.start.exists():
        start = Weights(settings.start)
        shapes = {
            name: list(start.shape(name)) if name in start else shape
            for name, shape in shapes.items()
        }
    checkpoint.check_fits(progress, settings.fingerprint, shapes)


def say_what_changed(config: TrainConfig, context: Context) -> None:
    """Of a run that was begun with other keys in `CARRIED_OUT`, which is one and the same run."""
    path = context.folder / _CARRIED_OUT
    now = {key: jsonable(getattr(config, key)) for key in sorted(CARRIED_OUT)}
    before = read_json(path, now)
    changed = [
        f"train.{key}={value} instead of {before[key]}"
        for key, value in now.items()
        if before.get(key, value) != value
    ]
    if changed:
        text = f"goes on with {', '.join(changed)}"
        events.record(context.folder, text)
        context.note(text)
    write_json(path, now)
