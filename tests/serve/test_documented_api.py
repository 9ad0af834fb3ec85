"""What `docs/api.md` says of the API is so: its fields, its codes, its examples as they stand."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from bayling.serve.completion_schema import CompletionRequest
from bayling.serve.schema import ChatRequest
from bayling.serve.translation_schema import Translation, TranslationRequest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "api.md").read_text("utf-8")
EXAMPLES = PAGE + (ROOT / "README.md").read_text("utf-8")
LOCAL = "http://127.0.0.1:8000"


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def named(text: str) -> set[str]:
    """What stands in the first cells of a section's tables."""
    cells = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


@pytest.mark.unit
@pytest.mark.parametrize(
    ("model", "where"),
    [
        (ChatRequest, ["Conversations"]),
        (CompletionRequest, ["Conversations", "Plain text"]),
        (TranslationRequest, ["Conversations", "Translations"]),
        (Translation, ["Translations"]),
    ],
)
def test_every_field_is_told_of(model: type[BaseModel], where: list[str]) -> None:
    told = "".join(section(title) for title in where)
    assert set(model.model_fields) <= set(re.findall(r"`(\w+)[`:]", told))


@pytest.mark.unit
def test_no_other_field_is_told_of() -> None:
    fields = ChatRequest.model_fields.keys() | TranslationRequest.model_fields.keys()
    assert named(section("Conversations")) | named(section("Translations")) == (
        fields | Translation.model_fields.keys()
    )


def codes() -> Iterator[str]:
    """Every code that the server gives an error."""
    for file in (ROOT / "platform" / "bayling" / "serve").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "code":
                if isinstance(node.value, ast.Constant):
                    yield str(node.value.value)
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "codes":
                yield from ast.literal_eval(node.value).values()


@pytest.mark.unit
def test_every_code_of_an_error_is_told_of_and_no_other() -> None:
    rows = re.findall(r"^\| \d.*? \| (.*?) \|", section("Errors"), re.MULTILINE)
    assert {code for row in rows for code in re.findall(r"`(\w+)`", row)} == set(codes())


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", EXAMPLES, re.MULTILINE | re.DOTALL)


CURLS = [
    found
    for block in blocks("console")
    for found in re.findall(
        r"^\$ (curl (?:-N )?http://127\.0\.0\.1:8000/v1.*?'\{.*?\}')$", block, re.M | re.S
    )
]


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
@pytest.mark.parametrize("command", CURLS)
def test_what_curl_is_shown_to_ask_is_answered(server: str, command: str) -> None:
    asked = command.replace(LOCAL, server).replace("curl ", "curl -sf ", 1)
    told = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True).stdout
    assert told.endswith("data: [DONE]\n\n") or len(json.loads(told)["translations"]) == 4


@pytest.mark.parametrize("code", blocks("python"))
def test_what_python_is_shown_to_do_works(server: str, code: str) -> None:
    exec(compile(code.replace(LOCAL, server), "example", "exec"), {})


def test_there_are_examples_of_each_kind() -> None:
    assert len(CURLS) == 3 and len(blocks("python")) == 4
