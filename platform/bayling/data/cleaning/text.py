"""Text as it is kept: one spelling of each character, none that cannot be seen."""

from __future__ import annotations

import re
import unicodedata

# Control characters (line breaks among them: a sentence has none), and marks without a width that
# mean nothing for the text: a byte order mark, zero-width space, soft hyphen, word joiner, the
# interlinear ones, bidirectional controls, and halves of
# surrogate pairs, which JSON may hold. Joiners (U+200C, U+200D) stay: Persian, Hindi and
# emoji are written with them.
_CONTROL = r"\x00-\x1f\x7f-\x9f\u2028\u2029"
_UNSEEN = (
    r"\u00ad\u200b\u200e\u200f\u2060\u202a-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff"
)
_WIDE = r"\u00a0\u1680\u2000-\u200a\u202f\u205f"
_CONTROLS = re.compile(f"[{_CONTROL}]+")
_INVISIBLE = re.compile(f"[{_UNSEEN}]")
_SPACES = re.compile(f"[ {_WIDE}]+")
_ODD = re.compile(rf"[{_CONTROL}{_UNSEEN}{_WIDE}]|  |\A | \Z")


def normalise(text: str) -> str:
    """The text in Unicode's form NFC, on one line, with single spaces and nothing invisible.

    Full-width punctuation stays, as it would not in form NFKC: Chinese and Japanese are written
    with it.
    """
    # Most texts are as they should be, and that is soon seen.
    if not _ODD.search(text) and unicodedata.is_normalized("NFC", text):
        return text
    if not text.isascii():
        text = _INVISIBLE.sub("", unicodedata.normalize("NFC", text))
    return _SPACES.sub(" ", _CONTROLS.sub(" ", text)).strip(" ")
