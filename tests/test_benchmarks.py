"""The benchmarks' scripts run; what they measure is for `make bench`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def _run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True)


def test_the_gpu_benchmark_runs_on_a_tiny_network_without_a_gpu(tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    done = _run(BENCHMARKS / "train_gpu.py", "--smoke", "--steps", "2", "--json", file)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(file.read_text("utf-8"))
    assert result.keys() == {"ratios", "figures", "machine", "versions"}
    assert result["ratios"].keys() == {"full_over_hf", "lora_over_hf"}
    assert result["figures"]["attention"]["equal"] is True
    for name in ("bayling_full", "bayling_lora", "hf_full", "hf_lora"):
        assert result["figures"][name]["tokens_per_second"] > 0
        assert result["figures"][name]["attention"]
    assert result["figures"]["bayling_full"]["mfu"] > 0


def test_the_engine_on_a_gpu_is_compared_without_one_too(tmp_path: Path) -> None:
    file = tmp_path / "engine.json"
    done = _run(BENCHMARKS / "engine_gpu.py", "--smoke", "--rounds", "1", "--json", file)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(file.read_text("utf-8"))["figures"]["tiny"]
    assert figures.pop("same_answers") == 1.0
    assert figures.keys() == {f"{load} x{n}" for load in ("32", "512", "turns") for n in (1, 4)}
    for found in figures.values():
        assert found["over_generate"] > 0
        assert found["over_continuous"] > 0


def test_the_cpu_benchmark_explains_itself() -> None:
    done = _run(BENCHMARKS / "train.py", "--help")
    assert done.returncode == 0, done.stderr
    assert "--json FILE" in done.stdout


def test_a_model_beside_itself_is_refused_as_seldom_as_is_stated(tmp_path: Path) -> None:
    """With the evaluation's own figures and the gate's own rules. A language that is broken is
    refused and named, and no other one."""
    file = tmp_path / "gate.json"
    few = ["--comparisons", "20", "--damaged", "4", "--languages", "en,zh,hi,sw"]
    done = _run(BENCHMARKS / "gate.py", *few, "--json", file)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(file.read_text("utf-8"))["figures"]
    assert figures["comparisons"] == 20
    assert figures["refused"] / 20 <= figures["false_refusals"] == 0.05
    broken = figures["damaged"]["1.0"]
    assert broken["refused"] == broken["named"] == 1.0
