"""How fast the server is beside others, and beside its own engine, on this machine.

    python benchmarks/serve.py [--json FILE] [--model FOLDER] [--vllm PYTHON] [--rounds N]
                               [--only NAME,…] [--sizes small,large] [--loads 32,512,turns]
                               [--at-once 1,8,32]

Two models: the quickstart's, whose tokens cost so little that they measure the API, and a random
LLaMA of 125 million parameters, which measures the engine. Neither can end an answer early, so that
all servers make the same number of tokens. Chat completions are streamed over HTTP to one client
process on the same cores: to prompts of about 32 and 512 tokens of which no two begin alike, and in
conversations of four turns, the first of about 128 tokens. All servers of a model are up at
once and take turns in rounds, so that what disturbs the machine meets all of them alike; a ratio
is the median over the rounds of the platform's tokens a second over another's.

vLLM and Ray Serve LLM need an environment of their own: `make .venv-vllm/ready` makes one that is
found by itself. Takes about ten minutes a model, several times that where a CPU has no bfloat16;
Ctrl-C ends it with the rounds that are complete.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from load import Failed, Measured, Target, measure
from served_models import DTYPE, Bare, Texts, make_models
from servers import INTERVAL_S

ROOT = Path(__file__).resolve().parents[1]
SERVERS = Path(__file__).with_name("servers.py")
READY_WITHIN_S = 240.0
BARE, GENERATE = "engine", "generate"


@dataclass(frozen=True)
class Contestant:
    """A server that the platform's is compared with."""

    name: str
    what: str
    vllm: bool
    """Whether it runs in the environment that has vLLM."""


OURS = "bayling"
CONTESTANTS = (
    Contestant(OURS, "the platform, transformers engine", False),
    Contestant("transformers", "transformers serve --continuous-batching", False),
    Contestant("bayling-vllm", "the platform, vLLM engine", True),
    Contestant("vllm", "vLLM's own server", True),
    Contestant("ray-serve-llm", "Ray Serve LLM, build_openai_app", True),
)


@dataclass(frozen=True)
class Load:
    """What is asked."""

    name: str
    what: str
    prompt_tokens: int
    turns: int = 1


LOADS = (
    Load("32", "prompts of about 32 tokens", 32),
    Load("512", "prompts of about 512 tokens", 512),
    Load("turns", "conversations of four turns, the first of about 128 tokens", 128, 4),
)


@dataclass(frozen=True)
class Size:
    """A model, and how much of it a turn asks for."""

    name: str
    threads: int
    """Of each engine. The small model's operations are too short to be shared out."""
    new_tokens: int
    answers: dict[int, int]
    """Requests at a time → answers of one round."""
    cache_gib: int
    """For keys and values of each engine over vLLM: more than is needed, and little enough for five
    servers on one machine. Ray kills the workers of a node that is nearly full."""


SIZES = (
    Size("small", 1, 48, {1: 24, 8: 96, 32: 256}, 1),
    Size("large", 2, 32, {1: 3, 8: 16, 32: 32}, 2),
)


class Server:
    """A contestant's process."""

    def __init__(self, contestant: Contestant, python: str, folder: Path, size: Size) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.contestant = contestant
        self.log = tempfile.NamedTemporaryFile(mode="w+", suffix=f"-{contestant.name}.log")  # noqa: SIM115
        environment = {
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "VLLM_CPU_KVCACHE_SPACE": str(size.cache_gib),
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_NO_USAGE_STATS": "1",
            "RAYLLM_MODEL_RESPONSE_BATCH_TIMEOUT_MS": str(round(1000 * INTERVAL_S)),
        }
        self._process = subprocess.Popen(
            [python, SERVERS, contestant.name, folder, str(self.port), str(size.threads), DTYPE],
            stdout=self.log,
            stderr=self.log,
            env=environment,
            start_new_session=True,
        )
        self._folder = folder

    @property
    def target(self) -> Target:
        # transformers serve calls a model what it was loaded from.
        name = str(self._folder) if self.contestant.name == "transformers" else "bayling"
        return Target(self.port, name)

    def wait(self, text: str) -> None:
        """Return when it answers."""
        deadline = time.monotonic() + READY_WITHIN_S
        reason = ""
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                measure(self.target, [text], 1, 4)
                return
            except (OSError, Failed, TimeoutError) as error:
                reason = str(error)
                time.sleep(1)
        raise SystemExit(self._end(reason))

    def measure(self, begun: Sequence[str], at_once: int, new: int, turns: int) -> Measured | None:
        """None, and a word about it, where it does not answer any more."""
        try:
            return measure(self.target, begun, at_once, new, turns)
        except (OSError, Failed, TimeoutError) as error:
            print(f"{self._end(str(error))}\n{self.contestant.name} takes no part from here on")
            return None

    def _end(self, reason: str) -> str:
        self.log.seek(0)
        tail = "".join(self.log.readlines()[-40:])
        return f"{self.contestant.name} does not answer: {reason}\n{tail}"

    def stop(self) -> None:
        for sent in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, sent)
                self._process.wait(20)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue


@dataclass
class Figures:
    """Everything that was measured with one model."""

    rounds: dict[tuple[str, str, int], list[Measured]] = field(
        default_factory=lambda: defaultdict(list)
    )
    """By contestant, load and requests at a time."""

    def speed(self, name: str, load: str, at_once: int) -> float:
        return statistics.median(m.tokens_per_second for m in self.rounds[name, load, at_once])

    def ratio(self, over: str, load: str, at_once: int, ours: str = OURS) -> float | None:
        """The platform's tokens a second over another's, the median of the rounds."""
        mine = self.rounds.get((ours, load, at_once))
        others = self.rounds.get((over, load, at_once))
        if not mine or not others:
            return None
        return statistics.median(
            one.tokens_per_second / other.tokens_per_second
            for one, other in zip(mine, others, strict=True)
        )


def compare(
    size: Size, folder: Path, contestants: Sequence[Contestant], options: argparse.Namespace
) -> Figures:
    """Measure all with one model, in turns."""
    loads = [load for load in LOADS if load.name in options.loads]
    texts = {load: Texts(folder, load.prompt_tokens) for load in loads}
    figures = Figures()
    servers = []
    bare: Bare | None = None
    try:
        for contestant in contestants:
            python = options.vllm if contestant.vllm else sys.executable
            servers.append(Server(contestant, python, folder, size))
            _say(f"{size.name}: starting {contestant.what}")
            servers[-1].wait(texts[loads[0]].more(1)[0])
        bare = Bare(folder, size.threads, size.new_tokens)
        for number in range(options.rounds + 1):
            this_round: list[tuple[tuple[str, str, int], Measured]] = []
            for load in loads:
                for at_once in options.at_once:
                    # The same for all in this round, and never again.
                    begun = texts[load].more(max(at_once, size.answers[at_once] // load.turns))
                    what = (
                        f"{size.name}: round {number} of {options.rounds}, {load.name} × {at_once}"
                    )
                    _say(what)
                    turns: dict[str, Measured] = {}
                    for server in list(servers):
                        measured = server.measure(begun, at_once, size.new_tokens, load.turns)
                        if measured is None:
                            server.stop()
                            servers.remove(server)
                        else:
                            turns[server.contestant.name] = measured
                    turns[BARE] = bare.measure(begun, at_once, load.turns)
                    turns[GENERATE] = bare.generate(begun, at_once, load.turns)
                    speeds = (f"{name} {m.tokens_per_second:.0f}" for name, m in turns.items())
                    _say(f"{what}, tokens/s: {', '.join(speeds)}", lasting=True)
                    this_round += [((name, load.name, at_once), m) for name, m in turns.items()]
            if number:  # the first round only warms up
                for key, measured in this_round:
                    figures.rounds[key].append(measured)
    except KeyboardInterrupt:
        if not figures.rounds:
            raise
        print("interrupted: what follows is of the rounds until then")
    finally:
        # Whoever sees that it is about to end, and ends it, still gets what was measured.
        heard = signal.signal(signal.SIGINT, signal.SIG_IGN)
        if bare is not None:
            bare.close()
        for server in servers:
            server.stop()
        signal.signal(signal.SIGINT, heard)
    _level(figures)
    return figures


def _level(figures: Figures) -> None:
    """Leave out what did not finish all rounds: ratios are of the same rounds."""
    most = max((len(rounds) for rounds in figures.rounds.values()), default=0)
    for key in [key for key, rounds in figures.rounds.items() if len(rounds) < most]:
        del figures.rounds[key]


def show(size: Size, figures: Figures, names: dict[str, str], at_once: Sequence[int]) -> None:
    """A table of one model."""
    print(
        f"\n{size.name} model, {size.new_tokens} new tokens: output tokens/s, "
        "p50 and p99 of the time to first token in ms, and the platform's ratio"
    )
    for load in LOADS:
        if not any(of == load.name for _, of, _ in figures.rounds):
            continue
        print(f"\n  {load.what}")
        for name, what in names.items():
            cells = []
            for number in at_once:
                rounds = figures.rounds.get((name, load.name, number))
                if not rounds:
                    continue
                p50, p99 = (
                    statistics.median(m.first_token_ms(share) for m in rounds)
                    for share in (0.5, 0.99)
                )
                ratio = figures.ratio(name, load.name, number) or 0.0
                speed = figures.speed(name, load.name, number)
                cells.append(f"{number:>3}: {speed:6.0f}  {p50:5.0f} {p99:5.0f}  {ratio:5.2f}×")
            print(f"  {what:<44}{'   '.join(cells)}")
        over = [figures.ratio(GENERATE, load.name, number, BARE) for number in at_once]
        cells = [
            f"{number:>3}: {ratio:.2f}×"
            for number, ratio in zip(at_once, over, strict=True)
            if ratio
        ]
        print(f"  {'that engine over plain generate':<44}{'   '.join(cells)}")


def main() -> None:
    options = _options()
    champion = options.model or _champion()
    results: dict[str, Any] = {
        "ratios": {},
        "figures": {},
        "machine": _machine(),
        "versions": {},
        "dtype": DTYPE,
    }
    contestants = [
        one
        for one in CONTESTANTS
        if (options.only is None or one.name in options.only) and (options.vllm or not one.vllm)
    ]
    if not options.vllm:
        print(
            "vLLM and Ray Serve LLM are left out: `make .venv-vllm/ready` makes their environment"
        )
    names = {one.name: one.what for one in contestants}
    names |= {BARE: "the platform's engine alone, in process", GENERATE: "plain batched generate"}
    with tempfile.TemporaryDirectory() as folder:
        models = make_models(champion, Path(folder))
        for size in SIZES:
            if size.name not in options.sizes:
                continue
            figures = compare(size, models[size.name], contestants, options)
            show(size, figures, names, options.at_once)
            for (name, load, at_once), rounds in figures.rounds.items():
                key = f"{size.name}_{name}_{load}_{at_once}"
                results["figures"][key] = {
                    "tokens_per_second": figures.speed(name, load, at_once),
                    "first_token_ms_p50": statistics.median(m.first_token_ms(0.5) for m in rounds),
                    "first_token_ms_p99": statistics.median(m.first_token_ms(0.99) for m in rounds),
                }
                if name != OURS and (ratio := figures.ratio(name, load, at_once)) is not None:
                    results["ratios"][f"{size.name}_over_{name}_{load}_{at_once}"] = ratio
                if name == GENERATE and (ratio := figures.ratio(name, load, at_once, BARE)):
                    results["ratios"][f"{size.name}_engine_over_generate_{load}_{at_once}"] = ratio
                if name == "vllm" and (ratio := figures.ratio(name, load, at_once, "bayling-vllm")):
                    results["ratios"][f"{size.name}_vllm_over_vllm_{load}_{at_once}"] = ratio
    results["versions"] = _versions(options.vllm)
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2), "utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found = ROOT / ".venv-vllm" / "bin" / "python"
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep everything measured")
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="default: the quickstart's")
    parser.add_argument(
        "--vllm",
        metavar="PYTHON",
        default=str(found) if found.exists() else None,
        help="of an environment with vllm; default: .venv-vllm's where it is there",
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", type=lambda text: text.split(","), metavar="NAME,…")
    parser.add_argument("--sizes", type=lambda text: text.split(","), default=["small", "large"])
    parser.add_argument(
        "--loads", type=lambda text: text.split(","), default=[load.name for load in LOADS]
    )
    parser.add_argument(
        "--at-once", type=lambda text: [int(n) for n in text.split(",")], default=[1, 8, 32]
    )
    return parser.parse_args()


def _champion() -> Path:
    """The newest model that the quickstart trained."""
    models = sorted(
        (ROOT / "outputs" / "quickstart").glob("train-*/model"), key=lambda at: at.stat().st_mtime
    )
    if not models:
        raise SystemExit("there is no quickstart's model: run `make quickstart`, or name --model")
    return models[-1]


def _machine() -> dict[str, Any]:
    import platform

    import psutil

    return {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
    }


def _versions(vllm: str | None) -> dict[str, str]:
    import importlib.metadata

    versions = {name: importlib.metadata.version(name) for name in ("ray", "torch", "transformers")}
    if vllm:
        asked = "import vllm; print(vllm.__version__)"
        done = subprocess.run([vllm, "-c", asked], capture_output=True, text=True, check=False)
        versions["vllm"] = (done.stdout.strip().splitlines() or ["unknown"])[-1]
    return versions


def _say(text: str, *, lasting: bool = False) -> None:
    end = "\r" if sys.stderr.isatty() and not lasting else "\n"
    print(f"{text:<78}", end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
