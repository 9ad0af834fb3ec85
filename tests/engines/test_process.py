"""What only an engine in a process of its own has: that process comes, goes and breaks."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
import pytest
from tiny_model import DEVICE

from bayling.engines.options import EngineOptions
from bayling.engines.process import EngineProcess
from bayling.engines.protocol import EngineFailed, Sampling
from bayling.engines.transformers import TransformersEngine
from bayling.errors import StageFailed, UserError

SMALL = EngineOptions(device=DEVICE, dtype="float32", max_batch=4, threads=1)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def _asked(engine: EngineProcess, then: Callable[[], None]) -> list[str]:
    """What each of six long requests, of which two wait, ends with; `then` once they are on."""

    async def ask(number: int) -> str:
        try:
            async for _ in engine.generate(f"long-{number}", [5, 6, 7], Sampling(3000)):
                pass
        except EngineFailed as error:
            return str(error)
        return "answered"

    tasks = [asyncio.create_task(ask(number)) for number in range(6)]
    while engine.load().running < 4:
        await asyncio.sleep(0.01)
    then()
    return await asyncio.gather(*tasks)


def test_when_its_process_is_killed_requests_fail_and_its_health_says_so(
    model_folder: Path,
) -> None:
    engine = EngineProcess(partial(TransformersEngine, model_folder, SMALL))
    engine.health()
    answers = asyncio.run(_asked(engine, lambda: os.kill(engine.pid, signal.SIGKILL)))
    assert answers == ["the engine's process has ended with -9"] * 6
    assert engine.ongoing() == 0
    with pytest.raises(EngineFailed, match="ended with -9"):
        engine.health()
    with pytest.raises(EngineFailed, match="ended with -9"):
        engine.generate_all([[5]], Sampling(1))
    engine.close()


def _mortal(folder: Path, order: Path) -> TransformersEngine:
    """One whose thread ends when a file appears."""
    engine = TransformersEngine(folder, SMALL)

    def watch() -> None:
        while not order.exists():
            time.sleep(0.01)
        thread = ctypes.c_ulong(engine._thread.ident or 0)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(SystemExit))

    threading.Thread(target=watch, daemon=True).start()
    return engine


def test_when_its_thread_ends_the_reason_arrives_and_the_process_goes(
    model_folder: Path, tmp_path: Path
) -> None:
    order = tmp_path / "order"
    engine = EngineProcess(partial(_mortal, model_folder, order))
    answers = asyncio.run(_asked(engine, order.touch))
    assert answers == ["the engine ended (SystemExit)"] * 6
    with pytest.raises(EngineFailed, match="SystemExit"):
        engine.health()
    wait_until(lambda: not psutil.pid_exists(engine.pid))
    engine.close()


def test_closing_ends_the_process_and_fails_what_it_worked_on(model_folder: Path) -> None:
    engine = EngineProcess(partial(TransformersEngine, model_folder, SMALL))
    answers = asyncio.run(_asked(engine, threading.Thread(target=engine.close).start))
    assert answers == ["the engine was closed while it worked on this request"] * 6
    wait_until(lambda: not psutil.pid_exists(engine.pid))
    with pytest.raises(EngineFailed, match="closed"):
        engine.health()


def test_what_its_making_raises_is_raised_here(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json"):
        EngineProcess(partial(TransformersEngine, tmp_path, SMALL))


def _unexpected() -> TransformersEngine:
    raise ZeroDivisionError("never seen before")


def _fatal() -> TransformersEngine:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def test_one_that_does_not_come_up_says_why_as_far_as_that_is_known() -> None:
    with pytest.raises(StageFailed, match=r"does not start \(ZeroDivisionError: never seen"):
        EngineProcess(_unexpected)
    with pytest.raises(StageFailed, match="ended with -9 before it began"):
        EngineProcess(_fatal)


def _slow() -> TransformersEngine:
    time.sleep(600)
    raise AssertionError("unreachable")


_OWNER = """
import os, sys, threading, time
from functools import partial
from pathlib import Path
import test_process
from bayling.engines.process import EngineProcess
from bayling.engines.transformers import TransformersEngine

if sys.argv[1] == "slow":
    EngineProcess(test_process._slow)
engine = EngineProcess(partial(TransformersEngine, Path(sys.argv[1]), test_process.SMALL))
print("up", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("loaded", [True, False], ids=["loaded", "loading"])
def test_it_goes_with_its_owner_whatever_ends_that(model_folder: Path, loaded: bool) -> None:
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER, str(model_folder) if loaded else "slow"],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": paths},
    )
    if loaded:
        assert owner.stdout is not None and owner.stdout.readline() == b"up\n"
    children = lambda: psutil.Process(owner.pid).children(recursive=True)  # noqa: E731
    wait_until(lambda: bool(children()))
    [child] = children()
    owner.kill()
    owner.wait()
    wait_until(lambda: not child.is_running())
