"""Systems with answers, raters' votes, and the page on a port: what tests of ratings share."""

from __future__ import annotations

import json
import resource
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette

from bayling.rating import listening
from bayling.rating.items import AnswerFile, Comparison, read
from bayling.rating.session import Session
from bayling.rating.votes import Vote

QUESTIONS: list[dict[str, Any]] = [
    {
        "id": "t1",
        "turns": ["Provide the Arabic translation for this sentence: The tea is cold."],
        "source_lang": "en",
        "target_lang": "ar",
    },
    {
        "id": "t2",
        "turns": [
            "提供这句话的德语翻译：今天天气很好。\n确保包含这些词：Wetter",
        ],
        "source_lang": "zho_simpl",
        "target_lang": "deu",
    },
    {"id": "i1", "turns": ["Name three rivers of Kenya."]},
    {
        "id": "m1",
        "turns": ["Translate into German: Good morning.", "More formal, please.", "Shorter."],
        "source_lang": "en",
        "target_lang": "de",
    },
]


def write_answers(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def answered(mark: str, questions: list[dict[str, Any]] = QUESTIONS) -> list[dict[str, Any]]:
    """The questions with answers that can be told from other systems' by their mark."""
    return [
        {**row, "outputs": [f"{mark} answers {row['id']}, {turn}" for turn in range(1, many + 1)]}
        for row in questions
        for many in [len(row["turns"])]
    ]


def compared(folder: Path, *marks: str) -> Comparison:
    """Systems called secret-MARK, whose answers begin with their mark."""
    files = [
        AnswerFile(write_answers(folder / f"secret-{mark}.jsonl", answered(mark))) for mark in marks
    ]
    return read(files)


def session_of(comparison: Comparison, folder: Path, seed: int = 1) -> Session:
    return Session(comparison, comparison.drawn(None, seed), folder / "votes.jsonl", seed)


def vote(
    ranks: Mapping[str, int],
    *,
    item: str = "1",
    rater: str = "Ana",
    bad: bool = False,
    task: str = "translation",
    comparison: str = "c",
) -> Vote:
    return Vote(
        comparison=comparison,
        suite="",
        item=item,
        task=task,
        source_lang=None,
        target_lang=None,
        rater=rater,
        shown=tuple(ranks),
        ranks=ranks,
        bad=bad,
        seconds=1.0,
        at="2026-01-01T00:00:00+00:00",
    )


@contextmanager
def on_a_port(app: Starlette) -> Iterator[str]:
    """The base URL of an app while it is served."""
    with listening.bound("127.0.0.1", 0) as socket:
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="warning"))
        thread = threading.Thread(target=server.run, args=([socket],), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield listening.link(socket, None).rstrip("/")
        finally:
            server.should_exit = True
            thread.join(10)


@contextmanager
def no_room(path: Path) -> Iterator[None]:
    """No file may grow beyond the size of this one and a few bytes, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
