"""What can be known of the image without building it."""

from __future__ import annotations

import re
import tomllib

import pytest
from charted import ROOT
from containerfile import Stage, commands, read, words

pytestmark = pytest.mark.unit

ARGUMENTS, STAGES = read(ROOT / "Dockerfile")
TARGETS = ("cpu", "gpu")
CONSTRAINTS = {
    name: dict(
        line.split("==")
        for line in (ROOT / name).read_text(encoding="utf-8").splitlines()
        if "==" in line and not line.startswith("#")
    )
    for name in ("constraints.txt", "constraints-s3.txt")
}


def _line(target: str) -> list[Stage]:
    """A target's stages from its base image on."""
    stage = STAGES[target]
    return [*_line(stage.base), stage] if stage.base in STAGES else [stage]


def test_base_images_have_a_full_version_or_a_digest() -> None:
    outside = {s.base for s in STAGES.values() if s.base not in STAGES and s.base != "scratch"}
    for base in outside:
        image = ARGUMENTS[base.strip("${}")] if base.startswith("$") else base
        _, _, tag = image.rpartition(":")
        assert re.search(r"@sha256:[0-9a-f]{64}$", image) or re.search(r"\d{8}|\d+\.\d+\.\d+", tag)
    assert "latest" not in (ROOT / "Dockerfile").read_text(encoding="utf-8")


@pytest.mark.parametrize("target", TARGETS)
def test_it_runs_as_nobody_special(target: str) -> None:
    assert STAGES[target].all("USER") == ["1000:1000"]
    assert STAGES[target].instructions.index(("USER", "1000:1000")) > max(
        i for i, (name, _) in enumerate(STAGES[target].instructions) if name in ("RUN", "COPY")
    )
    (made,) = [c for text in STAGES["base"].all("RUN") for c in commands(text) if c[0] == "useradd"]
    assert made[made.index("--uid") + 1] == "1000"


@pytest.mark.parametrize("target", TARGETS)
def test_gcc_is_all_it_can_build_with(target: str) -> None:
    installed = {
        word
        for stage in _line(target)
        for text in stage.all("RUN")
        for command in commands(text)
        if command[:2] == ["apt-get", "install"]
        for word in command[2:]
    }
    assert {"gcc", "libc6-dev", "python3.12-dev"} <= installed
    assert not {"g++", "make", "cmake", "ninja-build", "build-essential", "git"} & installed
    copied = [words(text)[0].get("from") for stage in _line(target) for text in stage.all("COPY")]
    assert "cuda" not in copied, "nvcc stays in the stage that builds"


def test_packages_of_the_system_come_without_recommendations_and_without_lists() -> None:
    for stage in STAGES.values():
        for text in stage.all("RUN"):
            if "apt-get install" in text:
                assert "--no-install-recommends" in text
                assert "rm -rf /var/lib/apt/lists/*" in text


def test_everything_from_pip_is_constrained() -> None:
    for stage in STAGES.values():
        for text in stage.all("RUN"):
            for command in commands(text):
                if command[0] != "pip":
                    continue
                local = all("/wheels/" in w or w == "/src" for w in _packages(command))
                assert "--constraint" in command or (local and "--no-deps" in command), command
                for package in _packages(command):
                    _assert_pinned(package, command)


def _packages(command: list[str]) -> list[str]:
    taking = {"--constraint", "--index-url", "--extra-index-url", "--target", "--wheel-dir"}
    taking |= {"--requirement", "--no-binary"}
    found, skip = [], False
    for word in command[2:]:
        if skip or word.startswith("-"):
            skip = word in taking
        else:
            found.append(word)
    return found


def _assert_pinned(package: str, command: list[str]) -> None:
    if "/" in package:
        return
    name, _, version = package.partition("==")
    file = command[command.index("--constraint") + 1].removeprefix("/opt/bayling/")
    assert name in CONSTRAINTS[file], f"{name} is not in {file}"
    assert version.partition("+")[0] in ("", CONSTRAINTS[file][name])


def test_what_the_project_asks_for_is_in_the_constraints() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    pinned = {_canonical(name) for name in CONSTRAINTS["constraints.txt"]}
    script = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    asked = {
        extra for line in re.findall(r"requirements ([\w ]+) >", script) for extra in line.split()
    }
    assert {"stages", "kubernetes", "server", "gpu"} <= asked
    for extra in asked:
        for requirement in extras[extra]:
            name = re.match(r"[\w-]+", requirement)
            assert name and _canonical(name[0]) in pinned, requirement


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_what_is_copied_exists_and_reaches_the_builder() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    allowed = [line[1:] for line in lines if line.startswith("!")]
    assert "*" in lines, "what is not named stays out"
    for stage in STAGES.values():
        for text in stage.all("COPY"):
            options, names = words(text)
            if "from" in options:
                assert options["from"] in STAGES
                continue
            for name in names[:-1]:
                if name.startswith("<<"):
                    continue
                assert (ROOT / name).exists(), name
                assert any(name == each or name.startswith(f"{each}/") for each in allowed), name


def test_mounts_name_stages_that_exist() -> None:
    for stage in STAGES.values():
        for text in stage.all("RUN"):
            for name in re.findall(r"--mount=\S*from=([\w-]+)", text):
                assert name in STAGES


@pytest.mark.parametrize("target", TARGETS)
def test_what_it_starts_is_there(target: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert STAGES[target].all("ENTRYPOINT") == ['["tini", "--"]']
    (command,) = STAGES[target].all("CMD")
    assert command.startswith('["bayling"') and "bayling" in project["scripts"]
    assert {"jobs /opt/bayling/jobs"} <= set(STAGES[target].all("COPY"))
    assert (ROOT / "jobs" / "train.py").exists()


def test_deepspeeds_ops_are_built_ahead_for_the_right_accelerator() -> None:
    for target, accelerator, ops in (
        ("cpu", "cpu", {"SHM_COMM", "CPU_ADAM"}),
        ("gpu", "cuda", {"CPU_ADAM", "AIO", "PIN_MEMORY"}),
    ):
        text = " ".join(STAGES[f"wheels-{target}"].all("RUN"))
        assert f"DS_ACCELERATOR={accelerator} " in text
        assert set(re.findall(r"DS_BUILD_(\w+)=1", text)) == ops
        assert "CXX=portable-g++" in text, "or they run on no older CPU than the builder's"
        (mounted,) = re.findall(r"from=(wheels-\w+)", " ".join(STAGES[target].all("RUN")))
        assert mounted == f"wheels-{target}"


def test_there_is_no_secret_in_it() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert not re.search(r"(?i)password|token|api_key|--mount=type=secret", text)
    assert not {"ADD"} & {name for stage in STAGES.values() for name, _ in stage.instructions}


def test_both_targets_have_the_same_python() -> None:
    assert {stage.base for stage in map(STAGES.get, ("torch-cpu", "torch-gpu")) if stage} == {
        "base"
    }
