"""A judge behind an OpenAI-compatible API, asked over a network and a service that may fail."""

from __future__ import annotations

import asyncio
import os
import random
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from urllib.parse import urlsplit

import httpx

from bayling.errors import UserError
from bayling.evaluate.chat.config import JudgeConfig
from bayling.evaluate.chat.prompts import Messages

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0
_LONGEST_ASKED_FOR_S = 600.0
"""A service that asks for a longer pause is not coming back for this evaluation."""
_LOCAL = ("127.0.0.1", "localhost", "::1")
_MISCONFIGURED = (301, 302, 303, 307, 308, 401, 403, 404, 405)
"""Answers that no other question would change."""
_PASSING = (408, 425, 429)


class Unanswered(Exception):
    """The judge gave no answer to this question; the message says why."""


@dataclass(frozen=True)
class Reply:
    text: str
    """Empty where the service answered with something else than a text."""
    prompt_tokens: int
    completion_tokens: int
    """Zero where the service does not say."""


class Judge:
    """Asks one question at a time, or many side by side. For use in `async with`."""

    def __init__(self, config: JudgeConfig) -> None:
        """
        Raises:
            UserError: the key cannot be sent.
        """
        self._config = config
        self._key = os.environ.get(config.key_variable, "").strip()
        if not self._key.isascii() or not self._key.isprintable():
            raise UserError(f"${config.key_variable} holds no key: it has other than ASCII letters")
        self._client = httpx.AsyncClient(
            headers={"authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=None,  # of the whole answer, below; httpx's are between two bytes of it
            limits=httpx.Limits(max_connections=config.concurrency),
            # A proxy meant for the outside would be asked for this machine.
            trust_env=urlsplit(config.endpoint).hostname not in _LOCAL,
        )

    async def __aenter__(self) -> Judge:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._client.aclose()

    async def ask(self, messages: Messages) -> Reply:
        """The judge's answer, at temperature 0.

        What may pass – 429, 5xx, a time-out, a broken connection – is tried again, after pauses
        that double and differ by chance, or are as long as the service asks for.

        Raises:
            Unanswered: there was none after all tries, or the service refuses this question.
            UserError: the service refuses every question.
        """
        tries = self._config.retries + 1
        for number in range(tries):
            wanted: float | None = None
            try:
                async with asyncio.timeout(self._config.timeout_s):
                    response = await self._client.post(
                        self._config.endpoint, json=self._body(messages)
                    )
            except TimeoutError:
                reason = f"no answer within {self._config.timeout_s:g} s"
            except httpx.RequestError as error:
                reason = str(error) or type(error).__name__
            else:
                if response.status_code == 200:
                    return _reply(response)
                reason = f"{response.status_code}: {self._told(response)}"
                self._refuse(response.status_code, reason)
                wanted = _retry_after(response)
            if wanted is not None and wanted > _LONGEST_ASKED_FOR_S:
                raise Unanswered(f"{reason} (asks to wait for {wanted:.0f} s)")
            if number + 1 < tries:
                await asyncio.sleep(_pause(number, wanted))
        raise Unanswered(f"{reason} ({tries} {'try' if tries == 1 else 'tries'})")

    def _body(self, messages: Messages) -> dict[str, object]:
        return {
            "model": self._config.model,
            "messages": messages,
            "temperature": 0,
            "max_tokens": self._config.max_tokens,
        }

    def _refuse(self, status: int, reason: str) -> None:
        """Raise for an answer that another try would not change."""
        if status in _MISCONFIGURED:
            key = f"; its key is taken from ${self._config.key_variable}"
            raise UserError(
                f"the judge at {self._config.endpoint} answers {reason}"
                + (key if status in (401, 403) else "")
            )
        if status not in _PASSING and status < 500:
            raise Unanswered(reason)

    def _told(self, response: httpx.Response) -> str:
        """What the service says of an error, without the key, which some repeat."""
        try:
            text = str(response.json()["error"]["message"])
        except (ValueError, KeyError, TypeError):
            text = response.reason_phrase or "no reason given"
        return text.replace(self._key, "…") if self._key else text


def _reply(response: httpx.Response) -> Reply:
    try:
        body = response.json()
        text = body["choices"][0]["message"]["content"]
    except (ValueError, KeyError, TypeError, IndexError):
        return Reply("", 0, 0)
    usage = body.get("usage")
    told = usage if isinstance(usage, dict) else {}
    prompt, completion = told.get("prompt_tokens"), told.get("completion_tokens")
    return Reply(
        text if isinstance(text, str) else "",
        prompt if isinstance(prompt, int) else 0,
        completion if isinstance(completion, int) else 0,
    )


def _pause(number: int, wanted: float | None) -> float:
    """Seconds to wait after a try; by chance a little longer than asked for, so that those which
    were refused together do not come back together."""
    if wanted is not None:
        return wanted * random.uniform(1.0, 1.1)
    longest: float = min(_FIRST_PAUSE_S * 2**number, _LONGEST_PAUSE_S)
    return longest * random.uniform(0.5, 1.0)


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds that the service asks to wait: it may name a number or a time."""
    text = response.headers.get("retry-after", "")
    try:
        seconds = float(text)
    except ValueError:
        try:
            until = parsedate_to_datetime(text)
        except ValueError:
            return None
        seconds = (until.astimezone(UTC) - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if seconds == seconds else None
