"""What a person sees while stages run: a moving line on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bayling.stage import Manifest

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

_LOG_EVERY_SECONDS = 10.0
_OF_SUITES = {
    "translation": ("chrf", ".1f"),
    "constrained": ("constraints_met", ".0%"),
    "knowledge": ("accuracy", ".1%"),
    "harness": ("accuracy", ".1%"),
    "chat": ("score_ratio", ".1%"),
    "safety": ("satisfied", ".0%"),
}
"""Suite → the figure that stands for it in half a line, and how it is written."""


def watcher() -> Plain | Terminal:
    """A moving display where standard error is a terminal, plain lines elsewhere."""
    return Terminal() if sys.stderr.isatty() else Plain()


class Plain:
    """One line when a stage begins, now and then while it works, and when it ends.

    Args:
        which: put before every line, where several run side by side.
    """

    def __init__(self, which: str = "") -> None:
        self._which = f"[{which}] " if which else ""
        self._name = ""
        self._said = 0.0
        self._pace = _Pace()

    def preparing(self, what: str) -> None:
        """Not worth a line in a log: no stage has begun."""

    def stage(self, name: str, position: str) -> None:
        self._name, self._said = name, time.monotonic()
        self._pace = _Pace()
        self._line(f"{name} {position}".strip() + " begins")

    def progress(self, what: str, done: float, of: float) -> None:
        left = self._pace.left(done, of)
        if time.monotonic() - self._said < _LOG_EVERY_SECONDS:
            return
        self._said = time.monotonic()
        share = f" {100 * done / of:.0f} %" if of else ""
        ahead = f" · {duration(left)} left" if left else ""
        self._line(f"{self._name}{share} · {what}{ahead}".removeprefix(" · "))

    def note(self, text: str) -> None:
        self._line(f"{self._name} · {text}".removeprefix(" · "))

    def done(self, name: str, manifest: Manifest, folder: Path) -> None:
        self._line(f"{name} done in {manifest.seconds:.0f} s · {summary(manifest)}")

    def skipped(self, name: str, manifest: Manifest, folder: Path) -> None:
        self._line(f"{name} unchanged, skipped · {summary(manifest)}")

    def close(self) -> None:
        """Nothing to take down."""

    def _line(self, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {self._which}{text}", file=sys.stderr, flush=True)


class _Pace:
    """How fast something goes on that is done piece by piece."""

    def __init__(self) -> None:
        self._of, self._first, self._since, self._last = 0.0, 0.0, 0.0, 0.0

    def left(self, done: float, of: float) -> float | None:
        """Seconds that are left at the pace so far; None where there is none yet."""
        now = time.monotonic()
        # What goes back to a checkpoint has a pace of its own from there on, and what begins has
        # none before something is done: workers that start take as long as hundreds of steps.
        if of != self._of or done < self._last or not self._first:
            self._of, self._first, self._since = of, done, now
        self._last = done
        gained = done - self._first
        return (of - done) * (now - self._since) / gained if of and gained > 0 else None


def duration(seconds: float) -> str:
    """`40 s`, `12 min` or `3 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


class Terminal:
    """A progress bar for the stage at work, a line for each that is done."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console: Console = Console(stderr=True)
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._title = ""

    def preparing(self, what: str) -> None:
        if self._title != "preparing":
            self.stage("preparing", "")
        self.progress(what, 0, 0)

    def stage(self, name: str, position: str) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.progress import TimeRemainingColumn as Remaining

        self.close()
        self._title = f"{position} {name}".strip()
        self._progress = Progress(
            TextColumn("[bold]{task.fields[title]}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            Remaining(),
            TextColumn("{task.description}"),
            console=self._console,
            transient=True,
        )
        self._progress.start()
        self._task = self._progress.add_task("", title=self._title, total=None)

    def progress(self, what: str, done: float, of: float) -> None:
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, description=what, completed=done, total=of or None)

    def note(self, text: str) -> None:
        from rich.markup import escape

        self._console.print(f"[yellow]•[/] {escape(text)}", highlight=False, soft_wrap=True)

    def done(self, name: str, manifest: Manifest, folder: Path) -> None:
        self.close()
        self._console.print(
            f"[green]✓[/] [bold]{name}[/] in {manifest.seconds:.0f} s · {summary(manifest)}",
            highlight=False,
        )
        self._console.print(f"  [dim]{folder}[/]", highlight=False, soft_wrap=True)

    def skipped(self, name: str, manifest: Manifest, folder: Path) -> None:
        self.close()
        self._console.print(
            f"[dim]–[/] [bold]{name}[/] unchanged, skipped · {summary(manifest)}", highlight=False
        )

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def summary(manifest: Manifest) -> str:
    """A stage's outcome in half a line."""
    counts, results = manifest.counts, manifest.results
    if manifest.stage == "data":
        dropped = sum(manifest.dropped.values())
        return (
            f"{counts['conversations']:,} conversations ({dropped:,} dropped), "
            f"{counts['tokens']:,} tokens in {counts['sequences']:,} sequences, "
            f"{counts['fill']:.0%} full"
        )
    if manifest.stage == "train":
        mfu = f", MFU {results['mfu']:.0%}" if results.get("mfu") else ""
        return (
            f"{counts['steps']:,} steps, loss {results['loss']:.3f}, "
            f"{results['tokens_per_second']:,.0f} tokens/s{mfu}"
        )
    if manifest.stage == "evaluate":
        parts = []
        if "chrf" in results:
            before = results.get("chrf_untrained")
            beside = "" if before is None else f" (untrained {before:.1f})"
            parts.append(f"chrF++ {results['chrf']:.1f}{beside}")
            parts.append(f"exact {results['exact_match']:.0%}")
        if "chrf_zero_shot" in results:
            parts.append(f"zero-shot chrF++ {results['chrf_zero_shot']:.1f}")
        if "interactive_satisfaction" in results:
            parts.append(f"interactive {results['interactive_satisfaction']:.0%}")
        for name, (figure, form) in _OF_SUITES.items():
            if f"{name}_{figure}" in results:
                parts.append(f"{name} {results[f'{name}_{figure}']:{form}}")
        return ", ".join(parts)
    if manifest.stage == "promote":
        word = "accepted as champion" if results["accepted"] else "refused"
        if "override" in results:
            word = "promoted although refused"
        return f"version {results['version']} {word}, against the {results['baseline']}"
    return f"version {results['version']} answered {len(results['translations'])} requests"
