"""A judge behind OpenAI's API: what it thinks of two answers is a function that a test gives."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from running import free_port

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]

    @property
    def messages(self) -> Messages:
        return self.body["messages"]

    @property
    def answers(self) -> tuple[str, str]:
        """The two assistants' answers, the turns of each in one text."""
        text = self.messages[1]["content"]
        parts = re.findall(r"=== \w+: ([^\n]*)\n(.*?)(?=\n=== )", text, re.DOTALL)
        first, second = (
            "\n".join(said.strip() for who, said in parts if who.split(",")[0].endswith(number))
            for number in (" 1", " 2")
        )
        return first, second


@dataclass(frozen=True)
class Answer:
    text: str | None = None
    """The judgement; None for none at all."""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    error: str = "not now"


class JudgeServer:
    """Where it is, and what it was asked so far."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[Asked] = []
        self.most_at_once = 0
        self.closing = threading.Event()
        """For judges that hang: waited for, it ends with the server."""


def by_merit(asked: Asked) -> Answer:
    """A judge that finds 'good' good, whoever said it."""
    first, second = (9 if "good" in text else 4 for text in asked.answers)
    return Answer(f"One is better than the other.\n[[{first}, {second}]]")


@contextmanager
def judging(thinks: Callable[[Asked, JudgeServer], Answer]) -> Iterator[JudgeServer]:
    """A judge at http://127.0.0.1:PORT/v1. It counts 100 tokens a prompt and 10 an answer."""
    port = free_port()
    server = JudgeServer(f"http://127.0.0.1:{port}/v1")
    lock = threading.Lock()
    now = 0

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            nonlocal now
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            asked = Asked(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
            with lock:
                server.asked.append(asked)
                now += 1
                server.most_at_once = max(server.most_at_once, now)
            answer = thinks(asked, server)
            with lock:
                now -= 1
            if answer.status != 200:
                said: Any = {"error": {"message": answer.error}}
            else:
                message = {"role": "assistant", "content": answer.text}
                usage = {"prompt_tokens": 100, "completion_tokens": 10}
                said = {"choices": [{"index": 0, "message": message}], "usage": usage}
            text = json.dumps(said).encode()
            try:
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)
            except OSError:
                pass  # who asked has gone

        def log_message(self, *_: object) -> None: ...

    listening = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    listening.daemon_threads = True
    threading.Thread(target=listening.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield server
    finally:
        server.closing.set()
        listening.shutdown()
        listening.server_close()
