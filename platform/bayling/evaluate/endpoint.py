"""Answers from a server with OpenAI's API: this platform's, or anybody's."""

from __future__ import annotations

import asyncio
import os
import random
from typing import Any

import httpx

from bayling.errors import StageFailed, UserError
from bayling.evaluate.config import EvaluateConfig
from bayling.evaluate.decoding import Decoding
from bayling.evaluate.suite import Row

_TRIES = 6
_LONGEST_WAIT_S = 30.0
_TIMEOUT = httpx.Timeout(300.0, connect=10.0)


def served(url: str, key_variable: str) -> Any:
    """What the server at an address says that it serves.

    Raises:
        UserError: it does not answer.
    """
    base, _ = _parts(url)
    try:
        answer = httpx.get(f"{base}/v1/models", headers=_headers(key_variable), timeout=10.0)
        answer.raise_for_status()
        return sorted(json_id(one) for one in answer.json()["data"])
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
        raise UserError(f"no OpenAI-compatible server answers at {base} ({error})") from None


def json_id(model: dict[str, Any]) -> str:
    """A model of `/v1/models` in a word, without what differs from call to call."""
    return " ".join(str(model.get(key, "")) for key in ("id", "root", "version"))


class Endpoint:
    """A server that is asked for chat completions, several at a time.

    Who asks too much (429) or meets a server in trouble waits, as long as the server says or twice
    as long each time, and asks again.
    """

    def __init__(self, url: str, config: EvaluateConfig) -> None:
        self._base, model = _parts(url)
        self._headers = _headers(config.endpoint_key_variable)
        self._concurrency = config.endpoint_concurrency
        self._model = model or self._only_model()

    def answer(self, rows: list[Row], decoding: Decoding) -> tuple[list[Row], int]:
        """The rows with an answer to every turn, and how many tokens the server counted.

        Raises:
            UserError: the server cannot decode as asked, or refuses a request.
            StageFailed: it did not answer, after several tries.
        """
        if decoding.beams > 1:
            raise UserError("evaluate.beams: a server does not search with beams; set it to 1")
        return asyncio.run(self._answer(rows, decoding))

    async def _answer(self, rows: list[Row], decoding: Decoding) -> tuple[list[Row], int]:
        slots = asyncio.Semaphore(self._concurrency)
        async with httpx.AsyncClient(headers=self._headers, timeout=_TIMEOUT) as client:

            async def one(row: Row) -> tuple[Row, int]:
                messages: list[dict[str, str]] = []
                outputs, tokens = [], 0
                async with slots:
                    for turn in row["turns"]:
                        messages.append({"role": "user", "content": turn})
                        text, made = await self._ask(client, messages, decoding)
                        messages.append({"role": "assistant", "content": text})
                        outputs.append(text)
                        tokens += made
                return {**row, "outputs": outputs}, tokens

            answered = await asyncio.gather(*(one(row) for row in rows))
        return [row for row, _ in answered], sum(tokens for _, tokens in answered)

    async def _ask(
        self, client: httpx.AsyncClient, messages: list[dict[str, str]], decoding: Decoding
    ) -> tuple[str, int]:
        body = {
            "model": self._model,
            "messages": messages,
            "max_tokens": decoding.max_new_tokens,
            "temperature": decoding.temperature,
            "seed": decoding.seed,
        }
        trouble = ""
        for attempt in range(_TRIES):
            wait = min(_LONGEST_WAIT_S, 2.0**attempt) * random.uniform(0.5, 1.0)
            try:
                answer = await client.post(f"{self._base}/v1/chat/completions", json=body)
            except httpx.TransportError as error:
                trouble = str(error) or type(error).__name__
            else:
                if answer.status_code == 200:
                    made = answer.json()
                    text = made["choices"][0]["message"]["content"] or ""
                    return text, int((made.get("usage") or {}).get("completion_tokens", 0))
                trouble = f"{answer.status_code} {_reason(answer)}"
                if answer.status_code == 400 and "context" in _reason(answer):
                    return "", 0  # the conversation has grown beyond it: an empty answer
                if answer.status_code not in (408, 409, 429) and answer.status_code < 500:
                    raise UserError(f"{self._base} refuses: {trouble}")
                wait = _asked_for(answer) or wait
            if attempt + 1 < _TRIES:
                await asyncio.sleep(wait)
        raise StageFailed(
            f"{self._base} gave no answer in {_TRIES} tries (the last: {trouble}); what was "
            "answered is kept, and the same command goes on from there"
        )

    def _only_model(self) -> str:
        try:
            answer = httpx.get(f"{self._base}/v1/models", headers=self._headers, timeout=10.0)
            answer.raise_for_status()
            return str(answer.json()["data"][0]["id"])
        except (httpx.HTTPError, ValueError, KeyError, IndexError, TypeError) as error:
            raise UserError(f"{self._base} does not say what it serves ({error})") from None


def _parts(url: str) -> tuple[str, str]:
    """The server's address without `/v1`, and the model's name, if it stands after a `#`."""
    base, _, model = url.partition("#")
    return base.rstrip("/").removesuffix("/v1"), model


def _headers(variable: str) -> dict[str, str]:
    key = os.environ.get(variable)
    return {"authorization": f"Bearer {key}"} if key else {}


def _asked_for(answer: httpx.Response) -> float | None:
    try:
        return min(_LONGEST_WAIT_S, float(answer.headers["retry-after"]))
    except (KeyError, ValueError):
        return None


def _reason(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:200]
