"""The `bayling` command: wires the parts, and is the only one that knows them all.

Heavy imports live in the functions that need them, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from bayling import __version__
from bayling.commands import (
    champion,
    data,
    job,
    key,
    model,
    plan,
    preflight,
    promote,
    rate,
    rollout,
    score,
    submit,
    translate,
)
from bayling.errors import GateRefused, StageFailed, UserError

if TYPE_CHECKING:
    from bayling.config import Config
    from bayling.pipeline import Pipeline

STAGE_HELP = {
    "data": "build conversations, held-out sets and packed tokens",
    "train": "fine-tune on the packed tokens; goes on where it was interrupted",
    "evaluate": "score the trained and the untrained model on the held-out part",
    "promote": "register the candidate and let the gate decide",
    "serve": "serve a registered model until Ctrl-C",
}
_OVERRIDES = "Hydra overrides: recipe=quickstart, scale=gpu, train.steps=100, …"
_EPILOG = """examples:
  bayling run recipe=quickstart              data → train → evaluate → promote → serve
  bayling run train.learning_rate=1e-3       only training and what comes after it runs again
  bayling run -m train.learning_rate=1e-3,2e-3
  bayling plan recipe=bayling-7b scale=cluster    what a run will take; runs nothing
  bayling submit train recipe=bayling-7b scale=cluster    the same as a job on Kubernetes
  bayling serve recipe=quickstart            then, in another terminal:
  bayling translate "in 5 days" --to sw
  bayling promote --explain recipe=quickstart     what the gate says, with examples
  bayling champion history                   who was champion, and why
  bayling rollout status                     how a new version takes over
  bayling data inspect opus/x.en             what a file is taken for, and three rows
  bayling rate a.jsonl b.jsonl               which answers do people prefer? a page in a browser
  bayling model fetch recipe=bayling-7b      base weights, to the folder that the recipe names
  bayling key new app                        a key for a server that others reach
  bayling score translation --hypotheses mine.zh --reference wmt22.zh --target-lang zh
  bayling ui                                 runs, scores and model versions in a browser

exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 the gate said no
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    # A terminal that hangs up, or an orchestrator that stops a job, is an interruption too.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        arguments = _parsed(rate.one_word(data.one_word(sys.argv[1:] if argv is None else argv)))
        return int(arguments.work(arguments) or 0)
    except (UserError, StageFailed, GateRefused) as error:
        # What a Ray worker raised is of its kind, too, but says its whole traceback.
        plain = getattr(error, "cause", None) or error
        print(f"bayling: {plain}", file=sys.stderr)
        if not isinstance(error, StageFailed):
            from bayling.cluster.last_attempt import end_for_good

            end_for_good(error.exit_code)
        return error.exit_code
    except KeyboardInterrupt:
        print("bayling: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("bayling", ""):
            raise
        print(
            f"bayling: this needs the package {error.name!r}: pip install 'bayling-platform[all]'",
            file=sys.stderr,
        )
        return 2
    except Exception as error:
        if getattr(error, "error_code", "") != "PERMISSION_DENIED":
            raise
        account = os.environ.get("MLFLOW_TRACKING_USERNAME")
        who = f"the account {account!r}" if account else "somebody without MLFLOW_TRACKING_USERNAME"
        print(
            f"bayling: MLflow does not let {who} do this ({error}): ask its administrator, or use "
            "an account that may",
            file=sys.stderr,
        )
        return 2


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _parsed(argv: Sequence[str]) -> argparse.Namespace:
    """Options and overrides in any order, which argparse alone does not take."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    words = next((name for name in ("overrides", "words") if name in arguments), None)
    if wrong := [text for text in rest if text.startswith("-") or words is None]:
        parser.error(f"unrecognized arguments: {' '.join(wrong)}")
    if words is not None:
        setattr(arguments, words, [*getattr(arguments, words), *rest])
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bayling",
        description="Takes a multilingual LLM through its whole life.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"bayling-platform {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, work: Callable[[argparse.Namespace], Any]) -> Any:
        added = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        added.set_defaults(work=work)
        return added

    for name, text in {"run": "all stages, data to serve", **STAGE_HELP}.items():
        work = _run if name == "run" else _serve if name == "serve" else _stage
        added = command(name, text, work)
        added.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=_OVERRIDES)
        if name != "serve":
            added.add_argument(
                "-m",
                "--multirun",
                action="store_true",
                help="run every combination of values (a=1,2 b=x,y), below one MLflow parent",
            )
            added.add_argument(
                "--at-once",
                type=int,
                default=1,
                metavar="N",
                help="with -m: how many combinations run side by side (default: %(default)s)",
            )
        if name == "promote":
            promote.add_options(added)
    data.register(commands)
    plan.register(commands)
    submit.register(commands)
    job.register(commands)
    preflight.register(commands)
    model.register(commands)
    key.register(commands)
    rollout.register(commands)
    champion.register(commands)
    score.register(commands)
    rate.register(commands)
    translate.register(commands)
    ui = command("ui", "the MLflow dashboard on this machine", _ui)
    ui.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="output_dir=…, tracking_uri=…"
    )
    ui.add_argument("--port", type=int, default=5000)
    command("doctor", "what is missing on this machine, and how to get it", _doctor)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    if arguments.multirun:
        return _sweep(arguments, lambda pipeline, parent: pipeline.run(parent))
    import time

    from bayling.summary import show, write

    started = time.monotonic()
    with _watched() as watcher:
        pipeline = _pipeline(_compose(arguments.overrides), watcher)
        before = pipeline.output("serve")
        outputs = pipeline.run()
    path = pipeline.config.folder / "summary.json"
    if before is None or not path.exists():
        write(path, outputs, time.monotonic() - started)
    show(path, pipeline.config)
    return 0


def _stage(arguments: argparse.Namespace) -> int:
    name = arguments.command
    if name == "promote" and promote.asked(arguments):
        return promote.run(arguments)
    if arguments.multirun:
        return _sweep(arguments, lambda pipeline, parent: pipeline.run_stage(name, parent))
    with _watched() as watcher:
        pipeline = _pipeline(_compose(arguments.overrides), watcher)
        manifest = pipeline.run_stage(name)
    from bayling.summary import stage_table

    stage_table(manifest, pipeline.folder(name), pipeline.config)
    return 0


def _sweep(arguments: argparse.Namespace, work: Callable[[Pipeline, str], Any]) -> int:
    from bayling import sweep
    from bayling.config import combinations
    from bayling.summary import sweep_table
    from bayling.watch import Plain

    if arguments.at_once < 1:
        raise UserError(f"--at-once must be at least 1, not {arguments.at_once}")
    chosen = combinations(arguments.overrides)

    def differing(one: list[str]) -> str:
        return " ".join(part for part in one if any(part not in it for it in chosen))

    # All are composed before the first one runs.
    configs = [(differing(one), _compose(one)) for one in chosen]
    with _watched() as watcher:
        together = arguments.at_once > 1
        results = sweep.run(
            configs,
            lambda overrides: Plain(overrides) if together else watcher,
            work,
            arguments.at_once,
        )
    sweep_table(results)
    failed = [result for _, result in results if isinstance(result, StageFailed | UserError)]
    return failed[0].exit_code if failed else 0


def _serve(arguments: argparse.Namespace) -> None:
    import threading
    from dataclasses import replace

    from bayling.cluster import local
    from bayling.registry import runs
    from bayling.serve import run as serving
    from bayling.serve.application import ServedModel

    config = _compose(arguments.overrides)
    serving.check_port(config.serve.host, config.serve.port)
    runs.check_reachable(config.tracking)
    recorded, registered = rollout.beginning(config)
    name, version = config.registered_model, recorded.serving
    print(f"starting {name} version {version} …", file=sys.stderr)
    served = ServedModel(config.tracking, name, {})
    # A rollout has the engines of two versions at a time.
    room = replace(
        config.scale,
        engines=2 * config.serve.max_replicas,
        cpus_per_worker=config.serve.engine_cpus,
    )
    with local.connected(config.scale, room) as take_down:
        url = serving.deploy(config.serve, served, {version: 1.0}, config.scale)
        print(f"serving {name} version {version} at {url}", file=sys.stderr)
        print(f'try: bayling translate "in 5 days" --to sw --url {url}', file=sys.stderr)
        print(f"     or open {url}/ in a browser        stop: Ctrl-C", file=sys.stderr)
        if config.serve.needs_keys:
            print(
                f"it asks for a key of {config.serve.keys_file}: `translate` takes it from "
                '$BAYLING_API_KEY,\ncurl with -H "authorization: Bearer $BAYLING_API_KEY"',
                file=sys.stderr,
            )
        try:
            arguments_of_all = serving.arguments_of(config.serve, served, config.scale)
            target = rollout.local_target(arguments_of_all)
            rollout.follow(config, target, target.ask, recorded, registered, threading.Event())
        except KeyboardInterrupt:
            print("stopping …", file=sys.stderr)
        finally:
            if take_down:
                serving.shutdown()


def _ui(arguments: argparse.Namespace) -> None:
    import subprocess

    from bayling.registry import runs
    from bayling.serve.run import check_port

    config = _compose(arguments.overrides)
    if config.tracking.startswith("http"):
        print(f"MLflow is at {config.tracking}")
        return
    runs.check_reachable(config.tracking)
    check_port("127.0.0.1", arguments.port)
    page = runs.page(config.tracking, config.experiment)
    print(f"MLflow with {config.tracking} (stop: Ctrl-C)")
    print(f"  http://127.0.0.1:{arguments.port}{page}", flush=True)
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
    command += ["--port", str(arguments.port), "--backend-store-uri", config.tracking]
    # One reader on one machine: no pool of processes, no scheduler of background jobs.
    command += ["--workers", "1", "--uvicorn-opts", "--log-level warning"]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONWARNINGS": "ignore"}
    server = subprocess.Popen(command, env={**os.environ, "MLFLOW_TRACKING_URI": "", **quiet})
    try:
        code = server.wait()
    except KeyboardInterrupt:
        server.terminate()
        server.wait(60)
        return
    if code:
        raise StageFailed(f"the MLflow server ended with code {code}")


def _doctor(arguments: argparse.Namespace) -> int:
    from bayling.doctor import examine

    return examine()


def _compose(overrides: list[str]) -> Config:
    from bayling.config import compose

    return compose(overrides)


def _pipeline(config: Config, watcher: Any) -> Pipeline:
    from bayling.pipeline import Pipeline

    return Pipeline(config, watcher)


def _watched() -> Any:
    from contextlib import closing

    from bayling.watch import watcher

    return closing(watcher())


if __name__ == "__main__":
    sys.exit(main())
