"""Conversations that others collected: which of them are fit to be trained on.

The models that answered in them say who they are, in words that would become BayLing's own. A
conversation in which that is asked or said is left out as a whole.
"""

from __future__ import annotations

import re

from bayling import detection
from bayling.data.cleaning.text import normalise
from bayling.templates import Message

# Names that mean nothing else, and, after "I am", those that do (a bard, a llama, Claude Monet).
_MODELS = (
    r"Chat ?GPT|GPT-?[345]\w*|Open ?AI|Anthropic|Vicuna|LMSYS|Chat ?GLM|ERNIE Bot"
    r"|文心一言|通义千问|讯飞星火"
)
_NAMED = r"Claude|Alpaca|Bard|Gemini|LLaMA|Mistral|Qwen|BELLE|Baichuan|Assistant|Open Assistant"
_A_MODEL = r"(?:AI|artificial intelligence|(?:large )?language model)"
_IN_CHINESE = r"(?:AI|人工智能|(?:大型?)?语言模型|聊天机器人)"
_SAID = re.compile(
    rf"(?<!\w)(?:{_MODELS})(?!\w)"
    rf"|(?:I am|I'm|my name is) (?:{_NAMED})(?!\w)|(?:我是|我叫)(?:{_NAMED})"
    rf"|(?:as|I am|I'm)(?: just)? an? {_A_MODEL}|my knowledge cut-?off|my training data"
    rf"|(?:作为|我是|我只是)一?[个名款种]?{_IN_CHINESE}",
    re.IGNORECASE,
)
_ASKED = re.compile(
    r"who (?:are you|(?:made|created|trained|developed) you)|what(?:'s| is) your name"
    r"|你是谁|你叫什么|谁(?:创造|训练|开发)了?你",
    re.IGNORECASE,
)

_SURE = 0.9


def clean(
    messages: tuple[Message, ...], language: str | None, languages: list[str], most: int
) -> tuple[tuple[Message, ...], str] | tuple[str, str]:
    """A conversation as it is kept, and its language; or the step that drops it, and why.

    Args:
        language: as the data says it; None has it detected among `languages`.
        most: characters that one turn may have.
    """
    kept = tuple(Message(one.role, _lines(one.content)) for one in messages)
    for number, message in enumerate(kept, 1):
        if not message.content:
            return "empty", f"turn {number} is empty"
        if len(message.content) > most:
            return "length", f"turn {number} has {len(message.content):,} characters, over {most:,}"
        tells = _ASKED if message.role == "user" else _SAID
        if found := tells.search(message.content):
            verb = "asks" if message.role == "user" else "says"
            return "identity", f"turn {number} {verb} who the model is: {found[0]}"
    if language is None:
        seen = detection.detect("\n".join(one.content for one in kept), languages)
        if seen is None:
            return "language", "it is in none of data.languages"
        if seen.confidence < _SURE:
            return "language", f"it may be {seen.language} ({seen.confidence:.0%}): say so if it is"
        language = seen.language
    if language not in languages:
        return "language", f"{language} is not among data.languages"
    return kept, language


def _lines(text: str) -> str:
    """Line by line: answers have paragraphs, lists and code, whose indentation stays."""
    lines = []
    for line in text.replace("\r\n", "\n").split("\n"):
        indent = re.match(r"[ \t]*", line)
        lines.append(((indent[0] if indent else "") + normalise(line)).rstrip())
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
