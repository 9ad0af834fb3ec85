"""The suites. A new one is a module with a function `suite`, and a line in `SUITES`."""

from __future__ import annotations

from collections.abc import Callable

from bayling.evaluate.config import EvaluateConfig
from bayling.evaluate.suite import Suite
from bayling.evaluate.suites import (
    chat,
    constrained,
    heldout,
    interactive,
    knowledge,
    safety,
    translation,
)
from bayling.stage import Context

SUITES: dict[str, Callable[[EvaluateConfig, Context], Suite]] = {
    "heldout": heldout.suite,  # translations of the data stage's held-out part
    "interactive": interactive.suite,  # conversations, of the data stage or from files
    "translation": translation.suite,  # line-aligned files of any languages
    "constrained": constrained.suite,  # words that have to be in the translation
    "knowledge": knowledge.suite,  # exams in AGIEval's format
    "chat": chat.suite,  # open questions, compared by a judge
    "safety": safety.suite,  # what is refused, and what is not
}
OF_DATA = ("heldout", "interactive")
"""Suites that ask what the data stage kept back."""
HARNESS = "harness"
"""lm-evaluation-harness's tasks, which ask by themselves: `evaluate.tasks`."""
