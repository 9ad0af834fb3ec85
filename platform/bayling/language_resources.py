"""How much text there is of a language, and so how well models may be expected to know it.

The classes are those of Joshi et al. 2020 (*The State and Fate of Linguistic Diversity and
Inclusion in the NLP World*): 5 and 4 are called high here, 3 medium, 2 to 0 low.
"""

from __future__ import annotations

from functools import cache

HIGH, MEDIUM, LOW = "high", "medium", "low"
LEVELS = (HIGH, MEDIUM, LOW)

_LANGUAGES = {
    HIGH: "ar ca cs de en es eu fa fi fr hi hr hu it ja ko nl pl pt ru sr sv tr vi zh",
    MEDIUM: (
        "af be bg bn bs ceb da el et fil gl he id ka kk la lt lv ms ro sk sl ta th tl uk ur uz"
    ),
}


@cache
def _by_language() -> dict[str, str]:
    return {tag: level for level, tags in _LANGUAGES.items() for tag in tags.split()}


def level_of(tag: str) -> str:
    """The level of the BCP-47 tag's language: `high`, `medium`, or `low` where it is unlisted."""
    return _by_language().get(tag.split("-")[0], LOW)
