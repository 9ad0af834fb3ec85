"""Whatever is sent, the server answers it or says what is wrong with it; it never breaks."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tiny_server import small

from bayling.scale import ScaleConfig
from bayling.serve import run
from bayling.serve.application import ServedModel

BODIES = 10_000
SEED = 20_230_619

VALID: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "model": "bayling",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Good morning"},
            {"role": "assistant", "content": "Guten Morgen"},
            {"role": "user", "content": [{"type": "text", "text": "Now in Chinese."}]},
        ],
        "max_tokens": 3,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 7,
        "n": 2,
        "stop": ["\n", "Ende"],
        "logprobs": True,
        "top_logprobs": 2,
        "stream": False,
        "response_format": {"type": "text"},
        "user": "somebody",
    },
    "/v1/completions": {
        "model": "bayling@7",
        "prompt": ["Good morning", "Guten Morgen"],
        "max_tokens": 3,
        "temperature": 0.0,
        "logprobs": 2,
        "echo": True,
        "stop": "\n",
        "stream": False,
    },
    "/v1/translations": {
        "model": "bayling",
        "text": ["Good morning", "in 5 days"],
        "target": ["de", "zh"],
        "source": "en",
        "glossary": {"morning": {"de": "Morgen"}},
        "instructions": "Use the formal address.",
        "max_tokens": 3,
        "prompt_language": "en",
        "stream": False,
    },
}


RAW = [
    b"",
    b"null",
    b"[]",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"model":' * 50_000,
    b'{"model": "bayling", "seed": ' + b"1" * 10_000 + b"}",
    b'{"model": "bayling", "messages": "' + b"x" * 300_000 + b'"}',
]
"""What is hardly a body at all."""


def nested(depth: int, leaf: Any) -> Any:
    for _ in range(depth):
        leaf = [leaf]
    return leaf


ODD: list[Callable[[random.Random], Any]] = [
    lambda rng: None,
    lambda rng: rng.choice([True, False]),
    lambda rng: rng.choice([0, -1, 1, 2**31, -(2**63), 2**63, 10**400]),
    lambda rng: rng.choice([0.0, -0.0, 1e-300, 1e308, -2.5, float("nan"), float("inf")]),
    lambda rng: rng.choice(["", " ", "\0", "\ud800", "bayling", "a" * 3000, "🙂" * 50, "[NAME]"]),
    lambda rng: rng.choice(["</s>", "<s>", "### Response:", "de", "xx-Yyyy-ZZ", "auto", "\u202e"]),
    lambda rng: [],
    lambda rng: {},
    lambda rng: nested(rng.choice([1, 5, 500]), rng.choice([1, "x", None])),
    lambda rng: {"role": "user", "content": "x"},
    lambda rng: [rng.randrange(-2, 700) for _ in range(rng.randrange(5))],
    lambda rng: [["x"], [1], None],
    lambda rng: {str(number): number for number in range(rng.choice([1, 2000]))},
]
"""What can stand in any place."""


def places(body: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value in a body."""
    keys = body if isinstance(body, dict) else range(len(body)) if isinstance(body, list) else ()
    for key in keys:
        yield (*path, key)
        if len(path) < 8:
            yield from places(body[key], (*path, key))


def mutated(rng: random.Random, body: dict[str, Any]) -> bytes:
    """A body with up to four things changed, and perhaps its bytes as well."""
    body = deepcopy(body)
    for _ in range(rng.choice([0, 1, 1, 1, 2, 4])):
        *way, key = rng.choice(list(places(body)) or [("model",)])
        inside: Any = body
        for step in way:
            inside = inside[step]
        change = rng.random()
        if change < 0.2:
            del inside[key]
        elif change < 0.3 and isinstance(inside, dict):
            inside[rng.choice(["stream", "n", "tools", "best_of", "x" * 50])] = rng.choice(ODD)(rng)
        else:
            inside[key] = rng.choice(ODD)(rng)
    text = json.dumps(body).encode("utf-8", "surrogatepass")
    if rng.random() < 0.15:
        cut = rng.randrange(len(text))
        noise = bytes(rng.randrange(256) for _ in range(rng.randrange(4)))
        text = text[:cut] + noise + text[cut + rng.randrange(8) :]
    return text


@pytest.fixture(scope="module")
def server(ray_cluster: None, model_folder: Path) -> Iterator[str]:
    """Takes on as many requests as the test has at a time."""
    config = replace(
        small(),
        max_batch=16,
        max_ongoing_requests=512,
        max_queued_requests=512,
        max_new_tokens=3,
    )
    served = ServedModel("sqlite:///unused", "bayling", {"7": str(model_folder)})
    yield run.deploy(config, served, {"7": 1.0}, ScaleConfig())
    run.shutdown()


def test_no_body_of_ten_thousand_breaks_the_server(server: str) -> None:
    rng = random.Random(SEED)
    paths = rng.choices(list(VALID), k=BODIES)
    bodies = [(path, mutated(rng, VALID[path])) for path in paths]
    bodies += [(path, body) for path in VALID for body in RAW]
    statuses: Counter[int] = Counter()
    broken: list[tuple[str, bytes, str]] = []

    async def ask(http: httpx.AsyncClient, path: str, body: bytes) -> None:
        headers = {"content-type": "application/json"}
        response = await http.post(path, content=body, headers=headers)
        statuses[response.status_code] += 1
        if response.status_code >= 500:
            broken.append((path, body[:300], response.text[:300]))
        elif response.status_code >= 400:
            error = response.json()["error"]
            assert error["message"] and error["type"], response.text

    async def everything() -> None:
        waiting = iter(bodies)

        async def work(http: httpx.AsyncClient) -> None:
            for path, body in waiting:
                await ask(http, path, body)

        async with httpx.AsyncClient(base_url=server, timeout=60, trust_env=False) as http:
            await asyncio.gather(*(work(http) for _ in range(16)))

    asyncio.run(everything())
    assert broken == []
    assert set(statuses) <= {200, 400, 404, 413, 429}
    assert statuses[200] > BODIES / 20, statuses
    assert statuses[400] > BODIES / 20, statuses
    for path, body in VALID.items():
        assert httpx.post(f"{server}{path}", json=body, timeout=60).status_code == 200


def test_the_server_keeps_to_its_own_description(server: str) -> None:
    schema = schemathesis.openapi.from_url(f"{server}/openapi.json")
    asked: Counter[str] = Counter()
    for found in schema.include(path_regex="^/(v1|healthz|readyz)").get_all_operations():
        operation = found.ok()

        @settings(max_examples=60, deadline=None, derandomize=True, database=None)
        @given(case=operation.as_strategy())
        def keeps_to_it(case: Any) -> None:
            asked[case.operation.label] += 1
            case.call_and_validate(
                checks=(
                    not_a_server_error,
                    status_code_conformance,
                    content_type_conformance,
                    response_schema_conformance,
                )
            )

        keeps_to_it()
    assert asked["POST /v1/translations"] >= 30 and len(asked) == 7, asked
