from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open
from tiny_tokenizers import llama2
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from bayling.errors import UserError
from bayling.model import Licence, ModelConfig, TemplateName
from bayling.model_folder import CARD, Serving, load_chat
from bayling.templates import TEMPLATES, ChatFormat, Message
from bayling.train import checkpoint, export, network
from bayling.train.checkpoint import Checkpoint, Progress, complete
from bayling.train.config import LoraConfig
from bayling.train.export import InMemory, Origin, Trained, card
from bayling.train.state import KEYS
from bayling.weights import tensors
from bayling.weights.folder import shards

pytestmark = pytest.mark.unit

SIZES = ModelConfig(
    name="mine", hidden_size=32, intermediate_size=64, layers=2, heads=4, kv_heads=2,
    context_length=64,
)  # fmt: skip
LORA = LoraConfig(rank=4, alpha=8.0)
ORIGIN = Origin(
    model=SIZES,
    languages=["en", "zh", "de"],
    licences={"cldr": "Unicode-3.0"},
    config={"train": {"steps": 7}},
    data_fingerprint="0123456789abcdef",
    run_id="run-7",
    trained_steps=7,
)


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> ChatFormat:
    folder = tmp_path_factory.mktemp("tokenizer")
    llama2(folder).save_pretrained(folder)
    return load_chat(folder, "bayling")


def saved(root: Path, trained: dict[str, torch.Tensor]) -> Checkpoint:
    """A checkpoint of these weights, as two workers write it."""
    shapes = {name: list(tensor.shape) for name, tensor in trained.items()}
    for rank in range(2):
        parts = []
        for name, tensor in trained.items():
            flat = tensor.detach().float().flatten()
            half = len(flat) // 2
            start, part = (0, flat[:half]) if rank == 0 else (half, flat[half:])
            parts.append((name, start, {key: part.clone() for key in KEYS}))
        folder = checkpoint.unfinished(root, 7, "a")
        checkpoint.write_shard(folder, rank, parts)
    return checkpoint.publish(folder, Progress(7, 2, "f", shapes))


def test_an_export_is_loaded_by_transformers_with_its_weights(
    chat: ChatFormat, tmp_path: Path
) -> None:
    model = network.build(SIZES, chat.tokenizer, 1, list(chat.stop_ids))
    export.write(
        tmp_path / "untrained", InMemory(model.config, dict(model.named_parameters())), chat, ORIGIN
    )
    for parameter in model.parameters():
        parameter.data += 0.01
    found = saved(tmp_path / "checkpoints", dict(model.named_parameters()))
    folder = tmp_path / "model"
    export.write(folder, Trained(found, tmp_path / "untrained", LoraConfig()), chat, ORIGIN)
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    assert loaded.dtype == torch.bfloat16
    for name, parameter in loaded.named_parameters():
        assert torch.equal(parameter, dict(model.named_parameters())[name].bfloat16())
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight, "tied, as in the config"
    generation = GenerationConfig.from_pretrained(folder)
    assert generation.eos_token_id == list(chat.stop_ids)
    assert Serving.read(folder) == Serving("bayling", 64, ["en", "zh", "de"], None)
    provenance = json.loads((folder / export.PROVENANCE).read_text())
    assert provenance["trained_steps"] == 7
    assert provenance["data_fingerprint"] == ORIGIN.data_fingerprint
    assert provenance["config"] == ORIGIN.config


def test_its_chat_template_makes_the_ids_of_training(chat: ChatFormat, tmp_path: Path) -> None:
    model = network.build(SIZES, chat.tokenizer, 1, list(chat.stop_ids))
    source = InMemory(model.config, dict(model.named_parameters()))
    export.write(tmp_path / "model", source, chat, ORIGIN)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    rows = [("user", "in 5 days"), ("assistant", "In 5 Tagen."), ("user", "Make it shorter")]
    ids = tokenizer.apply_chat_template(
        [{"role": role, "content": text} for role, text in rows],
        add_generation_prompt=True,
        return_dict=False,
    )
    assert list(ids) == chat.prompt_ids([Message(role, text) for role, text in rows])


def test_large_models_are_written_in_shards_with_an_index(
    chat: ChatFormat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensors.ShardWriter.__init__, "__defaults__", ("model", 20_000))
    model = network.build(SIZES, chat.tokenizer, 1, list(chat.stop_ids))
    source = InMemory(model.config, dict(model.named_parameters()))
    export.write(tmp_path / "model", source, chat, ORIGIN)
    assert len(shards(tmp_path / "model")) > 2
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.bfloat16)
    for name, parameter in loaded.named_parameters():
        assert torch.equal(parameter, dict(model.named_parameters())[name].bfloat16())


def test_fp16_training_is_exported_as_fp16(chat: ChatFormat, tmp_path: Path) -> None:
    model = network.build(SIZES, chat.tokenizer, 1, list(chat.stop_ids))
    source = InMemory(model.config, dict(model.named_parameters()))
    export.write(tmp_path / "model", source, chat, replace(ORIGIN, dtype="float16"))
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["dtype"] == "float16"
    assert config["architectures"] == ["LlamaForCausalLM"]
    with safe_open(tmp_path / "model" / "model.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}  # noqa: SIM118


def test_adapters_are_merged_into_the_base_and_written_alone(
    chat: ChatFormat, tmp_path: Path
) -> None:
    from peft import PeftModel

    from bayling.train import adapters

    base = tmp_path / "base"
    plain = network.build(SIZES, chat.tokenizer, 1, list(chat.stop_ids)).bfloat16()
    plain.save_pretrained(base)
    config = replace(SIZES, base=str(base), licence=Licence.other)
    model = network.build(config, chat.tokenizer, 1, list(chat.stop_ids), dtype=torch.bfloat16)
    torch.manual_seed(5)
    adapters.insert(model, LORA)
    learnt = {n: torch.randn(p.shape) / 8 for n, p in model.named_parameters() if p.requires_grad}
    found = saved(tmp_path / "checkpoints", learnt)
    origin = replace(ORIGIN, model=config)
    export.write(tmp_path / "model", Trained(found, base, LORA), chat, origin)
    export.write_adapter(tmp_path / "adapter", found, LORA, origin)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    beside = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), tmp_path / "adapter"
    )
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        one, two, before = (
            network(input_ids=ids).logits for network in (merged, beside, plain.float())
        )
    assert (one - two).norm() / (one - before).norm() < 0.03
    names = {path.name for path in (tmp_path / "adapter").iterdir()}
    weights = {"adapter_model.safetensors", "adapter_config.json"}
    assert names == weights | {CARD, export.PROVENANCE}


@pytest.mark.parametrize("brought", [True, False])
def test_what_the_licence_wants_to_be_passed_on_lies_beside_the_weights(
    chat: ChatFormat, tmp_path: Path, brought: bool
) -> None:
    base = tmp_path / "base"
    base.mkdir()
    files = {"LICENSE.txt": "the agreement", "USE_POLICY.md": "the policy"}
    if brought:
        files["Notice.txt"] = "the base's own"
    for name, text in files.items():
        (base / name).write_text(text)
    (base / "config.json").write_text("{}")
    model = network.build(SIZES, chat.tokenizer, 1, list(chat.stop_ids))
    of = replace(SIZES, name="llama-3-mine", base=str(base), licence=Licence.llama3)
    origin = replace(ORIGIN, model=of)
    parameters = dict(model.named_parameters())
    export.write(tmp_path / "model", InMemory(model.config, parameters), chat, origin)
    adapter = {"model.layers.0.mlp.up_proj.lora_A.default.weight": torch.ones(4, 32)}
    export.write_adapter(tmp_path / "adapter", saved(tmp_path / "c", adapter), LORA, origin)
    for folder in (tmp_path / "model", tmp_path / "adapter"):
        for name, text in files.items():
            assert (folder / name).read_text() == text
        if brought:
            assert not (folder / "NOTICE").exists()
        else:
            notice = (folder / "NOTICE").read_text()
            assert "Meta Llama 3 is licensed under the Meta Llama 3 Community License" in notice


def test_a_checkpoint_that_is_held_outlives_its_removal(tmp_path: Path) -> None:
    found = saved(tmp_path, {"model.norm.weight": torch.arange(8.0)})
    with checkpoint.held(found) as kept:
        shutil.rmtree(found.folder)
        assert kept.step == 7
        assert kept.damage() is None
        assert kept.weight("model.norm.weight").tolist() == list(range(8))
        assert complete(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_is_gone_is_refused(tmp_path: Path) -> None:
    found = saved(tmp_path, {"model.norm.weight": torch.ones(8)})
    shutil.rmtree(found.folder)
    with pytest.raises(UserError, match="was removed by the run"), checkpoint.held(found):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_failed_export_leaves_the_one_before(chat: ChatFormat, tmp_path: Path) -> None:
    model = network.build(SIZES, chat.tokenizer, 1, list(chat.stop_ids))
    source = InMemory(model.config, dict(model.named_parameters()))
    export.write(tmp_path / "model", source, chat, ORIGIN)
    before = (tmp_path / "model" / "model.safetensors").read_bytes()
    found = saved(tmp_path / "checkpoints", {"model.norm.weight": torch.ones(32)})
    found.progress.shapes["other"] = [3]
    with pytest.raises(UserError, match="does not hold all of other"):
        export.write(
            tmp_path / "model", Trained(found, tmp_path / "model", LoraConfig()), chat, ORIGIN
        )
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == before


def head(text: str) -> dict[str, object]:
    return dict(yaml.safe_load(text.split("---")[1]))


@pytest.mark.parametrize(
    ("licence", "hub", "duty"),
    [
        (Licence.llama1, "other", "research only"),
        (Licence.llama2, "llama2", "Llama 2 is licensed under the LLAMA 2 Community License"),
        (Licence.llama3, "llama3", "Built with Meta Llama 3"),
        (Licence.other, "other", "a licence of their own"),
    ],
)
def test_the_card_says_what_the_base_is_and_what_its_licence_asks_for(
    licence: Licence, hub: str, duty: str
) -> None:
    model = ModelConfig(
        name="llama-3-mine",
        base="/models/x",
        source="hf://meta-llama/Some-Base",
        revision="abc123",
        licence=licence,
        template=TemplateName.bayling3,
    )
    text = card(replace(ORIGIN, model=model))
    assert head(text)["license"] == hub
    assert head(text)["base_model"] == "meta-llama/Some-Base"
    assert head(text)["language"] == ["en", "zh", "de"]
    assert "hf://meta-llama/Some-Base at revision `abc123`" in text
    assert duty in text
    assert "- cldr: Unicode-3.0" in text
    assert "German" in text


def test_the_card_of_a_model_from_nothing_names_no_base() -> None:
    text = card(ORIGIN)
    assert "base_model" not in head(text)
    assert "none (trained from random weights)" in text
    assert "no licence of base weights applies" in text


def test_a_tokenizer_whose_template_gives_other_ids_is_not_exported(
    chat: ChatFormat, tmp_path: Path
) -> None:
    from bayling.templates import TemplateError

    class Different(ChatFormat):
        def prompt_ids(self, messages: list[Message]) -> list[int]:  # type: ignore[override]
            return [*super().prompt_ids(messages), 5]

    model = network.build(SIZES, chat.tokenizer, 1, list(chat.stop_ids))
    source = InMemory(model.config, dict(model.named_parameters()))
    other = Different(chat.tokenizer, TEMPLATES["bayling"])
    with pytest.raises(TemplateError, match="give different tokens"):
        export.write(tmp_path / "model", source, other, ORIGIN)
    assert not (tmp_path / "model").exists()
