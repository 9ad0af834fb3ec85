"""`bayling translate`: ask the served model."""

from __future__ import annotations

import argparse
import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayling.errors import UserError

if TYPE_CHECKING:
    from bayling.serve.client import Translated

_HELP = "ask the served model for translations"
_EPILOG = """examples:
  bayling translate "in 5 days" --to sw
  bayling translate "in 5 days" --to de --to zh         a line for each language
  bayling translate - --to de < sentences.txt           line by line
  bayling translate "Her heart is fine." --to de --glossary terms.tsv

A glossary has a term and its translation in each line, with a tab between them. For several
languages its first line names them: term, tab, de, tab, zh.
"""
_AT_A_TIME = 64
"""Translations of one request: few enough for the first to be seen soon."""


def register(commands: Any) -> None:
    """Add the command to the parsers of `bayling`."""
    added = commands.add_parser(
        "translate",
        help=_HELP,
        description=_HELP[0].upper() + _HELP[1:] + ".",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    added.set_defaults(work=_translate)
    added.add_argument("text", metavar="TEXT", help="- reads lines from standard input")
    added.add_argument(
        "--to",
        required=True,
        action="append",
        dest="targets",
        metavar="LANG",
        help="BCP-47 tag: de, zh, sw; may be given several times",
    )
    added.add_argument("--from", dest="source", metavar="LANG", help="default: detected")
    added.add_argument(
        "--glossary", type=Path, metavar="FILE", help="tab-separated terms and their translations"
    )
    added.add_argument("--instructions", metavar="TEXT", help="what else is asked for")
    added.add_argument("--url", default="http://127.0.0.1:8000", help="default: %(default)s")


def _translate(arguments: argparse.Namespace) -> None:
    from bayling.languages import name_of
    from bayling.serve.client import translate_all

    glossary = None if arguments.glossary is None else read_glossary(arguments.glossary)
    targets = arguments.targets
    lines = arguments.text == "-"
    texts = (line.rstrip("\r\n") for line in sys.stdin) if lines else iter([arguments.text])
    while batch := list(islice(texts, max(1, _AT_A_TIME // len(targets)))):
        # An empty line stays one, so that the output has the lines of the input.
        asked = [text for text in batch if text.strip() or not lines]
        made = iter(
            translate_all(
                arguments.url, asked, targets, arguments.source, arguments.instructions, glossary
            )
            if asked
            else []
        )
        for text in batch:
            answers = list(islice(made, len(targets))) if text.strip() else []
            if not answers:
                print()
            elif answers[0].source_detected and not lines:
                language = name_of(str(answers[0].source))
                print(f"from {language} (detected)", file=sys.stderr)
            for answer in answers:
                _print(answer, several=len(targets) > 1, one_line=lines)


def _print(answer: Translated, *, several: bool, one_line: bool) -> None:
    text = " ".join(answer.text.splitlines()) if one_line else answer.text
    print(f"{answer.target}\t{text}" if several else text, flush=True)
    for use in answer.glossary:
        if use.applicable and not use.used:
            print(
                f"bayling: {use.term!r} did not become {use.translation!r} in {answer.target}",
                file=sys.stderr,
            )


def read_glossary(path: Path) -> dict[str, str | dict[str, str]]:
    """Term → translation, or term → language → translation where a first line names languages.

    Raises:
        UserError: the file cannot be read, or a line is not as it should be.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UserError(f"cannot read the glossary {path}: {reason}") from None
    rows = [
        (number, [cell.strip() for cell in line.split("\t")])
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    languages: list[str] = []
    if rows and rows[0][1][0].casefold() == "term" and len(rows[0][1]) > 1:
        languages = rows.pop(0)[1][1:]
    glossary: dict[str, str | dict[str, str]] = {}
    for number, [term, *translations] in rows:
        if not term or not any(translations) or len(translations) > max(len(languages), 1):
            columns = " and ".join(["a term", *(languages or ["its translation"])])
            raise UserError(f"{path}, line {number}: expected {columns}, with a tab in between")
        if term in glossary:
            raise UserError(f"{path}, line {number}: {term!r} is in the glossary already")
        if languages:
            pairs = zip(languages, translations, strict=False)
            glossary[term] = {language: words for language, words in pairs if words}
        else:
            glossary[term] = translations[0]
    return glossary
