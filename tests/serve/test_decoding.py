from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from bayling.model_folder import load_tokenizer
from bayling.serve.decoding import Placeholders, StopStrings, TextDecoder

TEXTS = (
    "Grüße, 你好世界! नमस्ते दुनिया — مرحبا 👩‍👩‍👧 done",
    "plain words",
    "寿司🍣",
    "",
)


@pytest.fixture(scope="module")
def tokenizer(model_folder: Path) -> PreTrainedTokenizerFast:
    return load_tokenizer(model_folder)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("together", [1, 2, 5])
def test_pieces_are_whole_characters_and_add_up_to_the_text(
    tokenizer: PreTrainedTokenizerFast, text: str, together: int
) -> None:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    decoder = TextDecoder(tokenizer)
    pieces = [decoder.push(ids[at : at + together]) for at in range(0, len(ids), together)]
    assert all("\ufffd" not in piece for piece in pieces)
    assert "".join(pieces) + decoder.flush() == text


def test_bytes_that_are_no_character_still_add_up(tokenizer: PreTrainedTokenizerFast) -> None:
    good = tokenizer("世界", add_special_tokens=False)["input_ids"]
    ids = [
        *good[:1],
        *good[1:2],
        *tokenizer(" ab", add_special_tokens=False)["input_ids"],
        *good[:1],
    ]
    decoder = TextDecoder(tokenizer)
    streamed = "".join(decoder.push([token]) for token in ids) + decoder.flush()
    assert streamed == tokenizer.decode(ids)


@pytest.mark.parametrize(
    ("pieces", "stops", "wanted", "stopped"),
    [
        (["one ", "EN", "D two"], ["END"], "one ", True),
        (["one ", "EN", "ough"], ["END"], "one ENough", False),
        (["a\n", "\nb"], ["\n\n"], "a", True),
        (["aab", "aabaac"], ["aabaac"], "aab", True),
        (["first second"], ["second", "first"], "", True),
        (["xST", "O", "P"], ["STOP", "TO"], "xS", True),
        (["ends with EN"], ["END"], "ends with EN", False),
    ],
)
def test_a_stop_string_cuts_wherever_the_pieces_break(
    pieces: list[str], stops: list[str], wanted: str, stopped: bool
) -> None:
    matcher = StopStrings(stops)
    text = ""
    for piece in pieces:
        certain, found = matcher.push(piece)
        text += certain
        if found:
            break
    else:
        found = False
        text += matcher.flush()
    assert (text, found) == (wanted, stopped)


NAMES = {"[NAME]": "BayLing", "[名字]": "百聆", "[NAMES]": "many"}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_a_placeholder_is_replaced_wherever_its_pieces_break(size: int) -> None:
    text = "I am [NAME], 我是[名字]。[NAME][NAME] but [NAM and [NAME are not; [NAMES] is ["
    placeholders = Placeholders(NAMES)
    pieces = [placeholders.push(text[place : place + size]) for place in range(0, len(text), size)]
    assert "".join(pieces) + placeholders.flush() == (
        "I am BayLing, 我是百聆。BayLingBayLing but [NAM and [NAME are not; many is ["
    )


def test_without_placeholders_nothing_is_held_back() -> None:
    assert Placeholders({}).push("a [NAME") == "a [NAME"
