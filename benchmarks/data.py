"""How fast and in how much memory the data stage goes from raw pairs to packed tokens.

    python benchmarks/data.py [--json FILE] [--pairs 300000] [--small 30000] [--workers 2]

The pairs are English and German sentences around CLDR's dates, amounts, quantities and countries,
some of them repeated, misaligned or in the wrong language. Beside the stage runs the usual way:
`datasets.map` and `filter`, row by row, with the same steps of cleaning, prompts, template and
tokenizer, then TRL's packing, with as many processes. It drops exact repeats in its one main
process. What it has no step for – near repeats, boilerplate, pairs that share words with held-out
ones – the stage leaves out too in the run that is compared, where it holds no more than one pair
out; with them it runs once more, as it is. Both times it writes tables of what it kept
and dropped.

Prints tokens a second of both and their ratio, the time of each step, what the tokenizer alone
takes, the peak of all processes' memory for both numbers of pairs, how long a rerun takes that has
nothing to do, and what 3.2 million instructions would take. About 15 minutes on two cores.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bayling.config import compose
from bayling.data import cldr
from bayling.languages import locale_of

ROOT = Path(__file__).resolve().parents[1]
USUAL = Path(__file__).with_name("usual_data.py")
INSTRUCTIONS = 3_200_000
SEQUENCE_LENGTH = 512
_SAMPLED_EVERY_S = 0.5
ONLY_OURS = ("near duplicate", "boilerplate")
"""Steps of cleaning that the usual way does not have."""

# What the sentences say: six parts of speech would do, but these can be read.
CLAUSES = {
    "en": (
        "The meeting of the committee took place on {}",
        "Our neighbours paid {} for the old piano",
        "The road through the valley is {} long",
        "Delegates from {} took part in the talks",
        "The new bridge will be opened {}",
        "Nobody expected the letter before {}",
        "The farmers of the region sold {} of wheat",
        "She had saved {} for the journey",
    ),
    "de": (
        "Die Sitzung des Ausschusses fand am {} statt",
        "Unsere Nachbarn bezahlten {} für das alte Klavier",
        "Die Straße durch das Tal ist {} lang",
        "Abgeordnete aus {} nahmen an den Gesprächen teil",
        "Die neue Brücke wird {} eröffnet",
        "Niemand erwartete den Brief vor dem {}",
        "Die Bauern der Gegend verkauften {} Weizen",
        "Sie hatte {} für die Reise gespart",
    ),
}
KINDS = ("date", "money", "quantity", "list", "relative", "date", "quantity", "money")


def pairs(number: int) -> Iterator[tuple[str, str]]:
    """English and German sentences of two or three clauses."""
    rng = random.Random(1)
    territories = [set(locale_of(tag).territories) for tag in ("en", "de")]
    codes = sorted(code for code in set.intersection(*territories) if code.isalpha())
    before = [("A cat sat there.", "Dort saß eine Katze.")]
    for _ in range(number):
        chance = rng.random()
        if chance < 0.02:
            yield rng.choice(before)
            continue
        sides: dict[str, list[str]] = {"en": [], "de": []}
        for clause in rng.sample(range(len(KINDS)), rng.choice((2, 2, 3))):
            texts = _value(rng, KINDS[clause], codes)
            for tag, parts in sides.items():
                parts.append(CLAUSES[tag][clause].format(texts[tag]))
        english, german = ("; ".join(parts) + "." for parts in sides.values())
        if chance < 0.03:
            german = english.replace("the", "a")
        elif chance < 0.04:
            german = german[: len(german) // 6]
        before[rng.randrange(len(before)) :] = [(english, german)]
        yield english, german


def _value(rng: random.Random, kind: str, codes: list[str]) -> dict[str, str]:
    if kind == "list":
        chosen = rng.sample(codes, rng.randint(2, 4))
        return {
            tag: ", ".join(locale_of(tag).territories[code] for code in chosen) for tag in CLAUSES
        }
    while True:
        value = cldr.draw(rng, kind)
        try:
            return {tag: cldr.write(value, cldr.FORMS[kind][0], tag).text for tag in CLAUSES}
        except cldr.NotInCldr:
            continue


@dataclass
class Memory:
    """The peak of a process's and its descendants' memory, in bytes, sampled in a thread."""

    pid: int
    peak: int = 0
    by_name: dict[str, int] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Memory:
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(_SAMPLED_EVERY_S):
            by_name: dict[str, int] = {}
            try:
                root = psutil.Process(self.pid)
                for process in (root, *root.children(recursive=True)):
                    # Pages that several processes share count once, Ray's object store among them.
                    try:
                        name = process.name()
                        size = process.memory_full_info().pss
                    except psutil.Error:
                        continue
                    by_name[name] = by_name.get(name, 0) + size
            except psutil.Error:
                continue
            if (total := sum(by_name.values())) > self.peak:
                self.peak, self.by_name = total, by_name


def timed(command: list[str], folder: Path) -> tuple[float, int]:
    """Seconds and peak bytes of a command.

    Raises:
        RuntimeError: it failed; its last words are in the message.
    """
    log = folder / "log.txt"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "platform")}
    with log.open("w") as said:
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=said, stderr=said, env=environment)
        with Memory(process.pid) as memory:
            code = process.wait()
        seconds = time.monotonic() - started
    if code:
        raise RuntimeError(f"{' '.join(command[:4])} … failed:\n{log.read_text()[-3000:]}")
    return seconds, memory.peak


def overrides(folder: Path, number: int, workers: int, skip: Sequence[str]) -> list[str]:
    return [
        "recipe=quickstart",
        f"output_dir={folder}/{number}{'-alike' if skip else ''}",
        f"data.cleaning.skip={json.dumps(list(skip))}",
        *(["data.heldout_per_direction=1"] if skip else []),
        "data.languages=[en,de]",
        f"data.sources=[{{path:[{folder}/{number}.en,{folder}/{number}.de],origin:made}}]",
        f"data.conversations={2 * number}",
        "data.partition_size=10000",
        f"data.sequence_length={SEQUENCE_LENGTH}",
        f"model.context_length={SEQUENCE_LENGTH}",
        "data.mixture.tasks.translate=1",
        "data.mixture.tasks.constrained=0",
        "data.mixture.tasks.interactive=0",
        f"scale.workers={workers}",
        f"scale.engines={workers}",
    ]


def ours(folder: Path, number: int, workers: int, skip: Sequence[str] = ()) -> dict[str, Any]:
    """The stage, and once more with nothing to do."""
    arguments = overrides(folder, number, workers, skip)
    command = [sys.executable, "-m", "bayling.cli", "data", *arguments]
    seconds, peak = timed(command, folder)
    again, _ = timed(command, folder)
    config = compose(arguments)
    [made] = config.folder.glob("data-*/manifest.json")
    manifest = json.loads(made.read_text("utf-8"))
    size = sum(path.stat().st_size for path in made.parent.rglob("*") if path.is_file())
    return {
        "seconds": seconds,
        "again_s": again,
        "peak_bytes": peak,
        "disk_bytes": size,
        "folder": str(made.parent),
        "tokens": manifest["counts"]["tokens"],
        "conversations": manifest["counts"]["conversations"],
        "fill": manifest["counts"]["fill"],
        "steps": manifest["results"]["seconds"],
        "dropped": manifest["dropped"],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--pairs", type=int, default=300_000)
    parser.add_argument("--small", type=int, default=30_000)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-data-") as name:
        folder = Path(name)
        for number in (arguments.small, arguments.pairs):
            print(f"making {number:,} pairs …", flush=True)
            english, german = (folder / f"{number}.{tag}" for tag in ("en", "de"))
            with english.open("w") as one, german.open("w") as other:
                for source, target in pairs(number):
                    one.write(source + "\n")
                    other.write(target + "\n")
        small = ours(folder, arguments.small, arguments.workers)
        large = ours(folder, arguments.pairs, arguments.workers)
        alike = ours(folder, arguments.pairs, arguments.workers, ONLY_OURS)
        print("the usual way …", flush=True)
        out = folder / "usual.json"
        seconds, peak = timed(
            [
                sys.executable,
                str(USUAL),
                str(folder / f"{arguments.pairs}.en"),
                str(folder / f"{arguments.pairs}.de"),
                f"{large['folder']}/tokenizer",
                str(SEQUENCE_LENGTH),
                str(arguments.workers),
                str(out),
            ],
            folder,
        )
        usual = {**json.loads(out.read_text("utf-8")), "seconds": seconds, "peak_bytes": peak}
        shutil.rmtree(folder, ignore_errors=True)
    _print(arguments, small, large, alike, usual)
    if arguments.json:
        report = _report(small, large, alike, usual)
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    return 0


def _ratios(
    small: dict[str, Any], large: dict[str, Any], alike: dict[str, Any], usual: dict[str, Any]
) -> dict[str, float]:
    return {
        "tokens_per_s_over_usual": (alike["tokens"] / alike["seconds"])
        / (usual["tokens"] / usual["seconds"]),
        "peak_memory_large_over_small": large["peak_bytes"] / small["peak_bytes"],
    }


def _print(
    arguments: argparse.Namespace,
    small: dict[str, Any],
    large: dict[str, Any],
    alike: dict[str, Any],
    usual: dict[str, Any],
) -> None:
    ratios = _ratios(small, large, alike, usual)
    print(f"\n{arguments.pairs:,} pairs, {arguments.workers} workers")
    runs = (("the stage, alike", alike), ("datasets + TRL", usual), ("the stage", large))
    for name, one in runs:
        print(
            f"  {name:16} {one['seconds']:7.1f} s  {one['tokens'] / one['seconds']:10,.0f} tokens/s"
            f"  {one['tokens']:,} tokens, {100 * one['fill']:.1f} % full,"
            f" peak {one['peak_bytes'] / 2**20:,.0f} MiB"
        )
        for step, spent in one["steps"].items():
            print(f"    {step:24} {spent:7.1f} s")
    print(f"  tokenizer alone, on one core {usual['tokenizer_s']:7.1f} s")
    print(f"ratio of tokens/s: {ratios['tokens_per_s_over_usual']:.2f} (goal: 2)")
    print(
        f"peak memory {small['peak_bytes'] / 2**20:,.0f} MiB at {arguments.small:,} pairs, "
        f"{large['peak_bytes'] / 2**20:,.0f} MiB at {arguments.pairs:,}: "
        f"{ratios['peak_memory_large_over_small']:.2f} (goal: below 1.2)"
    )
    print(f"a rerun with nothing to do: {large['again_s']:.1f} s (goal: below 5)")
    # What does not grow with the data is told from the two sizes.
    each = (large["seconds"] - small["seconds"]) / (large["conversations"] - small["conversations"])
    fixed = max(0.0, large["seconds"] - each * large["conversations"])
    disk = large["disk_bytes"] / large["conversations"] * INSTRUCTIONS
    print(
        f"{INSTRUCTIONS:,} instructions like these: {(fixed + each * INSTRUCTIONS) / 60:.0f} min, "
        f"{disk / 2**30:.1f} GiB of disk"
    )


def _report(
    small: dict[str, Any], large: dict[str, Any], alike: dict[str, Any], usual: dict[str, Any]
) -> dict[str, Any]:
    names = ("datasets", "ray", "tokenizers", "transformers", "trl")
    return {
        "ratios": _ratios(small, large, alike, usual),
        "figures": {"small": small, "large": large, "alike": alike, "usual": usual},
        "machine": {"cpus": os.cpu_count(), "processor": platform.processor()},
        "versions": {name: importlib.metadata.version(name) for name in names},
    }


if __name__ == "__main__":
    raise SystemExit(main())
