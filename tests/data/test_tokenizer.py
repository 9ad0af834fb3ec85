from __future__ import annotations

from pathlib import Path

import pytest
from tiny_tokenizers import CORPUS
from transformers import PreTrainedTokenizerFast

from bayling.data.tokenizer import train
from bayling.model_folder import load_tokenizer
from bayling.templates import TEMPLATES

pytestmark = pytest.mark.unit

TEXTS = [
    "in 5 days",
    "in 12 Tagen",
    "5天后",
    "5 दिन में",
    "### Instruction:\n",
    "в течение 24 дней",
] * 9
SIZE = 330


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train(TEXTS, SIZE, TEMPLATES["bayling"])


@pytest.mark.parametrize(
    "text",
    [
        "in 5 days",
        "never seen: ქართული, 한국어, 🎉👩‍👩‍👧, e\u0301",
        "two\n\nlines  and   spaces \t",
        " leading",
        "नमस्ते दुनिया مرحبا",
        "\x00\u2028",
    ],
)
def test_any_text_is_encoded_and_comes_back(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text


def test_every_digit_is_a_token_so_that_new_numbers_are_written_like_known_ones(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    assert tokenizer.tokenize("12 890")[:2] == ["1", "2"]
    assert sum(token.strip("Ġ").isdigit() for token in tokenizer.tokenize("12 890")) == 5
    for token in tokenizer.get_vocab():
        assert sum(character.isdigit() and character.isascii() for character in token) <= 1


def test_words_without_spaces_between_them_are_not_joined_by_chance() -> None:
    """A list of two countries that training was full of would be one token, and no list else."""
    texts = ["中国和法国", "フランスまたはケニア", "1997年11月13日星期四", "France and Kenya"] * 9
    made = train(texts, 900, TEMPLATES["bayling"])
    assert made.tokenize("法国") == made.tokenize("法") + made.tokenize("国")
    assert len(made.tokenize("中国和法国")) == 5
    assert len(made.tokenize("フランスまたはケニア")) == 3
    assert len(made.tokenize("France and Kenya")) == 3


def test_a_line_break_is_a_token_of_its_own(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.tokenize(":\n\nin") == [":", "Ċ", "Ċ", "in"]


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_the_templates_control_tokens_come_first_and_are_never_split(name: str) -> None:
    template = TEMPLATES[name]
    made = train(TEXTS, SIZE, template)
    first = made.convert_ids_to_tokens(list(range(len(template.control_tokens))))
    assert set(first) == set(template.control_tokens)
    for token in template.control_tokens:
        assert made.tokenize(f"in{token}5") == ["in", token, "5"]
    assert made.eos_token == template.end_token
    assert made.bos_token == template.bos_token
    assert made.pad_token == template.end_token


def test_the_vocabulary_has_the_size_asked_for() -> None:
    assert len(train(CORPUS * 2, SIZE, TEMPLATES["bayling"])) == SIZE


def test_the_same_texts_make_the_same_tokenizer(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    again = train(iter(TEXTS), SIZE, TEMPLATES["bayling"])
    assert again.get_vocab() == tokenizer.get_vocab()
    again.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert loaded("5天后\n")["input_ids"] == tokenizer("5天后\n")["input_ids"]
