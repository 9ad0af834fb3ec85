"""An engine in a process of its own.

An engine written in Python needs the interpreter between any two operations of a model, and so
does everything else in its process: with a server's event loop beside it, each waits for the
other's turn, and a small model loses a sixth of its tokens. vLLM's engine has processes, too.
Requests and tokens travel over a pair of sockets that nobody else can open; tokens that are ready
together travel together.
"""

from __future__ import annotations

import atexit
import logging
import os
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from bayling.engines.intake import Failure, Intake, Request, Text, in_short
from bayling.engines.protocol import Chunk, EngineFailed, Load, RequestRefused, Sampling, Scored
from bayling.errors import StageFailed, UserError

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.5
"""How often the engine's process looks at itself while it delivers nothing."""
_CLOSE_WITHIN_S = 10.0

Item = Chunk | list[Scored] | Failure


class _Generate(NamedTuple):
    request_id: str
    token_ids: list[int]
    sampling: Sampling
    every_s: float


class _Score(NamedTuple):
    request_id: str
    token_ids: list[int]
    top: int
    adapter: str | None


class _Cancel(NamedTuple):
    request_id: str


class _Close(NamedTuple):
    pass


class _Ready(NamedTuple):
    context_length: int
    vocab_size: int


class _News(NamedTuple):
    items: list[tuple[str, Item]]
    """By request."""
    load: Load
    trouble: str | None
    """Why the engine is to be given up, if it is."""


class EngineProcess(Intake):
    """An `Engine` that another process runs; that process ends with this object or with this
    process, whatever ends it."""

    def __init__(self, make: Callable[[], Intake]) -> None:
        """
        Args:
            make: makes the engine; called in its process, so both must be picklable.

        Raises:
            UserError, StageFailed: what `make` raised, or the process ended before it was done.
        """
        here, there = socket.socketpair()
        with there:
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"from {__name__} import run; run({there.fileno()})"],
                pass_fds=[there.fileno()],
                stdin=subprocess.DEVNULL,
                # What can be imported here can be there, too.
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                start_new_session=True,  # Ctrl-C is for this process, which takes it along
            )
        self._connection: Connection[Any, Any] = Connection(here.detach())
        self._sending = threading.Lock()
        try:
            self._send(make)
            ready = self._connection.recv()
        except (EOFError, OSError):
            code = self._process.wait()
            raise StageFailed(f"the engine's process ended with {code} before it began") from None
        except BaseException:
            self._kill()
            raise
        if isinstance(ready, Exception):
            self._kill()
            raise ready
        super().__init__(ready.context_length, ready.vocab_size)
        self._trouble = ""
        self._seen = Load(0, 0, 0.0)
        self._reader = threading.Thread(target=self._read, name="engine", daemon=True)
        self._reader.start()
        atexit.register(self.close)

    @property
    def pid(self) -> int:
        """The engine's process."""
        return self._process.pid

    def load(self) -> Load:
        known = self.ongoing()
        if not known:
            return Load(0, 0, 0.0)
        waiting = min(known, self._seen.waiting)
        return Load(known - waiting, waiting, self._seen.cache_used)

    def health(self) -> None:
        if self._trouble:
            raise EngineFailed(self._trouble)
        if self._closing:
            raise EngineFailed("the engine is closed")

    def close(self) -> None:
        with self._change:
            self._closing = True
        with suppress(OSError):
            self._send(_Close())
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_CLOSE_WITHIN_S)
        self._kill()
        self._reader.join()
        atexit.unregister(self.close)

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _send(self, message: object) -> None:
        with self._sending:
            self._connection.send(message)

    def _begin(self, requests: Sequence[Request | Text]) -> None:
        with suppress(OSError):  # it has ended: whoever reads its news fails what is known
            for one in requests:
                if isinstance(one, Request):
                    self._send(_Generate(one.id, one.token_ids, one.sampling, one.every_s))
                else:
                    self._send(_Score(one.id, one.token_ids, one.top, one.adapter))

    def _cancel(self, request: Request | Text) -> None:
        with self._change:
            known = self._known.get(request.id) is request
        if known:
            with suppress(OSError):
                self._send(_Cancel(request.id))

    def _check_own(self, request: Request) -> None:
        """Nothing: the engine itself refuses what it cannot honour."""

    def _check_adapter(self, adapter: str | None) -> None:
        """Nothing: the engine knows its adapters."""

    def _read(self) -> None:
        """Deliver what comes, until nothing does."""
        try:
            while True:
                news: _News = self._connection.recv()
                self._seen = news.load
                # First: whoever is told of a failure asks for the health.
                self._trouble = news.trouble or ""
                for request_id, item in news.items:
                    self._deliver(request_id, item)
        except (EOFError, OSError):
            pass
        except Exception as error:
            log.exception("the engine's process cannot be understood")
            self._trouble = f"the engine's process cannot be understood ({in_short(error)})"
            self._process.kill()
        code = self._process.wait()
        with self._change:
            if not self._closing:
                self._trouble = self._trouble or f"the engine's process has ended with {code}"
            self._closing = True
        reason = self._trouble or "the engine was closed while it worked on this request"
        self._fail(list(self._known.values()), reason)
        self._connection.close()

    def _deliver(self, request_id: str, item: Any) -> None:
        request = self._known.get(request_id)
        if request is None:
            return
        if not isinstance(item, Chunk) or item.finish_reason is not None:
            self._forget([request])
        request.deliver(item)


class _Child:
    """The other side: takes requests from the connection, and sends what comes of them."""

    def __init__(self, connection: Connection[Any, Any]) -> None:
        self._connection = connection
        self._items: queue.SimpleQueue[tuple[str, Item]] = queue.SimpleQueue()
        self._engine: Intake | None = None

    def run(self) -> None:
        make = self._connection.recv()
        threading.Thread(target=self._take, name="requests", daemon=True).start()
        try:
            self._engine = make()
        except (UserError, StageFailed) as error:
            self._connection.send(error)
            return
        except Exception as error:
            self._connection.send(StageFailed(f"the engine does not start ({in_short(error)})"))
            raise
        engine = self._engine
        self._connection.send(_Ready(engine.context_length, engine.vocab_size))
        while self._tell(engine):
            pass

    def _tell(self, engine: Intake) -> bool:
        """Send what there is; False where the engine has come to an end."""
        items = []
        with suppress(queue.Empty):
            items.append(self._items.get(timeout=_LOOK_EVERY_S))
            while True:
                items.append(self._items.get_nowait())
        trouble = None
        try:
            engine.health()
        except EngineFailed as error:
            trouble = str(error)
        self._connection.send(_News(items, engine.load(), trouble))
        return trouble is None

    def _take(self) -> None:
        """Do what is asked; the process ends with whoever asks."""
        try:
            while not isinstance(asked := self._connection.recv(), _Close):
                self._do(asked)
        except (EOFError, OSError):
            pass
        # Not by the interpreter's own end, which waits for threads that may be inside torch.
        os._exit(0)

    def _do(self, asked: _Generate | _Score | _Cancel) -> None:
        assert self._engine is not None  # nothing is asked before it is ready
        request_id = asked.request_id

        def deliver(item: Item) -> None:
            self._items.put((request_id, item))

        try:
            match asked:
                case _Generate(_, token_ids, sampling, every_s):
                    request = Request(request_id, token_ids, sampling, every_s, deliver)
                    self._engine.take([request])
                case _Score(_, token_ids, top, adapter):
                    self._engine.take_text(Text(request_id, token_ids, top, adapter, deliver))
                case _Cancel():
                    self._engine.cancel(request_id)
        except (RequestRefused, EngineFailed) as error:
            deliver(error)
        except Exception as error:  # whoever asked must hear of it, and others must go on
            log.exception("a request could not be begun")
            deliver(EngineFailed(f"the engine failed ({in_short(error)})"))


def run(descriptor: int) -> None:
    """What the engine's process does.

    Args:
        descriptor: of its end of the connection.
    """
    connection: Connection[Any, Any] = Connection(descriptor)
    with suppress(BrokenPipeError, ConnectionResetError):  # nobody is there any more
        _Child(connection).run()
    os._exit(1)
