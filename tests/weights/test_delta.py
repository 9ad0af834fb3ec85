"""A model, its base and the difference between them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_weights import VOCABULARY, pickled_folder, report, safetensors_folder, tiny_llama
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from bayling.errors import StageFailed, UserError
from bayling.model_folder import load_tokenizer
from bayling.weights import delta
from bayling.weights.tensors import EMBEDDING, HEAD, Weights

pytestmark = pytest.mark.unit


def _tuned(folder: Path, base: Path, dtype: torch.dtype, *, tokens: int = 0) -> Path:
    """The base after training: some weights shrunk, every one a little different, tokens added."""
    model = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
    tokenizer = load_tokenizer(base)
    torch.manual_seed(7)
    if tokens:
        tokenizer.add_tokens([f"<new{n}>" for n in range(tokens)])
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= torch.rand_like(parameter) ** 8
            parameter += 0.001 * torch.randn_like(parameter)
    model.to(dtype).save_pretrained(folder, max_shard_size="30KB")
    tokenizer.save_pretrained(folder)
    return folder


def _same_bits(one: Path, other: Path) -> None:
    a, b = Weights(one), Weights(other)
    assert set(a) == set(b)
    for name in a:
        bits = {2: torch.int16, 4: torch.int32}[a[name].element_size()]
        assert a[name].dtype == b[name].dtype
        assert torch.equal(a[name].view(bits), b[name].view(bits)), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("tokens", [0, 3])
def test_a_delta_gives_the_model_back_bit_for_bit(
    tmp_path: Path, dtype: torch.dtype, tokens: int
) -> None:
    base = safetensors_folder(tmp_path / "base", dtype=dtype)
    model = _tuned(tmp_path / "model", base, dtype, tokens=tokens)
    made = delta.make(base, model, tmp_path / "delta", shard_bytes=25_000, report=report)
    assert made.added_tokens == tokens
    assert made.corrected > 0, "the arithmetic was exact: the test shows nothing"
    done = delta.apply(
        base, tmp_path / "delta", tmp_path / "again", shard_bytes=25_000, report=report
    )
    assert done.proven
    assert done.files > 1
    _same_bits(model, tmp_path / "again")
    assert not list((tmp_path / "again").glob("exact*"))
    assert not (tmp_path / "again" / "delta.json").exists()
    assert len(load_tokenizer(tmp_path / "again")) == VOCABULARY + tokens
    loaded, said = AutoModelForCausalLM.from_pretrained(
        tmp_path / "again", use_safetensors=True, output_loading_info=True
    )
    assert not said["missing_keys"]
    assert loaded.get_input_embeddings().weight.shape[0] == VOCABULARY + tokens


def test_the_delta_has_the_form_of_the_published_ones(tmp_path: Path) -> None:
    """Whoever adds it to the base, tensor by tensor, has the model to within rounding."""
    base = safetensors_folder(tmp_path / "base")
    model = _tuned(tmp_path / "model", base, torch.float16)
    made = delta.make(base, model, tmp_path / "delta", report=report)
    step = LlamaForCausalLM.from_pretrained(tmp_path / "delta", dtype=torch.float16).state_dict()
    was = LlamaForCausalLM.from_pretrained(base, dtype=torch.float16).state_dict()
    now = LlamaForCausalLM.from_pretrained(model, dtype=torch.float16).state_dict()
    apart = max((was[name] + step[name] - now[name]).abs().max().item() for name in now)
    assert 0 < apart < 1e-3  # weights are about 0.3
    assert made.largest == pytest.approx(apart, rel=0.1)


def test_a_published_delta_is_added_in_its_own_dtype(tmp_path: Path) -> None:
    """As BayLing v1.0 comes: fp16 pickles, rotary frequencies, tokenizer.model, no record."""
    step = pickled_folder(tmp_path / "delta")
    base = safetensors_folder(tmp_path / "base", seed=3, dtype=torch.float32)
    done = delta.apply(base, tmp_path / "delta", tmp_path / "model", report=report)
    assert not done.proven
    was, now = Weights(base), Weights(tmp_path / "model")
    assert set(now) == set(step)
    for name in now:
        assert now[name].dtype == torch.float16
        assert torch.equal(now[name], was[name].half() + step[name]), name
    assert len(load_tokenizer(tmp_path / "model")) == VOCABULARY


def test_new_rows_stand_for_themselves(tmp_path: Path) -> None:
    """The published tools put zeros below the base's rows and add."""
    base = safetensors_folder(tmp_path / "base")
    model = _tuned(tmp_path / "model", base, torch.float16, tokens=2)
    delta.make(base, model, tmp_path / "delta", report=report)
    step, now = Weights(tmp_path / "delta"), Weights(model)
    for name in (EMBEDDING, HEAD):
        assert step.shape(name)[0] == VOCABULARY + 2
        assert torch.equal(step[name][VOCABULARY:], now[name][VOCABULARY:])


def test_another_base_is_refused_by_the_first_tensor(tmp_path: Path) -> None:
    base = safetensors_folder(tmp_path / "base")
    delta.make(base, _tuned(tmp_path / "m", base, torch.float16), tmp_path / "d", report=report)
    other = safetensors_folder(tmp_path / "other", seed=5)
    with pytest.raises(UserError, match=r"made with another base than .*other: .*weight differs"):
        delta.apply(other, tmp_path / "d", tmp_path / "t", report=report)
    assert not (tmp_path / "t").exists()
    assert not list(tmp_path.glob(".t*"))


def test_a_damaged_delta_is_found(tmp_path: Path) -> None:
    base = safetensors_folder(tmp_path / "base")
    delta.make(base, _tuned(tmp_path / "m", base, torch.float16), tmp_path / "d", report=report)
    path = tmp_path / "d" / "model.safetensors"
    raw = bytearray(path.read_bytes())
    for place in range(-400, 0, 2):
        raw[place] ^= 1
    path.write_bytes(raw)
    with pytest.raises(StageFailed, match="damaged"):
        delta.apply(base, tmp_path / "d", tmp_path / "t", report=report)


def test_a_tensor_of_another_shape_is_named(tmp_path: Path) -> None:
    base = safetensors_folder(tmp_path / "base", shard="1GB")
    model = _tuned(tmp_path / "model", base, torch.float16)
    _rewrite(base, {"model.layers.1.mlp.up_proj.weight": torch.zeros(30, 16).half()})
    with pytest.raises(UserError, match=r"layers\.1\.mlp\.up_proj\.weight is 30×16 in .* 32×16"):
        delta.make(base, model, tmp_path / "delta", report=report)


@pytest.mark.parametrize(("where", "sentence"), [("base", "model has a"), ("model", "base has a")])
def test_a_tensor_that_is_missing_is_named(tmp_path: Path, where: str, sentence: str) -> None:
    base = safetensors_folder(tmp_path / "base", shard="1GB")
    model = safetensors_folder(tmp_path / "model", seed=2, shard="1GB")
    _rewrite({"base": base, "model": model}[where], {"model.norm.weight": None})
    with pytest.raises(UserError, match=rf"{sentence} tensor model\.norm\.weight that"):
        delta.make(base, model, tmp_path / "delta", report=report)


def test_fewer_tokens_than_the_base_are_refused(tmp_path: Path) -> None:
    base = safetensors_folder(tmp_path / "base", rows=VOCABULARY + 8)
    model = safetensors_folder(tmp_path / "model")
    with pytest.raises(UserError, match=r"embed_tokens\.weight is 488×16|lm_head\.weight is 488"):
        delta.make(base, model, tmp_path / "delta", report=report)


def test_tokens_that_changed_places_are_refused(tmp_path: Path) -> None:
    base = safetensors_folder(tmp_path / "base")
    model = _tuned(tmp_path / "model", base, torch.float16)
    path = model / "tokenizer.json"
    table = json.loads(path.read_text("utf-8"))
    vocab = table["model"]["vocab"]
    one, two = list(vocab)[400:402]
    vocab[one], vocab[two] = vocab[two], vocab[one]
    path.write_text(json.dumps(table), "utf-8")
    with pytest.raises(UserError, match=r"token .* is 40\d in .*base and is 40\d in"):
        delta.make(base, model, tmp_path / "delta", report=report)


def test_a_tokenizer_larger_than_the_embedding_is_refused(tmp_path: Path) -> None:
    base = safetensors_folder(tmp_path / "base")
    model = safetensors_folder(tmp_path / "model", seed=1)
    tokenizer = load_tokenizer(model)
    tokenizer.add_tokens(["<one more>"])
    tokenizer.save_pretrained(model)
    with pytest.raises(UserError, match="481 tokens, the embedding 480 rows"):
        delta.make(base, model, tmp_path / "delta", report=report)


def test_quantised_weights_are_refused(tmp_path: Path) -> None:
    base = safetensors_folder(tmp_path / "base", shard="1GB")
    model = safetensors_folder(tmp_path / "model", shard="1GB")
    _rewrite(model, {"model.norm.weight": torch.zeros(16, dtype=torch.int8)})
    with pytest.raises(UserError, match="type int8 cannot be added"):
        delta.make(base, model, tmp_path / "delta", report=report)


def test_a_tied_head_that_one_of_them_spells_out(tmp_path: Path) -> None:
    base = safetensors_folder(tmp_path / "base", tie=True, shard="1GB")
    model = safetensors_folder(tmp_path / "model", seed=1, tie=True, shard="1GB")
    state = load_file(model / "model.safetensors")
    _rewrite(model, {HEAD: state[EMBEDDING].clone()})
    delta.make(base, model, tmp_path / "delta", report=report)
    delta.apply(base, tmp_path / "delta", tmp_path / "again", report=report)
    _same_bits(model, tmp_path / "again")


def test_infinities_and_negative_zeros_survive(tmp_path: Path) -> None:
    base = safetensors_folder(tmp_path / "base", shard="1GB")
    model = safetensors_folder(tmp_path / "model", seed=1, shard="1GB")
    odd = torch.tensor([0.0, -0.0, float("inf"), float("nan"), 6e-8] + [65504.0] * 11).half()
    _rewrite(model, {"model.norm.weight": odd})
    delta.make(base, model, tmp_path / "delta", report=report)
    delta.apply(base, tmp_path / "delta", tmp_path / "again", report=report)
    _same_bits(model, tmp_path / "again")


def test_memory_stays_at_a_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors are read when their turn comes, and no shard grows beyond its limit."""
    from bayling.weights import tensors

    held = []
    flush = tensors.ShardWriter._flush

    def noted(writer: tensors.ShardWriter) -> None:
        held.append(writer._bytes)
        flush(writer)

    monkeypatch.setattr(tensors.ShardWriter, "_flush", noted)
    base = safetensors_folder(tmp_path / "base")
    model = safetensors_folder(tmp_path / "model", seed=1)
    delta.make(base, model, tmp_path / "delta", shard_bytes=16_000, report=report)
    assert sum(held) > sum(p.numel() for p in tiny_llama().parameters()) * 2
    assert max(held) <= 16_000


def _rewrite(folder: Path, changes: dict[str, torch.Tensor | None]) -> None:
    path = folder / "model.safetensors"
    state = {**load_file(path), **changes}
    kept = {name: tensor for name, tensor in state.items() if tensor is not None}
    save_file(kept, path, metadata={"format": "pt"})
