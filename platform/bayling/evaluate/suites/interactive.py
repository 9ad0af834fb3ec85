"""Interactive translation: conversations whose every turn asks for things that are checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bayling.errors import UserError
from bayling.evaluate import conversing
from bayling.evaluate.answers import read_lines
from bayling.evaluate.config import EvaluateConfig
from bayling.evaluate.decoding import Decoding
from bayling.evaluate.files import found, read_rows
from bayling.evaluate.suite import Row, Scored
from bayling.requirements import CHECKERS
from bayling.stage import Context


class Interactive:
    """Conversations that the model leads with its own answers; the user's turns are given."""

    def __init__(self, name: str, rows: Sequence[Row], decoding: Decoding) -> None:
        self.name = name
        self.decoding = decoding
        self.questions: Sequence[Row] = [
            {
                **row,
                "turns": [one["content"] for one in row["messages"] if one["role"] == "user"],
            }
            for row in rows
        ]

    def score(self, rows: Sequence[Row]) -> Scored:
        return conversing.score(rows)


def suite(config: EvaluateConfig, context: Context) -> Interactive:
    if config.interactive.files:
        rows = read_conversations(config.interactive.files, "evaluate.interactive.files")
        return Interactive("interactive", rows, config.decoding)
    folder, data = context.upstream("data")
    rows = read_lines(folder / data.outputs["heldout_interactive"])
    return Interactive("interactive", rows, config.decoding)


def read_conversations(patterns: Sequence[str], key: str) -> list[Row]:
    """Rows of `id` and `messages`, as the data stage writes them: each user message has
    `requirements` of a `kind` and its `values`, and answers may stand between.

    Raises:
        UserError: a row is not like that, a kind is unknown, or two rows have one id.
    """
    rows: dict[str, Row] = {}
    for path in found(patterns, key):
        for number, row in read_rows(path):
            where = f"{path}, line {number}"
            messages = row.get("messages")
            if not isinstance(messages, list) or not messages:
                raise UserError(f"{where}: 'messages' must be a list of turns")
            for message in messages:
                _check(message, where)
            name = str(row.get("id", f"{path.name}:{number}"))
            if name in rows:
                raise UserError(f"{where}: the id {name!r} is taken by an earlier row")
            rows[name] = {**row, "id": name}
    return list(rows.values())


def _check(message: Any, where: str) -> None:
    if (
        not isinstance(message, dict)
        or message.get("role") not in ("user", "assistant")
        or not isinstance(message.get("content"), str)
    ):
        raise UserError(f"{where}: a message needs role (user or assistant) and content")
    for item in message.get("requirements") or []:
        kind = item.get("kind") if isinstance(item, dict) else None
        if kind not in CHECKERS:
            raise UserError(
                f"{where}: no requirement is of the kind {kind!r}; there are {', '.join(CHECKERS)}"
            )
        if not isinstance(item.get("values", []), list):
            raise UserError(f"{where}: the values of a requirement are a list")
        item.setdefault("values", [])
