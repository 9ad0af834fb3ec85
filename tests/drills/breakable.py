"""Engines with a way to break them from inside, for drills."""

from __future__ import annotations

import ctypes
import os
import threading
from pathlib import Path
from typing import Any

from ray import serve

from bayling.serve import deployments


class Engine(deployments.Engine):
    """Ends its engine's thread when a file appears, once, and takes the file away."""

    def __init__(self, arguments: Any, version: str) -> None:
        super().__init__(arguments, version)
        self._file = Path(os.environ["BAYLING_DRILL_BREAK"])
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            try:
                self._file.unlink()
            except FileNotFoundError:
                threading.Event().wait(0.05)
                continue
            # SystemExit out of nowhere, in the middle of whatever the thread does.
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(self._engine._thread.ident), ctypes.py_object(SystemExit)
            )
            return


def engine(arguments: dict[str, Any]) -> serve.Application:
    """As `bayling.serve.deployments.engine`."""
    deployments.Engine = Engine  # type: ignore[misc]
    return deployments.engine(arguments)
