"""What a training run is told: the driver makes it, every worker gets it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from pathlib import Path

from bayling.model import Licence, ModelConfig
from bayling.scale import ScaleConfig
from bayling.stage import Context, TrackedRun, jsonable
from bayling.train.config import Precision, TrainConfig
from bayling.train.export import Origin

CHECKPOINTS, BEATS, CURVE = "checkpoints", "beats", "curve.jsonl"
"""Below the stage's folder."""


@dataclass(frozen=True)
class Settings:
    """All that a worker needs to know."""

    train: TrainConfig
    model: ModelConfig
    scale: ScaleConfig
    packed: Path
    heldout: Path
    tokenizer: Path
    folder: Path
    steps: int
    seed: int
    fingerprint: str
    launch: str
    """Names the command that runs training now."""
    tracked: TrackedRun
    origin: Origin

    @property
    def start(self) -> Path:
        """The folder of the model that training starts from."""
        if self.model.base is not None:
            return Path(self.model.base).resolve()
        return self.folder / "untrained"


def settings_for(config: TrainConfig, model: ModelConfig, context: Context, steps: int) -> Settings:
    """The settings of a run in the stage's folder, for this command."""
    data_folder, data = context.upstream("data")
    return Settings(
        train=config,
        model=model,
        scale=context.scale,
        packed=data_folder / data.outputs["packed"],
        heldout=data_folder / data.outputs["heldout_packed"],
        tokenizer=data_folder / data.outputs["tokenizer"],
        folder=context.folder,
        steps=steps,
        seed=context.seed,
        fingerprint=context.fingerprint,
        launch=uuid.uuid4().hex[:8],
        tracked=context.tracked,
        origin=Origin(
            model=_with_licence(model),
            languages=data.config["languages"],
            licences=data.licences,
            config={"train": jsonable(config), "model": jsonable(model), "data": data.config},
            data_fingerprint=data.fingerprint,
            run_id=context.tracked.run_id,
            trained_steps=steps,
            dtype="float16" if config.precision is Precision.fp16 else "bfloat16",
        ),
    )


def _with_licence(model: ModelConfig) -> ModelConfig:
    unknown = model.base is not None and model.licence is Licence.none
    return replace(model, licence=Licence.other) if unknown else model
