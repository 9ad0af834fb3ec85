"""Engines with a way to break them from inside, for drills."""

from __future__ import annotations

import ctypes
import os
import threading
from pathlib import Path
from typing import Any

from ray import serve

from bayling.engines.intake import Intake
from bayling.engines.options import EngineOptions
from bayling.serve import deployments, replica_engine

_whole = replica_engine.load_here


def load_here(folder: Path, options: EngineOptions, replica: str) -> Intake:
    """An engine whose thread ends when a file appears, once; the file is taken away."""
    engine = _whole(folder, options, replica)
    file = Path(os.environ["BAYLING_DRILL_BREAK"])

    def watch() -> None:
        while True:
            try:
                file.unlink()
            except FileNotFoundError:
                threading.Event().wait(0.05)
                continue
            # SystemExit out of nowhere, in the middle of whatever the thread does.
            thread = ctypes.c_ulong(engine._thread.ident)  # type: ignore[attr-defined]
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(SystemExit))
            return

    threading.Thread(target=watch, daemon=True).start()
    return engine


class Engine(deployments.Engine):
    """A replica with such an engine."""

    def __init__(self, arguments: Any, version: str) -> None:
        replica_engine.load_here = load_here
        super().__init__(arguments, version)


def engine(arguments: dict[str, Any]) -> serve.Application:
    """As `bayling.serve.deployments.engine`."""
    deployments.Engine = Engine  # type: ignore[misc]
    return deployments.engine(arguments)
