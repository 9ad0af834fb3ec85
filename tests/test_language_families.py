from __future__ import annotations

from collections import Counter

import pytest

from bayling.config import compose, options
from bayling.language_families import _FAMILIES, OTHER, family_of
from bayling.languages import parse

pytestmark = pytest.mark.unit

TAGS = [tag for tags in _FAMILIES.values() for tag in tags.split()]


@pytest.mark.parametrize("tag", TAGS)
def test_every_tag_is_one_that_the_platform_uses(tag: str) -> None:
    assert parse(tag) == tag


def test_no_language_is_in_two_families() -> None:
    assert [tag for tag, times in Counter(TAGS).items() if times > 1] == []


@pytest.mark.parametrize("recipe", options("recipe"))
def test_every_language_of_a_recipe_has_a_family(recipe: str) -> None:
    unlisted = [
        tag for tag in compose([f"recipe={recipe}"]).data.languages if family_of(tag) == OTHER
    ]
    assert unlisted == []


@pytest.mark.parametrize("group", options("data"))
def test_every_language_of_a_corpus_has_a_family(group: str) -> None:
    languages = compose([f"data={group}"]).data.languages
    assert [tag for tag in languages if family_of(tag) == OTHER] == []


@pytest.mark.parametrize(
    ("tag", "family"),
    [("de", "germanic"), ("zh-Hant-TW", "sinitic"), ("pt-BR", "romance"), ("sw", "niger-congo")],
)
def test_script_and_region_do_not_matter(tag: str, family: str) -> None:
    assert family_of(tag) == family


def test_a_language_that_is_not_listed_is_told_apart_from_all_others() -> None:
    assert family_of("yav") == OTHER
    assert OTHER not in _FAMILIES
