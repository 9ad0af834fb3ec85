"""A client for `/v1/translations` and `/v1/chat/completions`.

Where the server asks for a key, it is taken from the environment: on a command line it would be
for everybody on the machine to read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from bayling.errors import UserError

API_KEY = "BAYLING_API_KEY"
"""The environment variable with the key."""


@dataclass(frozen=True)
class GlossaryUse:
    """What became of one glossary term."""

    term: str
    translation: str
    applicable: bool
    """Whether the text has the term."""
    used: bool


@dataclass(frozen=True)
class Translated:
    """An answer of the model, and which version of it made it."""

    text: str
    finish_reason: str
    model_version: str
    source: str | None = None
    source_detected: bool = False
    target: str | None = None
    glossary: tuple[GlossaryUse, ...] = ()


def translate(
    url: str,
    text: str,
    target: str | None,
    source: str | None = None,
    instructions: str | None = None,
    history: Sequence[Mapping[str, str]] | None = None,
    *,
    timeout_s: float = 120.0,
) -> Translated:
    """Ask a served model for a translation, or, after a history, for its next refinement.

    Args:
        url: the server's base URL, such as http://127.0.0.1:8000.
        target: a language code; may be None after a history.
        history: the turns before, each with `role` and `content`.

    Raises:
        UserError: the server does not answer, or answers with an error.
    """
    body: dict[str, Any] = {"text": text, "target": target, "source": source}
    if instructions is not None:
        body["instructions"] = instructions
    if history:
        body["history"] = [dict(turn) for turn in history]
    [translated] = _translations(url, body, timeout_s)
    return translated


def translate_all(
    url: str,
    texts: Sequence[str],
    targets: Sequence[str],
    source: str | None = None,
    instructions: str | None = None,
    glossary: Mapping[str, str | Mapping[str, str]] | None = None,
    *,
    timeout_s: float = 600.0,
) -> list[Translated]:
    """Translations of several texts into several languages, in one request.

    Args:
        glossary: term → translation, or term → language code → translation.

    Returns:
        Those of the first text in the order of the targets, then those of the second one, ….

    Raises:
        UserError: the server does not answer, or answers with an error.
    """
    body: dict[str, Any] = {"text": list(texts), "target": list(targets), "source": source}
    if instructions is not None:
        body["instructions"] = instructions
    if glossary:
        body["glossary"] = dict(glossary)
    return _translations(url, body, timeout_s)


def _translations(url: str, body: dict[str, Any], timeout_s: float) -> list[Translated]:
    response = _post(url, "/v1/translations", body, timeout_s)
    version = response.headers.get("x-bayling-model-version", "")
    try:
        return [
            Translated(
                str(answer["text"]),
                str(answer["finish_reason"]),
                version,
                source=answer["source"],
                source_detected=bool(answer["source_detected"]),
                target=answer["target"],
                glossary=tuple(
                    GlossaryUse(
                        use["term"], use["translation"], bool(use["applicable"]), bool(use["used"])
                    )
                    for use in answer["glossary"]
                ),
            )
            for answer in response.json()["translations"]
        ]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{url} does not answer like a BayLing server") from None


def _told(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return response.reason_phrase or "no reason given"


def chat(
    url: str,
    model: str,
    messages: Sequence[Mapping[str, str]],
    *,
    max_tokens: int | None = None,
    timeout_s: float = 120.0,
) -> Translated:
    """Ask a served model to go on in a conversation.

    Raises:
        UserError: the server does not answer, or answers with an error.
    """
    body: dict[str, Any] = {"model": model, "messages": [dict(message) for message in messages]}
    if max_tokens is not None:
        body["max_tokens"] = max_tokens
    response = _post(url, "/v1/chat/completions", body, timeout_s)
    try:
        [choice] = response.json()["choices"]
        return Translated(
            str(choice["message"]["content"]),
            str(choice["finish_reason"]),
            response.headers.get("x-bayling-model-version", ""),
        )
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{url} does not answer like a BayLing server") from None


def _post(url: str, path: str, body: dict[str, Any], timeout_s: float) -> httpx.Response:
    key = os.environ.get(API_KEY, "").strip()
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        # trust_env=False: a proxy meant for the outside would be asked for this machine.
        with httpx.Client(timeout=timeout_s, trust_env=False) as client:
            response = client.post(f"{url.rstrip('/')}{path}", json=body, headers=headers)
    except httpx.TimeoutException:
        raise UserError(f"{url} did not answer within {timeout_s:g} s") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise UserError(
            f"nothing answers at {url} ({error}): start a server with `bayling serve`"
        ) from None
    if response.status_code == 401:
        raise UserError(f"{url}: {_told(response)}; it is taken from {API_KEY}")
    if not response.is_success:
        raise UserError(f"{url} answered {response.status_code}: {_told(response)}")
    return response
