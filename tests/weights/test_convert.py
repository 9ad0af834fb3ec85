"""Older forms of weights and tokenizers become the form that is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_weights import Evil, pickled_folder, report, safetensors_folder
from transformers import AutoModelForCausalLM

from bayling.errors import UserError
from bayling.model_folder import load_tokenizer
from bayling.weights.convert import convert
from bayling.weights.tensors import HEAD, Weights
from bayling.weights.tokenizer import SAMPLES

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(("shards", "legacy"), [(1, False), (3, False), (1, True), (2, True)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_pickles_become_safetensors_with_every_bit(
    tmp_path: Path, shards: int, legacy: bool, dtype: torch.dtype
) -> None:
    state = pickled_folder(tmp_path / "old", shards=shards, dtype=dtype, legacy=legacy)
    done = convert(tmp_path / "old", tmp_path / "new", shard_bytes=20_000, report=report)
    assert done.dropped == 2
    assert done.files > 1
    new = Weights(tmp_path / "new")
    assert set(new) == set(state)
    for name, tensor in state.items():
        assert new[name].dtype == dtype
        assert torch.equal(new[name], tensor), name
    assert not list((tmp_path / "new").glob("*.bin*"))
    largest = max(path.stat().st_size for path in (tmp_path / "new").glob("*.safetensors"))
    assert largest < 30_000


def test_the_library_loads_the_result_without_a_missing_tensor(tmp_path: Path) -> None:
    state = pickled_folder(tmp_path / "old")
    convert(tmp_path / "old", tmp_path / "new", shard_bytes=20_000, report=report)
    model, said = AutoModelForCausalLM.from_pretrained(
        tmp_path / "new", use_safetensors=True, dtype=torch.float16, output_loading_info=True
    )
    assert not said["missing_keys"]
    assert not said["unexpected_keys"]
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name])


def test_the_tokenizer_gives_the_ids_of_sentencepiece(tmp_path: Path) -> None:
    import sentencepiece

    pickled_folder(tmp_path / "old")
    assert convert(tmp_path / "old", tmp_path / "new", report=report).tokenizer
    pieces = sentencepiece.SentencePieceProcessor(
        model_file=str(tmp_path / "old" / "tokenizer.model")
    )
    fast = load_tokenizer(tmp_path / "new")
    for text in (*SAMPLES, "a text that the conversion did not try: ৪২ টি"):
        assert fast(text, add_special_tokens=False).input_ids == pieces.encode(text)


def test_a_bare_tokenizer_model_is_taken_for_what_it_is(tmp_path: Path) -> None:
    """Without a tokenizer_config.json the library alone gives other ids."""
    pickled_folder(tmp_path / "old")
    (tmp_path / "old" / "tokenizer_config.json").unlink()
    convert(tmp_path / "old", tmp_path / "new", report=report)
    tokenizer = load_tokenizer(tmp_path / "new")
    tokens = tokenizer("in 5 days</s>in").tokens()
    assert tokens[:2] == ["<s>", "▁in"]
    # As in LLaMA's time, a blank follows a control token too.
    assert tokens[-2:] == ["</s>", "▁in"]


def test_what_the_tokenizer_config_says_is_kept(tmp_path: Path) -> None:
    pickled_folder(tmp_path / "old")
    config = json.loads((tmp_path / "old" / "tokenizer_config.json").read_text())
    changed = {**config, "add_bos_token": False, "legacy": False}
    (tmp_path / "old" / "tokenizer_config.json").write_text(json.dumps(changed))
    convert(tmp_path / "old", tmp_path / "new", report=report)
    tokens = load_tokenizer(tmp_path / "new")("in 5 days</s>in").tokens()
    assert tokens[0] == "▁in"
    assert tokens[-2:] == ["</s>", "in"]


def test_a_tokenizer_that_comes_out_different_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pickled_folder(tmp_path / "old")
    config = json.loads((tmp_path / "old" / "tokenizer_config.json").read_text())
    config["add_prefix_space"] = False
    (tmp_path / "old" / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="gives other tokens than SentencePiece for 'Provide"):
        convert(tmp_path / "old", tmp_path / "new", report=report)
    assert not (tmp_path / "new").exists()


def test_a_pickle_that_wants_to_run_code_is_refused(tmp_path: Path) -> None:
    pickled_folder(tmp_path / "old", shards=1)
    proof = tmp_path / "it-ran"
    torch.save({"a": Evil(proof)}, tmp_path / "old" / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pickle that wants to run code \(posix\.system\)"):
        convert(tmp_path / "old", tmp_path / "new", report=report)
    assert not proof.exists()
    assert not (tmp_path / "new").exists()
    assert not list(tmp_path.glob(".new*"))


def test_tied_tensors_are_written_once_and_shared_ones_each(tmp_path: Path) -> None:
    pickled_folder(tmp_path / "tied", shards=1, tie=True)
    convert(tmp_path / "tied", tmp_path / "new", report=report)
    assert HEAD not in Weights(tmp_path / "new")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "new")
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()

    config = json.loads((tmp_path / "tied" / "config.json").read_text())
    (tmp_path / "tied" / "config.json").write_text(
        json.dumps({**config, "tie_word_embeddings": False})
    )
    convert(tmp_path / "tied", tmp_path / "each", report=report)
    assert HEAD in Weights(tmp_path / "each")


def test_a_missing_tokenizer_json_beside_safetensors(tmp_path: Path) -> None:
    folder = safetensors_folder(tmp_path / "old")
    with pytest.raises(UserError, match="nothing to convert"):
        convert(folder, tmp_path / "new", report=report)
    pickled_folder(tmp_path / "other", shards=1)
    (folder / "tokenizer.json").unlink()
    (tmp_path / "other" / "tokenizer.model").rename(folder / "tokenizer.model")
    assert convert(folder, tmp_path / "new", report=report).tokenizer


@pytest.mark.parametrize(
    ("remove", "sentence"),
    [
        ("config.json", "has no config.json"),
        ("tokenizer.model", "has no tokenizer: put the tokenizer.json or tokenizer.model"),
        ("pytorch_model-00002-of-00002.bin", "pytorch_model-00002-of-00002.bin is missing"),
        ("pytorch_model.bin.index.json", "no index file"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, remove: str, sentence: str) -> None:
    pickled_folder(tmp_path / "old")
    (tmp_path / "old" / remove).unlink()
    with pytest.raises(UserError, match=sentence):
        convert(tmp_path / "old", tmp_path / "new", report=report)


def test_a_file_cut_short_is_named(tmp_path: Path) -> None:
    pickled_folder(tmp_path / "old", shards=1)
    path = tmp_path / "old" / "pytorch_model.bin"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"pytorch_model\.bin"):
        convert(tmp_path / "old", tmp_path / "new", report=report)


def test_a_tiktoken_file_is_not_taken_for_sentencepiece(tmp_path: Path) -> None:
    pickled_folder(tmp_path / "old")
    (tmp_path / "old" / "tokenizer.model").write_text("IQ== 0\nIg== 1\n")
    with pytest.raises(UserError, match="no SentencePiece model"):
        convert(tmp_path / "old", tmp_path / "new", report=report)


def test_an_index_cannot_lead_out_of_its_folder(tmp_path: Path) -> None:
    pickled_folder(tmp_path / "old")
    index = {"weight_map": {"a": "../../secret.bin"}}
    (tmp_path / "old" / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="outside its folder"):
        convert(tmp_path / "old", tmp_path / "new", report=report)


def test_a_target_that_is_there_is_left_alone(tmp_path: Path) -> None:
    pickled_folder(tmp_path / "old")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "mine").touch()
    with pytest.raises(UserError, match="is there already"):
        convert(tmp_path / "old", tmp_path / "new", report=report)
    assert (tmp_path / "new" / "mine").exists()
