from __future__ import annotations

import random

import numpy as np
import pytest

from bayling.data.cleaning import words as module
from bayling.data.cleaning.words import Hashed, words

pytestmark = pytest.mark.unit

_PIECES = [
    *"abAB01 .,_\n\t\0",
    "ä",
    "ß",
    "İ",
    "ﬁ",
    "½",
    "e\u0301",
    "我",
    "住",
    "の",
    "ア",
    "ก",
    "क",
    "ि",
]
_PIECES += ["\ud800", "𠀀", "가", "  "]


def texts(number: int, seed: int = 1) -> list[str]:
    rng = random.Random(seed)
    return ["".join(rng.choices(_PIECES, k=rng.randint(0, 20))) for _ in range(number)]


def test_words_have_neither_case_nor_punctuation() -> None:
    assert words("Das Haus, 3 km") == ["das", "haus", "3", "km"]
    assert words("ﬁnd STRASSE_straße") == ["find", "strasse", "strasse"]


def test_a_character_of_a_script_without_spaces_is_a_word_also_beside_digits_and_letters() -> None:
    assert words("我住在 Berlin。") == ["我", "住", "在", "berlin"]
    assert words("于3月5日在Berlin开会") == [*"于3月5日在", "berlin", "开", "会"]


@pytest.mark.parametrize("at_once", [1, 50, 1 << 18])
def test_equal_words_have_equal_hashes_and_different_ones_do_not(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AT_ONCE", at_once)
    made = texts(3000)
    hashed = Hashed.of(made)
    apart = [words(text) for text in made]
    assert hashed.counts.tolist() == list(map(len, apart))
    _one_to_one([word for found in apart for word in found], hashed.words)
    _one_to_one([tuple(found) for found in apart], hashed.whole())
    for number in (1, 3, 8):
        hashes, owner = hashed.rows(number)
        rows = [
            (text, tuple(found[first : first + number]))
            for text, found in enumerate(apart)
            for first in range(len(found) - number + 1)
        ]
        assert owner.tolist() == [text for text, _ in rows]
        _one_to_one([row for _, row in rows], hashes)


def _one_to_one(names: list[object], hashes: np.ndarray) -> None:
    pairs = set(zip(names, hashes.tolist(), strict=True))
    assert len(pairs) == len(set(names)) == len(np.unique(hashes))


def test_a_hash_does_not_depend_on_the_texts_beside_it() -> None:
    made = texts(200)
    together = Hashed.of(made).whole().tolist()
    assert together == [Hashed.of([text]).whole()[0] for text in made]


def test_nothing_and_texts_without_words_have_no_words() -> None:
    for made in ([], ["", "…", "\n"]):
        hashed = Hashed.of(made)
        assert hashed.words.size == 0
        assert hashed.counts.tolist() == [0] * len(made)
        assert hashed.rows(3)[0].size == 0
        assert len(set(hashed.whole().tolist())) == bool(made)
