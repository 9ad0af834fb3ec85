"""Every command that the documentation shows is one that there is, with keys that there are."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from bayling import cli
from bayling.commands import data, rate
from bayling.config import combinations, compose

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *ROOT.glob("charts/*/README.md"),
]


def commands(text: str) -> Iterator[str]:
    """The lines of a page's code that begin with `bayling`, those that go on put together."""
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in re.sub(r" *\\\n *", " ", block).splitlines():
            if found := re.match(r"(?:\$ )?(bayling .*)", line):
                yield found[1]


def shown() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for command in commands(page.read_text("utf-8")):
            yield page.name, command
    examples = cli._EPILOG.split("examples:")[1].split("exit codes")[0]
    for line in examples.splitlines():
        if line.strip():
            # What is said of a command stands behind it.
            yield "--help", line.strip().split("   ")[0]


SHOWN = list(shown())


def test_there_are_some_on_most_pages() -> None:
    assert len(SHOWN) > 80
    assert len({page for page, _ in SHOWN}) > 10


@pytest.mark.parametrize(("page", "command"), SHOWN, ids=[command for _, command in SHOWN])
def test_a_documented_command_is_understood(page: str, command: str) -> None:
    without_files = re.sub(r" [<>] \S+", "", command)
    words = [word for word in shlex.split(without_files, comments=True)[1:] if word != "…"]
    arguments = cli._parsed(rate.one_word(data.one_word(words)))
    # `rate` takes NAME=FILE beside them.
    overrides = [
        word
        for word in getattr(arguments, "overrides", [])
        if "=" in word and not (arguments.command == "rate" and word.endswith(".jsonl"))
    ]
    for one in combinations(overrides) if getattr(arguments, "multirun", False) else [overrides]:
        compose(one)
