"""What holds for the sources as a whole."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import bayling

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[1]
PLATFORM = ROOT / "platform"
STAGES = ("data", "train", "evaluate", "promote", "serve")
HEAVY = ("torch", "ray", "mlflow", "transformers", "deepspeed", "matplotlib", "numpy", "pyarrow")


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(PLATFORM)},
        check=False,
    )


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{name.name}" for name in node.names)


def test_the_source_root_is_no_package_that_would_shadow_the_standard_library() -> None:
    assert not list(PLATFORM.glob("*.py"))
    answered = _run("-c", "import platform; print(platform.__file__, platform.system())")
    assert answered.returncode == 0
    assert str(ROOT) not in answered.stdout


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_imports_no_other_stage(stage: str) -> None:
    others = tuple(f"bayling.{other}" for other in STAGES if other != stage)
    files = sorted((PLATFORM / "bayling" / stage).rglob("*.py"))
    assert files
    for path in files:
        for name in _imported(path):
            wrong = [other for other in others if name == other or name.startswith(f"{other}.")]
            assert not wrong, f"{path} imports {name}"


def test_imports_run_one_way() -> None:
    checked = _run(
        "-c", "from importlinter.cli import lint_imports_command as c; c(['--no-cache'])"
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert " 0 broken" in checked.stdout


def test_help_answers_without_the_heavy_packages() -> None:
    code = (
        "import sys\n"
        "from bayling.cli import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        f"print('LOADED', *[name for name in {HEAVY} if name in sys.modules])\n"
    )
    answered = _run("-c", code)
    assert answered.returncode == 0, answered.stderr
    text, _, loaded = answered.stdout.rpartition("LOADED")
    assert not loaded.split()
    for stage in STAGES:
        assert f"\n    {stage} " in text


def test_composing_a_configuration_needs_none_of_the_heavy_packages() -> None:
    code = (
        "import sys\n"
        "from bayling.config import compose\n"
        "assert compose(['recipe=quickstart']).name == 'quickstart'\n"
        f"print(*[name for name in {HEAVY} if name in sys.modules])\n"
    )
    answered = _run("-c", code)
    assert answered.returncode == 0, answered.stderr
    assert not answered.stdout.split()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["data", "train.lerning_rate=1"], "did you mean train.learning_rate?"),
        (["data", "train.steps"], "write KEY=VALUE"),
    ],
)
def test_a_wrong_override_is_one_sentence_and_exit_code_2(
    arguments: list[str], sentence: str
) -> None:
    answered = _run("-m", "bayling.cli", *arguments)
    assert answered.returncode == 2
    assert answered.stderr.startswith("bayling: ")
    assert answered.stderr.count("\n") == 1
    assert sentence in answered.stderr


def test_the_licence_is_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text("utf-8")
    assert "Apache License\n" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_version_is_that_of_the_installed_package() -> None:
    assert bayling.__version__ == importlib.metadata.version("bayling-platform")


def test_the_package_says_that_it_is_typed() -> None:
    assert (PLATFORM / "bayling" / "py.typed").exists()
