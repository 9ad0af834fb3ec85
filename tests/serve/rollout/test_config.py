from __future__ import annotations

import pytest

from bayling.config import compose
from bayling.errors import UserError
from bayling.serve.application import Arguments, ServedModel
from bayling.serve.config import ServeConfig
from bayling.serve.rollout.config import RolloutConfig

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("steps", []),
        ("steps", [0.5, 0.25]),
        ("steps", [0.5, 0.5]),
        ("steps", [0.5, 1.0]),
        ("min_samples", 0),
        ("probes", 0),
        ("min_step_s", -1),
        ("keep_previous_s", -1),
        ("undecided_after_s", 0),
        ("poll_s", 0),
        ("max_error_increase", 0),
        ("max_off_target_increase", 1),
        ("max_latency_ratio", 1),
        ("wrong_rollbacks", 0),
        ("wrong_promotions", 0.5),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_its_key(key: str, value: object) -> None:
    config = ServeConfig()
    setattr(config.rollout, key, value)
    with pytest.raises(UserError, match=rf"serve\.rollout\.{key}\b"):
        config.validate()


def test_keys_are_set_on_the_command_line_and_misspelt_ones_are_named() -> None:
    rollout = compose(["serve.rollout.steps=[0.1,0.2]", "serve.rollout.min_step_s=5"]).serve.rollout
    assert (rollout.steps, rollout.min_step_s) == ([0.1, 0.2], 5)
    with pytest.raises(UserError, match=r"did you mean serve\.rollout\.min_samples\?"):
        compose(["serve.rollout.min_sample=5"])


def test_the_shipped_values_are_the_documented_defaults() -> None:
    assert compose([]).serve.rollout == RolloutConfig()


def test_the_settings_travel_to_replicas_as_json() -> None:
    config = ServeConfig(rollout=RolloutConfig(steps=[0.3]))
    sent = Arguments(config, ServedModel("sqlite:///x", "bayling", {}), "cpu", 1, 0, True)
    assert Arguments.read(sent.write()).config == config
