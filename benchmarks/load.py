"""Streams of chat completions over HTTP, so many at a time, with as little work as possible.

The client shares the machine with the server, so it reads bytes, looks for the first text and
for the end, and parses nothing else.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

Messages = list[dict[str, str]]
_TEXT = re.compile(rb'"content": ?"[^"]')
_PIECE = re.compile(rb'"content": ?("(?:[^"\\]|\\.)*")')
_COUNT = re.compile(rb'"completion_tokens": ?(\d+)')


class Failed(Exception):
    """A server answered otherwise than it should."""


@dataclass(frozen=True)
class Measured:
    """What came of one round of requests."""

    tokens: int
    seconds: float
    first_token_s: list[float]
    """Time to the first text of each answer."""

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds

    def first_token_ms(self, share: float) -> float:
        """The time to the first text that this share of the requests stays below."""
        ordered = sorted(self.first_token_s)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@dataclass(frozen=True)
class Target:
    """A server that speaks OpenAI's API on this machine."""

    port: int
    model: str
    """What it calls the model."""


def measure(
    target: Target, begun: Sequence[str], at_once: int, new_tokens: int, turns: int = 1
) -> Measured:
    """Have conversations over `at_once` connections that stay open.

    Args:
        begun: what the user says first in each.
        turns: how many answers each has.

    Raises:
        Failed: an answer is an error, or has another length than asked for.
    """
    return asyncio.run(_measure(target, begun, at_once, new_tokens, turns))


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def refined(messages: Messages, answer: str) -> None:
    """Add an answer and the user's next wish."""
    messages += [
        {"role": "assistant", "content": answer},
        user(f"Shorter, please, for the {len(messages)}th time."),
    ]


async def _measure(
    target: Target, begun: Sequence[str], at_once: int, new_tokens: int, turns: int
) -> Measured:
    left = iter(begun)
    first_token_s: list[float] = []
    tokens = 0

    async def client() -> None:
        nonlocal tokens
        reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
        try:
            for text in left:
                messages = [user(text)]
                for turn in range(turns):
                    body = {
                        "model": target.model,
                        "messages": messages,
                        "stream": True,
                        "stream_options": {"include_usage": True},
                        "max_tokens": new_tokens,
                        "temperature": 0,
                    }
                    made, first, got = await _stream(reader, writer, body)
                    # Within one: some count the token that they stopped at, or leave it out.
                    if abs(made - new_tokens) > 1:
                        raise Failed(f"an answer has {made} tokens instead of {new_tokens}")
                    tokens += made
                    first_token_s.append(first)
                    if turn + 1 < turns:
                        refined(messages, _text(got))
        finally:
            writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(at_once)))
    return Measured(tokens, time.perf_counter() - began, first_token_s)


async def _stream(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: dict[str, object]
) -> tuple[int, float, bytes]:
    """One streamed answer: its tokens, the seconds to its first text, and all that came."""
    content = json.dumps(body).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    began = time.perf_counter()
    writer.write(head.encode() + content)
    got = b""
    first: float | None = None
    while not got.endswith(b"0\r\n\r\n"):
        part = await asyncio.wait_for(reader.read(2**16), 300)
        got += part
        if first is None and _TEXT.search(got):
            first = time.perf_counter() - began
        if not part or (b"[DONE]" not in got and not got.startswith(b"HTTP/1.1 200")):
            raise Failed(got[-500:].decode(errors="replace"))
    counts = _COUNT.findall(got)
    if first is None or not counts:
        raise Failed(f"no text, or no usage: {got[-500:].decode(errors='replace')}")
    return int(counts[-1]), first, got


def _text(got: bytes) -> str:
    """An answer's text."""
    return "".join(json.loads(piece) for piece in _PIECE.findall(got))
