"""Beginnings of texts are found by whole blocks, and the longest unused go first."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bayling.engines.prefixes import BLOCK, PrefixCache

pytestmark = pytest.mark.unit


def states(token_ids: list[int]) -> Callable[[int], Tensor]:
    """Of a model of one layer and one head, whose keys and values are the tokens."""
    return lambda tokens: torch.tensor(token_ids[:tokens]).repeat(1, 2, 1, 1)[..., None]


def keep(prefixes: PrefixCache, *texts: list[int]) -> None:
    for text in texts:
        prefixes.keep(text, states(text))


def found(prefixes: PrefixCache, prompt: list[int]) -> int:
    """How many tokens are known of it; they are those it begins with."""
    known = prefixes.find(prompt)
    if known is None:
        return 0
    length = known.shape[3]
    assert known[0, 0, 0, :, 0].tolist() == known[0, 1, 0, :, 0].tolist() == prompt[:length]
    return length


def text(first: int, length: int) -> list[int]:
    return list(range(first, first + length))


def test_the_longest_beginning_is_found_and_one_token_is_left_to_read() -> None:
    prefixes = PrefixCache(1000)
    keep(prefixes, text(0, 40), text(0, 100))
    assert found(prefixes, text(0, 200)) == 96
    assert found(prefixes, text(0, 96)) == 80
    assert found(prefixes, [*text(0, 50), *text(500, 50)]) == 48
    assert found(prefixes, text(1, 100)) == 0
    assert prefixes.tokens == 96  # the shorter one needs no place of its own


def test_little_of_a_prompt_is_not_worth_its_while() -> None:
    prefixes = PrefixCache(1000)
    keep(prefixes, text(0, 48), text(100, 20))
    assert found(prefixes, [*text(0, 48), *text(500, 144)]) == 48
    assert found(prefixes, [*text(0, 48), *text(500, 145)]) == 0
    assert found(prefixes, [*text(0, 16), 7]) == 0
    assert found(prefixes, text(100, 20)) == 0


def test_what_was_of_no_use_for_longest_goes_first() -> None:
    prefixes = PrefixCache(3 * 32)
    keep(prefixes, text(0, 32), text(100, 32), text(200, 32))
    assert found(prefixes, text(0, 33)) == 32
    keep(prefixes, text(300, 32))
    assert [found(prefixes, text(first, 33)) for first in (0, 100, 200, 300)] == [32, 0, 32, 32]
    assert prefixes.tokens == 3 * 32


def test_a_text_outlives_a_newer_one_with_the_same_beginning() -> None:
    prefixes = PrefixCache(10 * BLOCK)
    shared = text(0, 48)
    keep(prefixes, [*shared, *text(100, 16)], [*shared, *text(200, 16)])
    assert found(prefixes, [*shared, *text(100, 17)]) == 64  # now the newer one
    keep(prefixes, text(300, 64))  # pushes the other out
    assert prefixes.tokens == 128
    assert found(prefixes, [*shared, *text(100, 17)]) == 64
    keep(prefixes, [*shared, *text(100, 40)])
    assert found(prefixes, [*shared, *text(100, 40), 1]) == 80


def test_a_text_beyond_all_room_is_not_kept() -> None:
    prefixes = PrefixCache(64)
    keep(prefixes, text(0, 32), text(100, 90))
    assert prefixes.tokens == 32
    prefixes.clear()
    assert prefixes.tokens == 0 and found(prefixes, text(0, 33)) == 0
