"""Training that waits where a test wants it, so that what disturbs it comes neither late nor early.

A step of so small a model takes milliseconds: without this, a fast machine would be done before
the test had looked. `python -m held train …` is `bayling train …` with such workers.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

_FILE = "hold"


def hold(folder: Path, step: int, pause_s: float | None = None) -> None:
    """Training in `folder` waits after `step`, and before each later one: for ever or `pause_s`."""
    folder.mkdir(parents=True, exist_ok=True)
    new = folder / f".{_FILE}"
    new.write_text(f"{step} {pause_s if pause_s is not None else 'inf'}", "utf-8")
    new.replace(folder / _FILE)


def release(folder: Path) -> None:
    """It goes on as fast as it can."""
    (folder / _FILE).unlink(missing_ok=True)


def _wait(folder: Path, step: int) -> None:
    began = time.monotonic()
    while True:
        try:
            at, pause_s = (folder / _FILE).read_text("utf-8").split()
        except FileNotFoundError:
            return
        if step < int(at) or time.monotonic() - began > float(pause_s):
            return
        time.sleep(0.01)


def train_worker(config: dict[str, Any]) -> None:
    """What `bayling.train.run` has Ray run in every worker."""
    from bayling.train import loop

    class Worker(loop._Worker):
        def _step(self) -> Any:
            _wait(self.settings.folder, self.step)
            return super()._step()

    loop._Worker = Worker  # type: ignore[misc]
    loop.train_worker(config)


def main() -> None:
    """The command line."""
    import held  # not `__main__`, which the workers could not import

    from bayling import cli
    from bayling.train import run

    run.train_worker = held.train_worker
    sys.exit(cli.main())


if __name__ == "__main__":
    main()
