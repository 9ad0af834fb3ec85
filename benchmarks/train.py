"""How fast training is beside other trainers, and what a checkpoint costs, on this machine.

    python benchmarks/train.py [--json FILE] [--rounds N] [--only NAME,…] [--keep-logs FOLDER]

The quickstart's model and batch, two workers of one thread each, all in the precision that the
CPU multiplies fastest, and conversations as its data stage makes them, in a temporary folder. All
trainers start from the same weights, stay alive side by side, and take turns of a second or so in
rounds: what disturbs the machine meets all of them alike. A ratio is the median over the rounds of
the platform's tokens a second, padding not counted, over another's in the same round. Takes five to
eight minutes.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import random
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from setting import WORKERS, build

HERE = Path(__file__).resolve().parent
CONVERSATIONS = 8000
TURN_S = 1.0
"""About how long a trainer's turn lasts."""
PATIENCE_S = 300.0


@dataclass(frozen=True)
class Rival:
    """A trainer that the platform's is compared with."""

    name: str
    what: str
    goal: float | None
    """The least ratio wanted."""
    needs: str | None = None
    """A package that is no dependency of the platform."""


OURS = "bayling"
RIVALS = (
    Rival("bare", "a bare PyTorch + DeepSpeed loop, the same ZeRO stage and batches", 0.95),
    Rival("trl", "TRL's SFTTrainer, packing, its defaults", 2.0, "trl"),
    Rival("trl-tuned", "TRL's SFTTrainer without gradient checkpointing", None, "trl"),
    Rival("hf-padded", "HF Trainer + DeepSpeed ZeRO-2, padded batches", 1.3, "accelerate"),
    Rival("hf-packed", "HF Trainer + DeepSpeed ZeRO-2, our packed batches", None, "accelerate"),
)
CHECKPOINT_GOAL = 0.1
SAME_LOSS = 1e-3
"""The largest difference between losses that count as the same, in fp32."""


class Failed(Exception):
    """A worker ended; the message is the end of its log."""


class Gang:
    """The processes of one trainer."""

    def __init__(
        self,
        script: str,
        name: str,
        folder: Path,
        logs: Path,
        workers: int = WORKERS,
        environment: dict[str, str] | None = None,
    ) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._logs = [logs / f"{name}-{workers}-{rank}.log" for rank in range(workers)]
        self._processes = [
            subprocess.Popen(
                [sys.executable, str(HERE / script), name, str(folder)],
                env={
                    **os.environ,
                    "RANK": str(rank),
                    "LOCAL_RANK": str(rank),
                    "WORLD_SIZE": str(workers),
                    "LOCAL_WORLD_SIZE": str(workers),
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": str(port),
                    "OMP_NUM_THREADS": "1",
                    "DS_ACCELERATOR": "cpu",
                    "TORCHDYNAMO_DISABLE": "1",
                    "TOKENIZERS_PARALLELISM": "false",
                    "HF_HUB_OFFLINE": "1",
                    "HF_HOME": str(folder / "hf"),
                    **(environment or {}),
                },
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log.open("w"),
                text=True,
            )
            for rank, log in enumerate(self._logs)
        ]

    def answers(self) -> list[dict[str, Any]]:
        """The next line of every worker.

        Raises:
            Failed: one of them ended instead.
        """
        lines = [process.stdout.readline() for process in self._processes if process.stdout]
        for line, log in zip(lines, self._logs, strict=True):
            if not line:
                self.close()
                raise Failed("\n".join(log.read_text("utf-8").splitlines()[-15:]))
        return [json.loads(line) for line in lines]

    def turn(self, steps: int) -> tuple[float, int]:
        """Seconds that `steps` steps took, and the tokens of all workers."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{steps}\n")
            process.stdin.flush()
        answers = self.answers()
        seconds = max(answer["seconds"] for answer in answers)
        return seconds, int(sum(answer["tokens"] for answer in answers))

    def close(self) -> None:
        for process in self._processes:
            if process.stdin is not None:
                process.stdin.close()
        for process in self._processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def left_out(rival: Rival) -> bool:
    """Whether a package is missing; says so."""
    if rival.needs is None or importlib.util.find_spec(rival.needs):
        return False
    say(f"left out: {rival.what}, because {rival.needs} is not installed (pip install '.[bench]')")
    return True


def speeds(folder: Path, logs: Path, rivals: Sequence[Rival], rounds: int) -> dict[str, Any]:
    """Tokens a second of every trainer in every round."""
    gangs: dict[str, Gang] = {}
    steps: dict[str, int] = {}
    for name in (OURS, *(rival.name for rival in rivals)):
        say(f"starting {name}")
        gang = Gang("contestants.py", name, folder, logs)
        try:
            gang.answers()
            gang.turn(5)  # the first steps make buffers
            seconds, _ = gang.turn(10)
        except Failed as error:
            if name == OURS:
                raise
            say(f"left out: {name} failed: {error}")
            continue
        gangs[name] = gang
        steps[name] = max(5, round(10 * TURN_S / seconds))
    measured: dict[str, list[float]] = {name: [] for name in gangs}
    order = list(gangs)
    shuffle = random.Random(1).shuffle
    try:
        for number in range(rounds):
            shuffle(order)
            for name in order:
                seconds, tokens = gangs[name].turn(steps[name])
                measured[name].append(tokens / seconds)
            if (number + 1) % 5 == 0:
                now = ", ".join(f"{n} {statistics.median(v):,.0f}" for n, v in measured.items())
                say(f"round {number + 1} of {rounds}, tokens/s: {now}")
    finally:
        for gang in gangs.values():
            gang.close()
    return measured


def play(scene: str, folder: Path, logs: Path, workers: int = WORKERS) -> dict[str, Any]:
    """What rank 0 answers to a scene."""
    say(f"{scene} with {workers} worker(s)")
    gang = Gang("scenes.py", scene, folder, logs, workers)
    try:
        return gang.answers()[0]
    finally:
        gang.close()


def difference(curves: Sequence[Sequence[float]]) -> float:
    """The largest difference between the first curve and any other, at any step."""
    first, *others = curves
    return max(abs(a - b) for other in others for a, b in zip(first, other, strict=True))


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    low, _, high = statistics.quantiles(values, n=4)
    return low, high


def say(text: str) -> None:
    print(text, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="where figures are written to")
    parser.add_argument("--rounds", type=int, default=25, metavar="N", help="of one turn each")
    names = ", ".join([*(rival.name for rival in RIVALS), "checkpoints", "losses"])
    parser.add_argument("--only", metavar="NAME,…", help=f"of {names}")
    parser.add_argument("--keep-logs", type=Path, metavar="FOLDER", help="the workers' output")
    arguments = parser.parse_args()
    wanted = arguments.only.split(",") if arguments.only else names.split(", ")
    if unknown := set(wanted) - set(names.split(", ")):
        parser.error(f"--only takes {names}; not {', '.join(sorted(unknown))}")

    ratios: dict[str, float] = {}
    figures: dict[str, Any] = {}
    table: list[tuple[str, str, str]] = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        logs = arguments.keep_logs or folder
        logs.mkdir(parents=True, exist_ok=True)
        say(f"building {CONVERSATIONS:,} conversations")
        setting = build(folder, CONVERSATIONS)
        rivals = [r for r in RIVALS if r.name in wanted and not left_out(r)]
        if rivals:
            measured = speeds(folder, logs, rivals, arguments.rounds)
            table += compared(measured, rivals, ratios, figures)
        if "checkpoints" in wanted:
            table += pauses(play("checkpoints", folder, logs), ratios, figures)
        if "losses" in wanted:
            two = play("losses", folder, logs)
            curves = [play("losses", folder, logs, n)["2"] for n in (1, 4)]
            table += same(two, curves, figures)
        batch = setting.config.train.global_batch
        figures["setting"] = {
            "sequences": len(setting.packed),
            "sequence_length": setting.packed.sequence_length,
            "global_batch": batch,
            "precision": "bf16" if setting.bf16 else "fp32",
            "conversations_in_a_padded_batch": WORKERS * setting.padded_batch,
        }

    width = max(len(row[0]) for row in table)
    say("")
    for name, value, goal in table:
        say(f"{name:{width}}  {value:28}  {goal}")
    if arguments.json:
        packages = ("torch", "deepspeed", "transformers", "trl", "accelerate")
        result = {
            "ratios": ratios,
            "figures": figures,
            "machine": {"platform": platform.platform(), "cpus": os.cpu_count()},
            "versions": {name: version for name in packages if (version := _version(name))},
        }
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


def compared(
    measured: dict[str, list[float]],
    rivals: Sequence[Rival],
    ratios: dict[str, float],
    figures: dict[str, Any],
) -> list[tuple[str, str, str]]:
    """Rows of the table, and what goes into the file."""
    ours = measured[OURS]
    figures["tokens_per_second"] = {n: round(statistics.median(v)) for n, v in measured.items()}
    figures["tokens_per_second_by_round"] = {
        name: [round(value) for value in values] for name, values in measured.items()
    }
    rows = [("tokens/s of the platform's trainer", f"{statistics.median(ours):,.0f}", "")]
    for rival in rivals:
        theirs = measured.get(rival.name)
        if not theirs:
            continue
        each = [a / b for a, b in zip(ours, theirs, strict=True)]
        ratio, (low, high) = statistics.median(each), quartiles(each)
        ratios[rival.name] = round(ratio, 3)
        goal = f"goal ≥ {rival.goal}{verdict(ratio >= rival.goal)}" if rival.goal else "no goal"
        rows.append((f"… over {rival.what}", f"{ratio:.2f} (half in {low:.2f}–{high:.2f})", goal))
    return rows


def pauses(
    measured: dict[str, Any], ratios: dict[str, float], figures: dict[str, Any]
) -> list[tuple[str, str, str]]:
    # The first makes the memory that the others copy to.
    pause, *others = (measured[key][1:] for key in ("pauses", "whole", "saves"))
    whole, deepspeed = (
        statistics.median(a / b for a, b in zip(pause, other, strict=True)) for other in others
    )
    ratios |= {"checkpoint": round(whole, 4), "checkpoint-deepspeed": round(deepspeed, 4)}
    figures["checkpoint"] = measured
    first = f"({statistics.median(pause):.3f} s; the first {measured['pauses'][0]:.3f} s)"
    return [
        (
            f"pause for a checkpoint over writing it, {measured['parameters'] / 1e6:.0f} M",
            f"{whole:.3f} {first}",
            f"goal ≤ {CHECKPOINT_GOAL}{verdict(whole <= CHECKPOINT_GOAL)}",
        ),
        ("… over DeepSpeed's save, which is not synced", f"{deepspeed:.3f}", "no goal"),
    ]


def same(
    two: dict[str, list[float]], others: list[list[float]], figures: dict[str, Any]
) -> list[tuple[str, str, str]]:
    """`two`: the losses of two workers by ZeRO stage; `others`: of other numbers of workers."""
    stages, workers = difference(list(two.values())), difference([two["2"], *others])
    figures["losses"] = {"zero_stages": stages, "workers": workers, "curve": two["2"]}
    goal = f"goal ≤ {SAME_LOSS:g}"
    return [
        ("largest difference of losses, ZeRO 0–3", f"{stages:.1e}", goal + met(stages)),
        ("largest difference of losses, 1, 2, 4 workers", f"{workers:.1e}", goal + met(workers)),
    ]


def met(value: float) -> str:
    return verdict(value <= SAME_LOSS)


def verdict(good: bool) -> str:
    return "" if good else ", MISSED"


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
