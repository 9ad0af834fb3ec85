"""What tests of whole stages share: free ports, and a pipeline that ran to its end."""

from __future__ import annotations

import random
import socket
from dataclasses import dataclass, field
from pathlib import Path

from bayling.config import Config, compose
from bayling.pipeline import Pipeline
from bayling.stage import Manifest

_given_out: set[int] = set()


def free_port() -> int:
    """A port on localhost that nothing listens on, and that the system gives to nobody unasked.

    Those it gives out by itself (from 32768 on) go to Ray's and gloo's connections, one of which
    might take the port before the test does.
    """
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in _given_out:
            _given_out.add(port)
            return port


@dataclass
class Recorder:
    """A watcher that remembers which stages ran and which were skipped."""

    ran: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def preparing(self, what: str) -> None:
        self.said.append(what)

    def stage(self, name: str, position: str) -> None:
        self.said.append(f"{position} {name}")

    def progress(self, what: str, done: float, of: float) -> None:
        self.said.append(what)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def done(self, name: str, manifest: Manifest, folder: Path) -> None:
        self.ran.append(name)

    def skipped(self, name: str, manifest: Manifest, folder: Path) -> None:
        self.kept.append(name)


@dataclass(frozen=True)
class Finished:
    """A pipeline that ran to its end."""

    config: Config
    overrides: list[str]
    outputs: dict[str, Manifest]
    recorder: Recorder

    def pipeline(self, *more: str) -> tuple[Pipeline, Recorder]:
        """The same pipeline with more overrides, and a fresh recorder."""
        recorder = Recorder()
        return Pipeline(compose([*self.overrides, *more]), recorder), recorder

    def folder(self, stage: str) -> Path:
        return Pipeline(self.config, self.recorder).folder(stage)
