"""The model of a checkpoint: the last one at the end of a run, any of them on demand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bayling.errors import StageFailed, UserError
from bayling.model import ModelConfig
from bayling.model_folder import load_chat
from bayling.stage import Context
from bayling.train import checkpoint, export
from bayling.train.config import TrainConfig
from bayling.train.precision import settled
from bayling.train.settings import CHECKPOINTS, Settings, settings_for


def export_step(
    config: TrainConfig, model: ModelConfig, context: Context, step: int | None, target: Path
) -> int:
    """Write the model of a checkpoint to `target`; the newest where `step` is None.

    Also of a run that was stopped, or one that goes on beside it. Returns the step.

    Raises:
        UserError: there is no checkpoint of this step; the message names those there are.
        StageFailed: the checkpoint is damaged, or `target` cannot be written.
    """
    there = checkpoint.complete(context.folder / CHECKPOINTS)
    steps = [one.step for one in there]
    if not steps:
        raise UserError(f"there is no checkpoint in {context.folder / CHECKPOINTS} yet")
    if step is not None and step not in steps:
        kept = ", ".join(str(one) for one in sorted(steps))
        raise UserError(f"there is no checkpoint of step {step}: it can be {kept}")
    if target.exists():
        raise UserError(f"{target} is there already: name another folder, or remove it")
    chosen = there[0] if step is None else there[steps.index(step)]
    settings = settings_for(settled(config, context.scale), model, context, chosen.step)
    with checkpoint.held(chosen) as safe:
        error = export_checkpoint(settings, safe.folder, target)
    if error is not None:
        raise error
    return chosen.step


def export_checkpoint(settings: Settings, step: Path, folder: Path) -> Exception | None:
    """Write the model of a checkpoint to `folder`; returns the error for the user, if any."""
    chat = load_chat(settings.tokenizer, settings.model.template.value)
    found = checkpoint.Checkpoint(step)
    origin = replace(settings.origin, trained_steps=found.step)
    lora = settings.train.lora
    damage = found.damage()
    if damage is not None:
        return StageFailed(f"{damage}: remove {step}, and the same command goes on before it")
    try:
        source = export.Trained(found, settings.start, lora)
        export.write(folder, source, chat, origin)
        if lora.rank:
            beside = export.ADAPTER if folder.name == "model" else f"{folder.name}-{export.ADAPTER}"
            export.write_adapter(folder.with_name(beside), found, lora, origin)
    except UserError as error:
        return error
    except OSError as error:
        return StageFailed(f"the model could not be exported to {folder} ({error})")
    return None
