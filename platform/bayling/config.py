"""Composes `conf/` with Hydra and gives each stage its own typed object.

The only reader of YAML. What leaves this module are dataclasses that were validated; a key
that does not exist, a wrong type or an impossible combination is one `UserError` that names
the key and the nearest right one.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import os
import re
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bayling.data.config import DataConfig
from bayling.errors import UserError
from bayling.evaluate.config import EvaluateConfig
from bayling.model import ModelConfig
from bayling.promote.config import PromoteConfig
from bayling.scale import ScaleConfig
from bayling.serve.config import ServeConfig
from bayling.train.config import TrainConfig


@dataclass
class Config:
    """A whole setting: one node a group, and what all stages share."""

    name: str = "run"
    """Names the folder below `output_dir` and the runs in MLflow."""
    seed: int = 1
    output_dir: str = "outputs"
    models_dir: str = "models"
    """Where base weights lie; on a cluster, storage that every node sees."""
    tracking_uri: str | None = None
    """Where MLflow keeps runs and models; without it, a file in `output_dir`."""
    experiment: str = ""
    """In MLflow; empty for `bayling`, and with a team for `bayling-TEAM`."""
    team: str | None = None
    """Whose work it is: a tag of every run in MLflow, and the experiment. In a cluster the team's
    queue and the label by which costs are summed, too."""
    registered_model: str = "bayling"
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    promote: PromoteConfig = field(default_factory=PromoteConfig)
    serve: ServeConfig = field(default_factory=ServeConfig)
    scale: ScaleConfig = field(default_factory=ScaleConfig)

    def validate(self) -> None:
        """Check every group, then what no group can see alone.

        Raises:
            UserError: what is wrong, by key, and the way out.
        """
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise UserError(
                f"name={self.name!r} names a folder: use letters, digits, '.', '_' and '-'"
            )
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", self.team or "none"):
            raise UserError(
                f"team={self.team!r} names a queue and an experiment: use at most 63 small "
                "letters, digits and '-'"
            )
        for group in GROUPS:
            getattr(self, group).validate()
        if self.data.sequence_length > self.model.context_length:
            raise UserError(
                f"data.sequence_length={self.data.sequence_length} is longer than "
                f"model.context_length={self.model.context_length}: raise the latter"
            )
        if self.evaluate.max_new_tokens >= self.model.context_length:
            raise UserError(
                f"evaluate.max_new_tokens={self.evaluate.max_new_tokens} leaves no room for a "
                f"prompt in model.context_length={self.model.context_length}"
            )

    @property
    def folder(self) -> Path:
        return Path(self.output_dir).expanduser().resolve() / self.name

    @property
    def tracking(self) -> str:
        """The tracking store's address, with the default filled in."""
        if self.tracking_uri:
            return self.tracking_uri
        return f"sqlite:///{Path(self.output_dir).expanduser().resolve() / 'mlflow.db'}"


GROUPS = ("data", "model", "train", "evaluate", "promote", "serve", "scale")


def conf_dir() -> Path:
    """The folder with the YAML files: beside the sources, or inside the installed package."""
    package = Path(__file__).resolve().parent
    for folder in (package / "conf", package.parents[1] / "conf"):
        if (folder / "config.yaml").exists():
            return folder
    raise UserError(f"conf/ is neither in {package} nor beside it: install the package again")


def compose(overrides: list[str]) -> Config:
    """The configuration for Hydra overrides such as `recipe=quickstart train.steps=20`.

    Raises:
        UserError: an unknown group option or key, a wrong type, an impossible combination.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError  # type: ignore[import-untyped]

    for override in overrides:
        _check_key(override)
    ConfigStore.instance().store(name="schema", node=Config)
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            composed = hydra_compose("config", overrides)
        config = OmegaConf.to_object(composed)
    except YAMLError as error:
        raise UserError(f"no YAML: {' '.join(str(error).split())}") from None
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_explain(error)) from None
    assert isinstance(config, Config)  # the schema says so
    if config.model.base is not None:
        # Workers have other working directories.
        config.model.base = str(Path(config.model.base).expanduser().resolve())
    if config.serve.keys_file is not None:
        # Links stay: Kubernetes updates a Secret by letting one lead elsewhere.
        config.serve.keys_file = str(Path(config.serve.keys_file).expanduser().absolute())
    config.tracking_uri = config.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or None
    config.validate()
    config.experiment = config.experiment or "-".join(filter(None, ("bayling", config.team)))
    return config


def combinations(overrides: list[str]) -> list[list[str]]:
    """Every combination of overrides with several values: `a=1,2` gives `a=1` and `a=2`.

    Raises:
        UserError: an override that cannot be read.
    """
    choices = []
    for text in overrides:
        override = _parse(text)
        if override.is_sweep_override():
            key = override.get_key_element()
            choices.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        else:
            choices.append([text])
    return [list(combination) for combination in itertools.product(*choices)]


def options(group: str) -> list[str]:
    """The choices of a group: the names of its files."""
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


def _parse(text: str) -> Any:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(text)
    except HydraException:
        if parts := re.fullmatch(r"([a-z_.]+)=([^']+)", text):
            key, value = parts.groups()
            raise UserError(
                f"the value of {key} cannot be read: put it in quotes, \"{key}='{value}'\""
            ) from None
        raise UserError(
            f"{text!r} is not an override: write KEY=VALUE, such as train.steps=100"
        ) from None


def _check_key(text: str) -> None:
    override = _parse(text)
    if override.is_sweep_override():
        raise UserError(f"{text!r} has several values: add -m to run them all")
    key = override.key_or_group
    if override.is_delete():
        raise UserError(f"{text!r}: a key cannot be taken out; give it another value")
    if key in (*GROUPS, "recipe"):
        chosen = str(override.value())
        there = options(key)
        if chosen not in there:
            raise UserError(
                f"there is no {key}={chosen} (it can be {', '.join(there)})"
                f"{_nearest(chosen, there)}"
            )
        return
    if override.package is not None or key == "hydra" or key.startswith("hydra."):
        raise UserError(f"{text!r}: only keys of this project can be set")
    node: Any = Config
    walked: list[str] = []
    parts = key.split(".")
    for place, part in enumerate(parts):
        names = _fields(node)
        if part not in names:
            owner = ".".join(walked) or "the configuration"
            if not names:
                raise UserError(f"{key!r} is not a key: {owner} is a single value")
            near = _nearest(part, list(names), ".".join(walked), ".".join(parts[place + 1 :]))
            raise UserError(f"{key!r} is not a key of {owner}{near}")
        node = names[part]
        walked.append(part)
    if dataclasses.is_dataclass(node):
        raise UserError(f"{key} is a group: choose one with {key}=NAME, or set {key}.KEY=VALUE")


def _fields(node: Any) -> dict[str, Any]:
    if not dataclasses.is_dataclass(node):
        return {}
    hints = typing.get_type_hints(node)
    return {item.name: hints[item.name] for item in dataclasses.fields(node)}


def _nearest(word: str, there: list[str], before: str = "", after: str = "") -> str:
    """A question with the nearest name, in full so that it can be pasted, or all of a group's."""
    near = difflib.get_close_matches(word, there, n=1, cutoff=0.4)
    if not near:
        return f"; it has {', '.join(there)}" if before else ""
    return f": did you mean {'.'.join(filter(None, (before, near[0], after)))}?"


def _explain(error: BaseException) -> str:
    """Hydra's and OmegaConf's several lines as one sentence."""
    if error.__cause__ is not None:
        return _explain(error.__cause__)  # Hydra says which override it was, OmegaConf why
    text = str(error)
    key = re.search(r"full_key: (\S+)", text)
    unknown = re.search(r"Key '(\S+)' not in '(\w+)'", text)
    if key and unknown:
        *parents, last = key.group(1).split(".")
        node: Any = Config
        for part in parents:
            node = _fields(node).get(part, Config)
        near = _nearest(last, list(_fields(node)), ".".join(parents))
        return f"{key.group(1)!r} is not a key of the configuration{near}"
    wrong = re.search(
        r"(Value '.*' of type '.*' could not be converted to .*"
        r"|Invalid value '.*', expected one of .*"
        r"|Value '.*' is not a valid .*)",
        text,
    )
    if key and wrong and re.match(r"Invalid value '(True|False)', .*\bon\b", wrong.group(1)):
        return f'{key.group(1)}: YAML takes on and off for true and false: write "on" or "off"'
    if key and wrong:
        return f"{key.group(1)}: {wrong.group(1)}"
    if key and "is not Optional" in text:
        return f"{key.group(1)}: cannot be null"
    if key and "is not a ListConfig" in text:
        return f"{key.group(1)}: takes a list, [a,b]"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if key:
        return f"{key.group(1)}: {lines[0]}"
    if "Config search path:" in lines:
        lines = lines[: lines.index("Config search path:")]
    return " ".join(lines) or type(error).__name__
