"""Answers to questions without options: which one is given, and whether it is the right one.

AGIEval's are formulas and numbers (`math`, `gaokao-mathcloze`). Two are the same where they are
after the normalisation of Hendrycks et al. (2021), which AGIEval uses, or where both are numbers of
the same value.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

_STATED = re.compile(
    r"(?:\banswer\s*(?:is|:|=)|答案(?:是|为|:)|^\s*答\s*:)\s*:?\s*(.+)",
    re.IGNORECASE | re.MULTILINE,
)
_FORMULA = re.compile(r"\$+([^$]+)\$+|\\\(([^$]+?)\\\)|\\\[([^$]+?)\\\]")
_UNIT = re.compile(r"\\(?:text|mathrm|mbox)\s*\{[^{}]*\}\s*$")
_DROPPED = re.compile(r"\\left|\\right|\\[!,;:]|\\quad|\\%|%|\^\{?\\circ\}?|\\\$|\$|\s")
_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?")


def given(text: str) -> str | None:
    """The answer that a text gives; None where it gives none.

    What is boxed, what it says that the answer is, the whole text where that is one short line, or
    the last formula of its last line.
    """
    text = unicodedata.normalize("NFKC", text.rpartition("</think>")[2]).strip()
    if re.search(r"\\f?box", text):
        return _boxed(text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if stated := _STATED.findall(text):
        return _last_formula(stated[-1]) or _bare(stated[-1]) or None
    if not lines:
        return None
    if len(lines) == 1 and " " not in _bare(text) and not re.search(r"[。一-鿿]", text):
        return _last_formula(text) or _bare(text) or None
    return _last_formula(lines[-1])


def same(one: str, other: str) -> bool:
    """Whether two answers are one, in two ways of writing it."""
    first, second = _normal(one), _normal(other)
    if first == second:
        return True
    values = [_value(first), _value(second)]
    return values[0] is not None and values[0] == values[1]


def _boxed(text: str) -> str | None:
    """What stands in the last `\\boxed{…}`; None where that is empty or has no end."""
    start = max(text.rfind("\\boxed{"), text.rfind("\\fbox{"))
    if start < 0:
        return None
    begin = text.index("{", start) + 1
    depth = 1
    for position in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if not depth:
            return _right_side(text[begin:position]) or None
    return None


def _last_formula(line: str) -> str | None:
    formulas = _FORMULA.findall(line)
    return _right_side(next(part for part in formulas[-1] if part)) if formulas else None


def _right_side(formula: str) -> str:
    """`2` of `a = 2`."""
    return formula.rpartition("=")[2].strip()


def _bare(text: str) -> str:
    return _right_side(re.sub(r"[*`\"]", "", text)).strip(" .。,;!'()")


def _normal(answer: str) -> str:
    """An answer as Hendrycks et al. compare it."""
    text = unicodedata.normalize("NFKC", answer).replace("\\\\", "\\")
    text = _DROPPED.sub("", _UNIT.sub("", re.sub(r"\\[td]frac", r"\\frac", text)))
    text = re.sub(r"^[a-zA-Z]{1,2}=", "", text.rstrip(".。"))
    text = re.sub(r"\\sqrt(\w)", r"\\sqrt{\1}", text)
    text = re.sub(r"\\frac(\d)(\d)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\frac(\d)\{", r"\\frac{\1}{", text)
    text = re.sub(r"^(-?)(\d+)/(\d+)$", r"\1\\frac{\2}{\3}", text)
    return re.sub(r"(^|[^\d.])\.(\d)", r"\g<1>0.\2", text)


def _value(text: str) -> Fraction | None:
    """What a normal form is worth, where it is a number."""
    if match := re.fullmatch(r"([-+]?)\\frac\{(-?\d+)\}\{(-?\d+)\}", text):
        sign, above, below = match.groups()
        if not int(below):
            return None
        return Fraction(int(above), int(below)) * (-1 if sign == "-" else 1)
    if _NUMBER.fullmatch(text) and re.fullmatch(
        r"[-+]?\d+|[-+]?\d{1,3}(,\d{3})+", text.split(".")[0]
    ):
        return Fraction(text.replace(",", ""))
    return None
