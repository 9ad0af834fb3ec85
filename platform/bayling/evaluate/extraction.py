"""Which options an answer in words chooses, in English and in Chinese.

An answer counts where it says what it chooses: in the form that was asked for, in another that
states an answer, as a letter on its own, or as the text of an option. A letter that merely occurs
("vitamin C", "A man who …", 选项A错误) is none, and neither is one of several that are named.
AGIEval's own zero-shot scoring takes the first capital letter, which makes "Answer" an A.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_BRACKETS = str.maketrans({"【": "(", "】": ")", "[": "(", "]": ")", "〔": "(", "〕": ")"})
_QUOTED = re.compile(r"[\"'“”‘’「『<]\s*([A-Z]{1,8})\s*[\"'“”‘’」』>]")
_MARKUP = re.compile(r"\\(?:text|textbf|mathbf|mathrm|mathsf|boldsymbol|bf)\s*\{([^{}]*)\}")

_FILLING = (
    r"(?:(?:therefore|thus|clearly|likely|most|probably|definitely|the|correct|choices?|options?|"
    r"letters?|answer|is|选项|选择|选|应该|应|是|为|第|\(\s*\)|:|\")\s*)*"
)
"""What may stand between the words that state an answer and the answer."""
_STATED = re.compile(
    r"(?:"
    r"\banswers?\s*(?:choices?\s*)?(?:is|are|would\s+be|should\s+be|must\s+be|will\s+be|:|=)"
    r"|\banswer\s+choice(?=\s*\()"
    r"|\b(?:correct|right|best|final|appropriate|accurate)\s+"
    r"(?:choice|option|answer|statement|response|one|letter)s?\b[^.;:\n()]{0,60}?"
    r"(?:\bis|\bare|\bwould\s+be|\bshould\s+be|:)"
    r"|\b(?:I|we|you)\s+(?:would\s+|should\s+|will\s+|must\s+|can\s+)?(?:choose|select|pick)\b"
    r"|\\boxed\s*\{"
    r"|答案(?:应该|应当|应|就|可能|则)?(?:是|为|选|:|=)"
    r"|(?:正确的?(?:答案|选择|说法)?|选项|一[项组])(?:应该|应当|应|就)?(?:是|为|:)"
    r"|(?:是|为)选项|^\s*答\s*:"
    r"|(?<![不别未多单])(?:我?们?应该?|故|因此|所以|本题|综上)?选(?!项|手|举|用|取|修|自|出)择?"
    r")\s*" + _FILLING,
    re.IGNORECASE | re.MULTILINE,
)
_DENIED = re.compile(
    r"\s*(?:选项|项)?\s*(?:\?|(?:is|are|was)\s+(?:not|wrong|in\w+|false)\b|isn't|不|错|有误|并非)",
    re.IGNORECASE,
)
"""Behind a statement: it is none."""
_DOUBTED = re.compile(
    r"\b(?:if|whether|unless|suppose|assuming|not|never|cannot|doubt)\b|n't\b"
    r"|如果|若|假如|假定|假设\s*$|是否|并非|不是|不认为|不能|不",
    re.IGNORECASE,
)
"""Before a statement in its clause: it is none."""
_CONCLUDES = re.compile(
    r"\b(?:so|therefore|thus|hence|finally|final|actually|conclusion|overall|consequently)\b"
    r"|因此|所以|综上|最终|最后|故|由此",
    re.IGNORECASE,
)
_PRAISED = re.compile(
    r"(?:选项)?\s*(?:is|are|是|为)\s*(?:the\s+|one\s+)?(?:most\s+)?(?:correct|right|best|正确|最佳)的?"
    r"\s*(?P<noun>answers?|choices?|options?|答案|选项|选择)?|(?:选项|项)?正确(?!性)",
    re.IGNORECASE,
)
_AFTER_LETTER = re.compile(r"\s*(?:选项|项|是|为|因|正确|和|与|或|及|的)")
_AFTER_ARTICLE = re.compile(
    r"\s+(?:because|since|as|and|or|which|with|is|for|based|due|according|in|on|if)\b"
)
"""What may follow a bare "A" or "I" that is no word of the language."""
_JOINED = re.compile(r"[ \t]*(?:[,、/&和与及]|,?\s*\band\b|以及)?[ \t]*")
_SUBJECT = re.compile(r"\s*(?:(?:is|are|was)\b|isn't|选项|项|不|错|正确)")
"""Behind a letter that begins another sentence."""
_ALTERNATIVE = re.compile(r"\s*(?:[,、/]?\s*(?:\bor\b|或者?))\s*")
_PREFIX = re.compile(r"\s*(?:(?:option|choice|answer|选项|选择|选)\s*:?\s*)?", re.IGNORECASE)
_CLAUSE = re.compile(r"[.!?;:,\n。!?;,、]")
_LINE_LENGTH = 400
"""Characters of a line that can be an option's text."""


@dataclass(frozen=True)
class _Choice:
    """Letters that are named together, and where that ends."""

    letters: frozenset[str]
    end: int
    alternatives: bool = False
    """They are joined by "or": nothing was chosen."""
    told: bool = False
    """The text of the last one's option stands behind it."""


def chosen(text: str, options: Sequence[str], *, several: bool = False) -> frozenset[str] | None:
    """The letters that an answer chooses; None where it does not say.

    Args:
        options: their texts, without letters: the first one is A.
        several: whether more than one can be chosen. Where not, an answer that names several has
            not chosen.
    """
    return _Reader(text, options).chosen(several)


class _Reader:
    """One answer, read with the options that there were."""

    def __init__(self, text: str, options: Sequence[str]) -> None:
        self._letters = string.ascii_uppercase[: len(options)]
        self._options = [_folded(_plain(option)) for option in options]
        self._text = _plain(text.rpartition("</think>")[2]).strip()
        span = f"[{self._letters}]"
        some = rf"{span}(?:\s*[,、/&和与]?\s*{span})*"
        self._marked = re.compile(rf"\(\s*({some})\s*\)")
        self._bare = re.compile(
            rf"({span}{{1,{len(options)}}})(?![A-Za-z0-9'’])(?!-[A-Za-z]|\.[A-Z]\.)\)?"
        )
        self._small = re.compile(rf"\(\s*([{self._letters.lower()}])\s*\)")

    def chosen(self, several: bool) -> frozenset[str] | None:
        whole = self._alone(self._text)
        if whole is not None:
            return _single(whole, several)
        stated = list(self._statements())
        if stated:
            return self._agreed(stated, several)
        ways = (self._begun, self._with_its_text, self._praised, self._only, self._verbatim)
        return next((found for way in ways if (found := way(several)) is not None), None)

    def _agreed(self, stated: list[tuple[int, _Choice]], several: bool) -> frozenset[str] | None:
        """What all statements say; where they differ the last one, if it says that it concludes."""
        start, last = stated[-1]
        if len({choice.letters for _, choice in stated}) > 1:
            clause = self._text[self._clause_start(start) : last.end]
            if not _CONCLUDES.search(clause):
                return None
        return _single(last, several)

    def _statements(self) -> Iterator[tuple[int, _Choice]]:
        for match in _STATED.finditer(self._text):
            if self._doubted(match.start()):
                continue
            choice = self._choice_at(match.end(), stated=True) or self._option_at(match.end())
            if choice is not None and not _DENIED.match(self._text, choice.end):
                yield match.start(), choice

    def _doubted(self, position: int) -> bool:
        return bool(_DOUBTED.search(self._text, self._clause_start(position), position))

    def _clause_start(self, position: int) -> int:
        start = 0
        for match in _CLAUSE.finditer(self._text, 0, position):
            start = match.end()
        return start

    def _alone(self, text: str) -> _Choice | None:
        """A text that is letters and nothing else: `C`, `(C)`, `Option C.`, `A, C`, `选项A`."""
        choice = self._choice_at(_prefixed(text), text=text)
        if choice is None or re.search(r"[^\W_]", text[choice.end :]):
            return None
        return choice

    def _praised(self, several: bool) -> frozenset[str] | None:
        """`(B) is the best answer`, `B选项正确`. Without a noun only where no other is named."""
        found = []
        for mark in self._mentions():
            match = _PRAISED.match(self._text, mark.end)
            if match and not self._doubted(mark.end):
                found.append((bool(match["noun"]), mark))
        named = {mark.letters for mark in self._mentions()}
        strong = {mark.letters for noun, mark in found if noun}
        if len(strong) == 1:
            return _single(next(mark for noun, mark in found if noun), several)
        if found and not strong and len(named) == 1:
            return _single(found[0][1], several)
        return None

    def _begun(self, several: bool) -> frozenset[str] | None:
        """Letters that begin the answer and end there, or go on with their option's text.

        A list of the options begins like that, too, and then the next one begins a line.
        """
        choice = self._choice_at(_prefixed(self._text))
        listed = self._listed()
        if choice is None or (len(listed) > 1 and ord(listed[1]) == ord(listed[0]) + 1):
            return None
        rest = self._text[choice.end :]
        closed = self._text[choice.end - 1] == ")"
        ends = r"\s*(?:[.。,;:]|\n|$)" if closed else r"[.。]?\s*(?:\n|$)"
        return _single(choice, several) if choice.told or re.match(ends, rest) else None

    def _with_its_text(self, several: bool) -> frozenset[str] | None:
        """The one letter that the text of its option follows: "is to (A) describe a culture"."""
        found = {
            letter
            for mark in self._mentions()
            for letter in mark.letters
            if self._past_option(mark) > mark.end and not self._doubted(mark.end)
        }
        return frozenset(found) if len(found) == 1 else None

    def _only(self, several: bool) -> frozenset[str] | None:
        """The letter in brackets that begins the answer, or is alone on its last line, where no
        other one is named."""
        named = {mark.letters for mark in self._mentions()}
        last = self._alone(self._text.rpartition("\n")[2])
        if last is not None and named <= {last.letters} and set(self._listed()) <= last.letters:
            return _single(last, several)
        first = re.compile(rf"\(?([{self._letters}])\)").match(self._text)
        if first and named <= {frozenset(first[1])} and set(self._listed()) <= set(first[1]):
            return frozenset(first[1])
        return None

    def _listed(self) -> list[str]:
        """The letters that begin lines."""
        return re.findall(r"^\W*([A-Z])(?:[).:、]|\s*$)", self._text, re.MULTILINE)

    def _verbatim(self, several: bool) -> frozenset[str] | None:
        """The option that is the whole text, or one of its lines."""
        lines = [_folded(line) for line in (self._text, *self._text.splitlines())]
        found = {
            letter
            for letter, option in zip(self._letters, self._options, strict=True)
            if option and option in lines
        }
        return frozenset(found) if len(found) == 1 else None

    def _mentions(self) -> Iterator[_Choice]:
        """Letters in brackets, or after the word option, or before 选项."""
        pattern = re.compile(
            rf"\(\s*([{self._letters}])\s*\)|(?<![\w(])([{self._letters}])\)"
            rf"|(?:\b(?:option|choice|answer)\s+|选项\s*)([{self._letters}])(?![A-Za-z0-9'’])"
            rf"|(?<![A-Za-z])([{self._letters}])(?=\s*(?:选项|项|(?:is|are)\s+the\b|正确|错误))",
            re.IGNORECASE,
        )
        for match in pattern.finditer(self._text):
            letter = next(group for group in match.groups() if group)
            if letter.isupper():
                yield _Choice(frozenset(letter), match.end())

    def _choice_at(
        self, position: int, *, stated: bool = False, text: str | None = None
    ) -> _Choice | None:
        """The letters named from here on, with what may stand between them."""
        text = self._text if text is None else text
        letters: set[str] = set()
        alternatives = told = False
        end = position
        while (here := self._one_at(text, position, stated)) is not None:
            if letters and _SUBJECT.match(text, here.end):
                break
            letters |= here.letters
            end = self._past_option(here, text)
            told = end > here.end
            if either := _ALTERNATIVE.match(text, end):
                position = either.end()
                alternatives |= self._one_at(text, position, stated) is not None
            else:
                joined = _JOINED.match(text, end)
                position = joined.end() if joined else end
        return _Choice(frozenset(letters), end, alternatives, told) if letters else None

    def _one_at(self, text: str, position: int, stated: bool) -> _Choice | None:
        if match := self._marked.match(text, position):
            return _Choice(frozenset(self._among(match[1])), match.end())
        if stated and (match := self._small.match(text, position)):
            return _Choice(frozenset(match[1].upper()), match.end())
        match = self._bare.match(text, position)
        if match is None or list(match[1]) != sorted(set(match[1])):
            return None  # a word in capitals, such as BAD
        letters, rest = match[1], text[match.end() :]
        if text[match.end() - 1] == ")":
            return _Choice(frozenset(letters), match.end())
        if len(letters) == 1 and self._says(
            rest.lstrip(" .):、"), self._options[ord(letters) - 65], prefix=True
        ):
            return _Choice(frozenset(letters), match.end())
        if letters in ("A", "I") and re.match(r"[ \t]+[a-z]", rest):
            if not _AFTER_ARTICLE.match(rest):
                return None
        elif re.match(r"[ \t]*[^\W\d_a-zA-Z]", rest) and not _AFTER_LETTER.match(rest):
            return None  # 答案是A型血
        elif letters not in ("A", "I") and re.match(r"[ \t]+[A-Z][a-z]", rest):
            return None  # "The answer is B Corporation"
        return _Choice(frozenset(letters), match.end())

    def _option_at(self, position: int) -> _Choice | None:
        """The option whose text stands here, up to the end of a sentence."""
        rest = self._text[position:].lstrip("(\"'“‘ ")
        found = [
            (len(option), letter)
            for letter, option in zip(self._letters, self._options, strict=True)
            if option and self._says(rest, option)
        ]
        longest = [letter for length, letter in found if length == max(found)[0]]
        return _Choice(frozenset(longest), position) if len(longest) == 1 else None

    def _past_option(self, choice: _Choice, text: str | None = None) -> int:
        """Behind the option's text, where that stands behind its letter; else behind the letter."""
        text = self._text if text is None else text
        if len(choice.letters) != 1:
            return choice.end
        (letter,) = choice.letters
        option = self._options[ord(letter) - 65]
        if not option:
            return choice.end
        taken = 0
        for offset, character in enumerate(text[choice.end :]):
            if taken == len(option):
                cut = character.isalnum() and character.isascii() and option[-1].isascii()
                return choice.end + (0 if cut else offset)
            if character.isspace() or (not taken and character in ".):、"):
                continue
            if not option.startswith(character.casefold(), taken):
                return choice.end
            taken += 1
        return len(text) if taken == len(option) else choice.end

    def _says(self, rest: str, option: str, *, prefix: bool = False) -> bool:
        """Whether a text is an option's, up to the end of a sentence."""
        if not option:
            return False
        line = rest.partition("\n")[0][:_LINE_LENGTH]
        if _folded(line).rstrip(")\"'”’") == option:
            return True
        for match in re.finditer(r"[.,;!?)\"。,;!?、”’](?!\w)", line):
            if _folded(line[: match.start()]) == option:
                return True
        return prefix and len(option) > 1 and _folded(line).startswith(option)

    def _among(self, letters: str) -> Iterator[str]:
        return (letter for letter in letters if letter in self._letters)


def _single(choice: _Choice, several: bool) -> frozenset[str] | None:
    if choice.alternatives or (len(choice.letters) > 1 and not several):
        return None
    return choice.letters


def _prefixed(text: str) -> int:
    match = _PREFIX.match(text)
    return match.end() if match else 0


def _plain(text: str) -> str:
    """Full-width forms as half-width ones, brackets of one kind, no markup."""
    text = unicodedata.normalize("NFKC", text).translate(_BRACKETS)
    text = _MARKUP.sub(r"\1", text).replace("\\(", "").replace("\\)", "")
    text = re.sub(r"\$|</?[a-z]+\d?>", " ", re.sub(r"[*`]", "", text))
    return _QUOTED.sub(r"(\1)", text)


def _folded(text: str) -> str:
    """A text without what its writing varies in: case, blanks, punctuation at its ends."""
    return re.sub(r"\s+", "", text).strip(".,;:!?。、\"'“”‘’").casefold()
