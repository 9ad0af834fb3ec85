"""A Dockerfile, as far as tests need to understand it."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Stage:
    """What stands below one FROM."""

    base: str
    name: str
    instructions: list[tuple[str, str]] = field(default_factory=list)
    """(instruction, its text with lines joined; of a COPY with a here-document the words only)."""

    def all(self, instruction: str) -> list[str]:
        """The texts of every such instruction, in order."""
        return [text for name, text in self.instructions if name == instruction]


def read(path: Path) -> tuple[dict[str, str], dict[str, Stage]]:
    """(arguments before the first FROM, stages by name), without comments and here-documents."""
    arguments: dict[str, str] = {}
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    for name, text in _instructions(path.read_text(encoding="utf-8").splitlines()):
        if name == "FROM":
            base, _, alias = text.split()
            stage = stages[alias] = Stage(base, alias)
        elif stage is None:
            assert name == "ARG", f"{name} before FROM"
            key, _, value = text.partition("=")
            arguments[key] = value
        else:
            stage.instructions.append((name, text))
    return arguments, stages


def _instructions(lines: list[str]) -> list[tuple[str, str]]:
    found, waiting, until = [], "", ""
    for line in lines:
        if until:
            until = "" if line == until else until
            continue
        if line.lstrip().startswith("#") or (not line.strip() and not waiting):
            continue
        if line.endswith("\\"):
            waiting += line[:-1] + " "
            continue
        name, _, text = " ".join((waiting + line).split()).partition(" ")
        waiting = ""
        if document := re.search(r"<<'?(\w+)'?", text):
            until = document[1]
        found.append((name.upper(), text))
    assert not waiting and not until, "the file ends in the middle of an instruction"
    return found


def words(text: str) -> tuple[dict[str, str], list[str]]:
    """(options, other words) of a COPY."""
    options, rest = {}, []
    for word in shlex.split(text):
        if word.startswith("--"):
            key, _, value = word[2:].partition("=")
            options[key] = value
        else:
            rest.append(word)
    return options, rest


def commands(text: str) -> list[list[str]]:
    """The programs that a RUN starts, each with its words, without mounts and environment."""
    lexer = shlex.shlex(re.sub(r"--mount=\S+", "", text), posix=True, punctuation_chars="&;|")
    lexer.whitespace_split = True
    made: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set("&;|"):
            made.append([])
        elif made[-1] or not re.match(r"\w+=", word):
            made[-1].append(word)
    return [command for command in made if command]
