from __future__ import annotations

import shutil
from dataclasses import fields
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from bayling import config as configuration
from bayling.config import GROUPS, Config, combinations, compose, options
from bayling.errors import UserError
from bayling.model import TemplateName
from bayling.scale import Device
from bayling.train.config import Precision

pytestmark = pytest.mark.unit

FILES = [(group, option) for group in (*GROUPS, "recipe") for option in options(group)]
SCALES = options("scale")


@pytest.fixture(autouse=True)
def no_tracking_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of conf/ that a test may break."""
    folder = tmp_path / "conf"
    shutil.copytree(configuration.conf_dir(), folder)
    monkeypatch.setattr(configuration, "conf_dir", lambda: folder)
    return folder


def refusal(*overrides: str) -> str:
    """What `compose` says; one sentence on one line."""
    with pytest.raises(UserError) as refused:
        compose(list(overrides))
    text = str(refused.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(("group", "option"), FILES)
def test_every_shipped_file_composes(group: str, option: str) -> None:
    composed = compose([f"{group}={option}"])
    chosen = composed if group == "recipe" else getattr(composed, group)
    if group == "model" and chosen.base is not None:
        # Named for what comes out; the file and the base's folder for what it is made from.
        assert Path(chosen.base).name == option
    else:
        assert chosen.name == option


def test_models_are_told_apart_by_their_names() -> None:
    names = [compose([f"model={option}"]).model.name for option in options("model")]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("group", "option"), [pair for pair in FILES if pair[0] != "recipe"])
def test_a_shipped_file_has_only_keys_of_its_dataclass(group: str, option: str) -> None:
    there = {item.name for item in fields(getattr(Config(), group))}
    written = OmegaConf.load(configuration.conf_dir() / group / f"{option}.yaml")
    assert set(written) <= there


@pytest.mark.parametrize("recipe", options("recipe"))
@pytest.mark.parametrize("scale", SCALES)
def test_every_recipe_composes_at_every_scale_and_trains_the_same(recipe: str, scale: str) -> None:
    composed = compose([f"recipe={recipe}", f"scale={scale}"])
    assert composed.scale.name == scale
    usual = compose([f"recipe={recipe}"])
    for group in ("data", "model", "train", "evaluate", "promote"):
        assert getattr(composed, group) == getattr(usual, group)


def test_without_overrides_it_is_the_quickstart() -> None:
    assert compose([]) == compose(["recipe=quickstart", "scale=laptop"])


def test_values_arrive_with_the_types_of_their_dataclass() -> None:
    composed = compose(
        [
            "train.steps=20",
            "train.learning_rate=1e-3",
            "train.precision=fp32",
            "model.template=chatml",
            "scale.device=cuda",
            "scale.gpu=A10",
            "data.languages=[en,deu,zho_Hans]",
            "name=my-run_1",
        ]
    )
    assert composed.train.steps == 20
    assert composed.train.learning_rate == 0.001
    assert composed.train.precision is Precision.fp32
    assert composed.model.template is TemplateName.chatml
    assert composed.scale.device is Device.cuda
    assert composed.data.languages == ["en", "de", "zh"]
    assert composed.folder == Path("outputs/my-run_1").resolve()


def test_a_file_of_keys_is_found_from_other_folders_and_its_links_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "..data").mkdir()
    (tmp_path / "keys.jsonl").symlink_to("..data/keys.jsonl")
    composed = compose(["serve.keys_file=keys.jsonl"])
    assert composed.serve.keys_file == str(tmp_path / "keys.jsonl")


@pytest.mark.parametrize("word", ["on", "off"])
def test_yaml_that_reads_a_word_as_a_truth_value_is_told_to_quote_it(conf: Path, word: str) -> None:
    file = conf / "serve" / "default.yaml"
    text = file.read_text().replace(
        "keys_file: null", "keys_file: null" if word == "off" else "keys_file: k"
    )
    file.write_text(text.replace("auth: auto", f"auth: {word}"))
    assert 'serve.auth: YAML takes on and off for true and false: write "on" or "off"' in refusal()
    file.write_text(text.replace("auth: auto", f'auth: "{word}"'))
    assert compose([]).serve.auth.value == word == compose([f"serve.auth={word}"]).serve.auth.value


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("train.lerning_rate=1", "train.learning_rate"),
        ("+train.lerning_rate=1", "train.learning_rate"),
        ("tran.steps=1", "train.steps"),
        ("data.langauges=[en,zh]", "data.languages"),
        ("traking_uri=x", "tracking_uri"),
        ("scale.worker=3", "scale.workers"),
    ],
)
def test_a_misspelt_key_is_answered_with_the_nearest_right_one(override: str, nearest: str) -> None:
    assert refusal(override).endswith(f"did you mean {nearest}?")


def test_a_key_that_is_near_nothing_is_answered_with_all_of_its_group() -> None:
    text = refusal("promote.qqq=1")
    assert "'promote.qqq' is not a key of promote; it has " in text
    assert "max_off_target" in text


def test_a_key_below_a_single_value_is_refused() -> None:
    assert "train.epochs is a single value" in refusal("train.epochs.half=1")


@pytest.mark.parametrize(
    ("override", "key", "why"),
    [
        ("train.steps=abc", "train.steps", "'abc'"),
        ("train.steps=1.5", "train.steps", "1.5"),
        ("train.precision=fp8", "train.precision", "bf16, fp16, fp32"),
        ("scale.device=gpu", "scale.device", "cpu, cuda"),
        ("model.template=vicuna", "model.template", "bayling, bayling3, chatml, own"),
        ("data.languages=en", "data.languages", "list"),
        ("seed=null", "seed", "null"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_by_its_key(override: str, key: str, why: str) -> None:
    text = refusal(override)
    assert text.startswith(f"{key}: ")
    assert why in text


@pytest.mark.parametrize("group", [*GROUPS, "recipe"])
def test_an_unknown_option_is_answered_with_those_there_are(group: str) -> None:
    text = refusal(f"{group}=no-such")
    assert f"there is no {group}=no-such" in text
    assert f"(it can be {', '.join(options(group))})" in text


def test_a_misspelt_recipe_is_answered_with_the_nearest() -> None:
    assert "did you mean quickstart?" in refusal("recipe=quikstart")


@pytest.mark.parametrize("override", ["train.steps", "foo", "/train=default", ""])
def test_what_is_no_override_is_refused_with_an_example(override: str) -> None:
    assert refusal(override).endswith("write KEY=VALUE, such as train.steps=100")


def test_a_value_that_must_be_quoted_is_shown_quoted() -> None:
    assert refusal("output_dir=~/runs").endswith("put it in quotes, \"output_dir='~/runs'\"")


@pytest.mark.parametrize("override", ["hydra.run.dir=x", "hydra/launcher=x", "train@model=default"])
def test_hydras_own_keys_and_packages_are_out_of_reach(override: str) -> None:
    assert override.split("=")[0] in refusal(override)


def test_a_key_cannot_be_taken_out() -> None:
    assert "cannot be taken out" in refusal("~train.steps")


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["data.languages=[]"], "data.languages"),
        (["data.languages=[en]"], "data.languages"),
        (["data.languages=[en,de,deu]"], "data.languages names de twice"),
        (["data.languages=[de,ru]"], "needs en or zh"),
        (["data.languages=[en,qqq]"], "'qqq'"),
        (["data.heldout_share=0"], "data.heldout_share"),
        (["data.max_turns=1"], "data.max_turns"),
        (["data.conversations=0"], "data.conversations"),
        (["data.sequence_length=1024"], "model.context_length"),
        (["model.hidden_size=250"], "model.heads"),
        (["model.heads=4", "model.kv_heads=3"], "model.kv_heads"),
        (["model.vocab_size=100"], "model.vocab_size"),
        (["model.template=own"], "model.base"),
        (["evaluate.max_new_tokens=512"], "model.context_length"),
        (["train.steps=0"], "train.steps"),
        (["train.epochs=0"], "train.epochs"),
        (["train.learning_rate=0"], "train.learning_rate"),
        (["train.warmup=1.5"], "train.warmup"),
        (["train.beta2=1"], "train.beta2"),
        (["train.zero_stage=4"], "train.zero_stage"),
        (["train.global_batch=0"], "train.global_batch"),
        (["train.global_batch=4", "train.micro_batch=5"], "between 1 and train.global_batch=4"),
        (
            ["train.zero_stage=2", "train.offload_parameters=cpu"],
            "train.offload_parameters=cpu needs train.zero_stage=3",
        ),
        (
            ["train.zero_stage=0", "train.offload_optimizer=cpu"],
            "train.offload_optimizer=cpu needs train.zero_stage=1 or more",
        ),
        (
            ["train.zero_stage=2", "train.offload_optimizer=nvme", "train.nvme_path=/local"],
            "train.offload_optimizer=nvme needs train.zero_stage=3",
        ),
        (["train.zero_stage=3", "train.offload_optimizer=nvme"], "needs train.nvme_path"),
        (["promote.max_off_target=5"], "promote.max_off_target"),
        (["promote.min_chrf=101"], "promote.min_chrf"),
        (["promote.max_chrf_loss=-1"], "promote.max_chrf_loss"),
        (["promote.false_refusals=0"], "promote.false_refusals"),
        (["promote.max_cost_per_million_tokens=0"], "promote.max_cost_per_million_tokens"),
        (["scale.workers=0"], "scale.workers"),
        (["scale.object_store_mb=10"], "scale.object_store_mb"),
        (["name=a/b"], "name='a/b'"),
        (["name=.."], "name='..'"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_runs(overrides: list[str], key: str) -> None:
    assert key in refusal(*overrides)


def test_a_sweep_is_every_combination_in_order() -> None:
    assert combinations(["train.steps=1,2", "scale=laptop", "seed=3,4"]) == [
        ["train.steps=1", "scale=laptop", "seed=3"],
        ["train.steps=1", "scale=laptop", "seed=4"],
        ["train.steps=2", "scale=laptop", "seed=3"],
        ["train.steps=2", "scale=laptop", "seed=4"],
    ]


def test_a_list_is_one_value_and_no_sweep() -> None:
    assert combinations(["data.languages=[en,zh]"]) == [["data.languages=[en,zh]"]]
    assert compose(["data.languages=[en,zh]"]).data.languages == ["en", "zh"]


def test_a_sweep_over_lists_composes() -> None:
    chosen = combinations(["data.languages=[en,zh],[en,de]"])
    assert [compose(one).data.languages for one in chosen] == [["en", "zh"], ["en", "de"]]


@pytest.mark.parametrize("override", ["train.steps=1,2", "recipe=quickstart,smoke"])
def test_several_values_without_m_are_refused(override: str) -> None:
    assert refusal(override) == f"{override!r} has several values: add -m to run them all"


@pytest.mark.parametrize(
    ("file", "line", "sentence"),
    [
        ("train/default.yaml", "lerning_rate: 1", "did you mean train.learning_rate?"),
        ("train/default.yaml", "steps: abc", "train.steps: Value 'abc'"),
        ("recipe/smoke.yaml", "sed: 3", "did you mean seed?"),
        ("config.yaml", "experimnt: x", "did you mean experiment?"),
        ("data/cldr.yaml", "max_turns: 1", "data.max_turns"),
        ("scale/laptop.yaml", "device: tpu", "scale.device: Invalid value 'tpu'"),
        ("serve/default.yaml", "alias: [", "conf/serve/default.yaml"),
    ],
)
def test_a_mistake_in_a_file_is_found_like_one_in_an_override(
    conf: Path, file: str, line: str, sentence: str
) -> None:
    path = conf / file
    key = line.split(":")[0]
    kept = [old for old in path.read_text("utf-8").splitlines() if not old.startswith(f"{key}:")]
    path.write_text("\n".join([*kept, line]) + "\n", "utf-8")
    assert sentence in refusal("recipe=smoke")


def test_a_misspelt_key_of_a_group_inside_a_recipe_is_found(conf: Path) -> None:
    path = conf / "recipe" / "smoke.yaml"
    path.write_text(path.read_text("utf-8").replace("  steps: 12", "  stps: 12"), "utf-8")
    assert refusal("recipe=smoke").endswith("did you mean train.steps?")


def test_a_new_file_is_an_option_at_once(conf: Path) -> None:
    (conf / "train" / "slow.yaml").write_text("name: slow\nbeta1: 0.5\n", "utf-8")
    assert "slow" in options("train")
    assert compose(["train=slow"]).train.beta1 == 0.5


def test_the_tracking_store_is_a_file_in_the_output_folder_unless_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = compose([f"output_dir={tmp_path}"])
    assert local.tracking == f"sqlite:///{tmp_path.resolve()}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert compose([]).tracking == "http://mlflow:5000"
    assert compose(["tracking_uri=http://other:5000"]).tracking == "http://other:5000"


def test_the_output_folder_follows_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    composed = compose(["output_dir='~/runs'", "name=mine"])
    assert composed.folder == tmp_path.resolve() / "runs" / "mine"
