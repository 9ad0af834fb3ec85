"""Sentences that the data has more than one translation of: from files to conversations."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bayling.config import compose
from bayling.data import sourced, tables
from bayling.data.heldout import HeldOut
from bayling.data.instructions.interactive import WORDS
from bayling.data.making import CONVERSATIONS, Making
from bayling.data.passes import Passes
from bayling.languages import locale_of
from bayling.templates import Conversation

pytestmark = pytest.mark.unit

NUMBER = 60
SAID = {
    "eng": ("en", "On that day the {} of {} spoke for a long time about the harvest in {}."),
    "deu": ("de", "An jenem Tag sprach der {} von {} lange über die Ernte in {}."),
    "fra": ("fr", "Ce jour-là, le {} de {} a longuement parlé de la récolte en {}."),
    "zho_simpl": ("zh", "那一天，{}（{}）就{}的收成谈了很久。"),
}
WHO = {
    "en": ("minister", "mayor", "ambassador"),
    "de": ("Minister", "Bürgermeister", "Botschafter"),
    "fr": ("ministre", "maire", "ambassadeur"),
    "zh": ("部长", "市长", "大使"),
}
COUNTRIES = [
    code
    for code in sorted(locale_of("en").territories)
    if code.isalpha() and all(code in locale_of(tag).territories for tag in WHO)
]


def sentence(name: str, number: int) -> str:
    tag, form = SAID[name]
    named = locale_of(tag).territories
    one, other = COUNTRIES[number], COUNTRIES[-1 - number]
    return form.format(WHO[tag][number % 3], named[one], named[other])


class Here(Passes):
    """Without Ray, and in whichever order."""

    def __init__(self, order: Callable[[list[Any]], list[Any]]) -> None:
        super().__init__(SimpleNamespace(report=lambda *_: None))  # type: ignore[arg-type]
        self._order = order

    def each(self, what: str, items: Any, work: Any) -> list[Any]:
        made = {at: work(items[at]) for at in self._order(list(range(len(items))))}
        return [made[at] for at in range(len(items))]


def conversations(
    folder: Path,
    source: str,
    *given: str,
    order: Callable[[list[Any]], list[Any]] = list,
) -> tuple[list[Conversation], HeldOut]:
    config = compose(
        [
            "recipe=smoke",
            f"data.sources=[{{path:{source},origin:x}}]",
            "data.languages=[en,de,fr,zh]",
            "data.conversations=5000",
            "data.heldout_per_direction=2",
            "data.max_turns=6",
            "data.mixture.tasks.translate=0",
            "data.mixture.tasks.constrained=0",
            "data.mixture.tasks.interactive=1",
            *given,
        ]
    )
    config.data.validate()
    context: Any = SimpleNamespace(
        folder=folder, seed=1, report=lambda *_: None, note=lambda _: None
    )
    tests = HeldOut()
    passes = Here(order)
    gathered = sourced.gather(config.data, context, tests, passes)
    making = Making(config.data, 1, folder)
    passes.each(
        "conversations",
        range(len(gathered.names)),
        lambda number: making.from_rows(
            number, gathered.names[number], gathered.uses, folder / sourced.HELD_OUT
        ),
    )
    paths = sorted((folder / CONVERSATIONS).glob("*.parquet"))
    return [row for path in paths for row in tables.read_conversations(path)], tests


def asks_for(row: Conversation, kind: str) -> bool:
    forms = [form.partition("{") for words in WORDS.values() for form in words[kind]]
    return any(
        turn.content.startswith(before) and turn.content.endswith(rest.rpartition("}")[2])
        for turn in row.messages[2::2]
        for before, _, rest in forms
    )


@pytest.fixture
def flores(tmp_path: Path) -> Path:
    folder = tmp_path / "devtest"
    folder.mkdir()
    for name in SAID:
        lines = [sentence(name, number) for number in range(NUMBER)]
        (folder / f"{name}.devtest").write_text("\n".join(lines) + "\n", "utf-8")
    return folder


def test_aligned_files_in_several_languages_give_turns_into_another_one(
    flores: Path, tmp_path: Path
) -> None:
    rows, tests = conversations(tmp_path / "out", str(flores))
    asked = [row for row in rows if asks_for(row, "language")]
    assert len(asked) > 20
    of_line = {
        sentence(name, number): (tag, number)
        for name, (tag, _) in SAID.items()
        for number in range(NUMBER)
    }
    others = 0
    for row in asked:
        answers = [turn.content for turn in row.messages[1::2] if turn.content in of_line]
        assert len({of_line[answer][1] for answer in answers}) < 2, "of one sentence"
        for tag in {of_line[answer][0] for answer in answers} - {row.source_lang, row.target_lang}:
            others += 1
            # Directions without English or Chinese are left to transfer here, too.
            assert {row.source_lang, tag} & {"en", "zh"}
    assert others > 20
    held = {row["source"] for row in tests.translate}
    assert held
    said = [turn.content for row in rows for turn in row.messages]
    assert not any(text in one for one in said for text in held)


def test_two_files_in_two_languages_give_none(flores: Path, tmp_path: Path) -> None:
    for name in ("fra", "zho_simpl"):
        (flores / f"{name}.devtest").unlink()
    rows, _ = conversations(tmp_path / "out", str(flores))
    assert len(rows) > 20
    for kind in ("language", "register", "require", "forbid"):
        assert not any(asks_for(row, kind) for row in rows)


def test_the_order_of_the_work_makes_no_difference(flores: Path, tmp_path: Path) -> None:
    """Partitions are cut within a row's pairs, and are worked on backwards."""
    made = [
        conversations(tmp_path / name, str(flores), "data.partition_size=25", order=order)
        for name, order in (("one", list), ("other", lambda items: items[::-1]))
    ]
    assert made[0][0] == made[1][0]
    assert made[0][1].digest == made[1][1].digest
    assert any(asks_for(row, "language") for row in made[0][0])


def test_rows_of_two_registers_give_turns_into_the_other(tmp_path: Path) -> None:
    """However little they differ in; and nobody adds a sentence to itself."""
    rows = [
        {
            "source": sentence("eng", number).replace("On that day", "Do you know that"),
            "target": f"{you} {sentence('deu', number)}",
            "register": register,
        }
        for number in range(NUMBER)
        for you, register in (("Wissen Sie das?", "formal"), ("Weißt du das?", "informal"))
    ]
    path = tmp_path / "you.en-de.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    made, _ = conversations(tmp_path / "out", str(path))
    asked = [row for row in made if asks_for(row, "register")]
    assert len(asked) > 10
    for row in asked:
        assert {row.source_lang, row.target_lang} == {"en", "de"}
    for row in made:
        said = "\n".join(turn.content for turn in row.messages[::2])
        assert all(said.count(one["source"]) < 2 for one in rows)


def test_conversations_that_are_held_out_may_have_another_language(
    flores: Path, tmp_path: Path
) -> None:
    """Their sentences in every language are held out, where the conversation has them."""
    rows, tests = conversations(
        tmp_path / "out",
        str(flores),
        "data.heldout_per_direction=30",
        "data.heldout_interactive=99",
    )
    asked = [row for row in tests.interactive if asks_for(row, "language")]
    assert asked
    answers = {turn.content for row in asked for turn in row.messages[1::2]}
    assert not answers & {turn.content for row in rows for turn in row.messages}
