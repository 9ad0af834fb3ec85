"""Conversations whose turns ask for things that a machine can check: which of them were met.

`requirements` has the checkers, which the data stage builds conversations with.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
import sacrebleu

from bayling.evaluate.samples import Sample, share
from bayling.evaluate.suite import ALL, Row, Scored
from bayling.requirements import Requirement, satisfied

_BROKEN = 8
_OF_A_MOMENT = ("changed", "shorter")
"""Kinds that are about the answer before: no later turn has to meet them."""
TITLES = {
    "satisfied": "turns with every requirement met",
    "first_turn": "… first turns",
    "later_turns": "… later turns",
    "wishes_kept": "earlier wishes that still hold",
    "conversations": "conversations with every turn met",
    "exact": "answers that are the true one",
    "final_chrf": "chrF++ of the last answer",
}


def score(rows: Sequence[Row]) -> Scored:
    """Score rows with `messages`, whose user turns carry requirements, and `outputs`.

    An answer is checked as the model gave it, after its own earlier ones; items are conversations.
    `satisfied` counts turns whose requirements are all met; `wishes_kept` counts, in each turn, the
    requirements that an earlier turn had too; `final_chrf` compares the last answer with the true
    one. The groups are `all` and one for each kind of requirement.
    """
    if not rows:
        return Scored()
    scored = Scored()
    turns = [_met(row) for row in rows]
    whole = [[all(met for _, met in turn) for turn in conversation] for conversation in turns]
    of_all: dict[str, Sample] = {
        "satisfied": share([sum(met) for met in whole], [len(met) for met in whole]),
        "first_turn": share([met[0] for met in whole]),
        "later_turns": share([sum(met[1:]) for met in whole], [len(met) - 1 for met in whole]),
    }
    kept = [_kept(conversation) for conversation in turns]
    if any(number for _, number in kept):
        of_all["wishes_kept"] = share([met for met, _ in kept], [number for _, number in kept])
    of_all["conversations"] = share([all(met) for met in whole])
    true = [_true(row) for row in rows]
    if all(len(texts) == len(row["outputs"]) for texts, row in zip(true, rows, strict=True)):
        exact = [
            sum(a.strip() == b.strip() for a, b in zip(row["outputs"], texts, strict=True))
            for row, texts in zip(rows, true, strict=True)
        ]
        of_all["exact"] = share(exact, [len(texts) for texts in true])
        chrf = sacrebleu.CHRF(word_order=2)._extract_corpus_statistics(
            [row["outputs"][-1].strip() for row in rows], [[texts[-1] for texts in true]]
        )
        of_all["final_chrf"] = Sample("chrf", np.asarray(chrf, dtype=np.float64))
    scored.samples[ALL] = of_all
    scored.groups[ALL] = {"kind": "overall", "conversations": len(rows)}
    for kind in sorted({item.kind for one in turns for turn in one for item, _ in turn}):
        counts = [
            [met for turn in conversation for item, met in turn if item.kind == kind]
            for conversation in turns
        ]
        scored.samples[kind] = {
            "satisfied": share([sum(met) for met in counts], [len(met) for met in counts])
        }
        scored.groups[kind] = {"kind": "requirement"}
    scored.details = {"broken": _broken(rows, turns)}
    return scored


_Turn = list[tuple[Requirement, bool]]


def _met(row: Row) -> list[_Turn]:
    """For each turn its requirements, and whether the answer meets them."""
    users = [message for message in row["messages"] if message["role"] == "user"]
    previous: str | None = None
    turns = []
    for user, output in zip(users, row["outputs"], strict=True):
        wanted = [
            Requirement(item["kind"], tuple(item["values"]))
            for item in user.get("requirements") or []
        ]
        turns.append([(item, satisfied(item, output, previous)) for item in wanted])
        previous = output
    return turns


def _kept(turns: list[_Turn]) -> tuple[int, int]:
    """How many of the wishes of earlier turns that a turn still has are met, and how many are."""
    before: set[Requirement] = set()
    met = number = 0
    for turn in turns:
        for item, holds in turn:
            if item in before and item.kind not in _OF_A_MOMENT:
                number += 1
                met += holds
        before.update(item for item, _ in turn)
    return met, number


def _true(row: Row) -> list[str]:
    return [message["content"] for message in row["messages"] if message["role"] == "assistant"]


def _broken(rows: Sequence[Row], turns: Sequence[list[_Turn]]) -> list[dict[str, Any]]:
    """Conversations in which something was not met, one of each kind first, to be read."""
    by_kind: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row, conversation in zip(rows, turns, strict=True):
        missed = [[item for item, met in turn if not met] for turn in conversation]
        first = next((items[0].kind for items in missed if items), None)
        if first is None:
            continue
        true = _true(row)
        users = [message["content"] for message in row["messages"] if message["role"] == "user"]
        by_kind[first].append(
            {
                "id": row["id"],
                "source_lang": row.get("source_lang"),
                "target_lang": row.get("target_lang"),
                "turns": [
                    {
                        "user": user,
                        "output": output,
                        "reference": true[index] if index < len(true) else None,
                        "missed": [
                            {"kind": item.kind, "values": list(item.values)} for item in items
                        ],
                    }
                    for index, (user, output, items) in enumerate(
                        zip(users, row["outputs"], missed, strict=True)
                    )
                ],
            }
        )
    in_turn = zip_longest(*by_kind.values())
    return [one for those in in_turn for one in those if one is not None][:_BROKEN]
