from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sources import PAIRS, pairs, rejected, rows, write, write_json_lines, write_parquet

from bayling.data.sources import Pair, Question, Rejected, Talk, open_source, source_config
from bayling.errors import UserError
from bayling.requirements import Requirement

pytestmark = pytest.mark.unit

EXPECTED = [("en", "de", *pair) for pair in PAIRS]
ASKED = [("user", "Say hi."), ("assistant", "Hi!")]


def _lines(path: Path, records: list[Any]) -> Path:
    return write_json_lines(path.parent / f"{path.name}.jsonl", records)


def _array(path: Path, records: list[Any]) -> Path:
    text = json.dumps(records, ensure_ascii=False, indent=1)
    return write(path.parent / f"{path.name}.json.gz", text, "gzip")


STORED = [_lines, _array, lambda path, records: write_parquet(path, records)]
Store = Callable[[Path, list[Any]], Path]


def _said(row: object) -> list[tuple[str, str]]:
    assert isinstance(row, Talk), row
    return [(message.role, message.content) for message in row.messages]


@pytest.mark.parametrize("store", STORED)
def test_pairs_are_told_by_their_keys(tmp_path: Path, store: Store) -> None:
    forms: list[list[dict[str, Any]]] = [
        [{"translation": {"en": a, "de": b}} for a, b in PAIRS],
        [{"en": a, "de": b, "id": 3} for a, b in PAIRS],
        [{"source": a, "target": b, "source_lang": "eng", "target_lang": "deu"} for a, b in PAIRS],
    ]
    for number, form in enumerate(forms):
        assert pairs(store(tmp_path / f"form{number}", form)) == EXPECTED
    for form in ([{"src": a, "tgt": b} for a, b in PAIRS],):
        assert pairs(store(tmp_path / "valid.en-de", form)) == EXPECTED


@pytest.mark.parametrize("store", STORED)
@pytest.mark.parametrize(
    "record",
    [
        {"messages": [{"role": role, "content": text} for role, text in ASKED]},
        {"messages": [{"role": r, "content": [{"type": "text", "text": t}]} for r, t in ASKED]},
        {"id": "x", "conversations": [{"from": "human", "value": "Say hi."},
                                      {"from": "gpt", "value": "Hi!"}]},
        {"conversations": [{"from": "human", "value": "Say hi."},
                           {"from": "assistant", "value": "Hi!"}]},  # BELLE
        {"instruction": "Say hi.", "input": "", "output": "Hi!"},
        {"instruction": "Human:Say hi.\nAssistant:", "input": "", "output": "Hi!"},
        {"prompt": "Say hi.", "response": "Hi!"},
        {"instruction": "Say hi.", "instances": [{"input": "", "output": "Hi!"}]},
    ],
)  # fmt: skip
def test_conversations_are_told_by_their_keys(
    tmp_path: Path, store: Store, record: dict[str, Any]
) -> None:
    first, second = rows(store(tmp_path / "talk", [record, record]))
    assert _said(first) == _said(second) == ASKED


def test_an_input_is_part_of_the_question_and_a_history_comes_before_it(tmp_path: Path) -> None:
    path = _lines(
        tmp_path / "a",
        [
            {"instruction": "Translate.", "input": "Haus", "output": "house",
             "system": "Be brief.", "history": [["Hi.", "Hello."]]},
            {"instruction": "Human: a\nAssistant: b\nHuman: c\nAssistant: ", "output": "d"},
        ],
    )  # fmt: skip
    first, second = rows(path)
    assert _said(first) == [
        ("system", "Be brief."),
        ("user", "Hi."),
        ("assistant", "Hello."),
        ("user", "Translate.\nHaus"),
        ("assistant", "house"),
    ]
    assert _said(second) == [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]


@pytest.mark.parametrize("store", STORED)
def test_our_own_conversations_keep_their_requirements_and_what_they_are(
    tmp_path: Path, store: Store
) -> None:
    own = {
        "id": "c1",
        "messages": [
            {"role": "user", "content": "Provide …",
             "requirements": [{"kind": "contains", "values": ["Haus"]}]},
            {"role": "assistant", "content": "Haus", "requirements": []},
        ],
        "task": "constrained", "source_lang": "en", "target_lang": "de", "origin": "cldr",
    }  # fmt: skip
    [talk] = rows(store(tmp_path / "own", [own]))
    assert isinstance(talk, Talk)
    assert talk.messages[0].requirements == (Requirement("contains", ("Haus",)),)
    assert talk.id == "c1"
    assert talk.note == {
        "task": "constrained",
        "source_lang": "en",
        "target_lang": "de",
        "origin": "cldr",
    }


def test_constraints_are_words_of_the_target(tmp_path: Path) -> None:
    path = _lines(
        tmp_path / "constraints.en-zh",
        [
            {
                "src": "Your order is late.",
                "tgt": "您点的餐会晚到。",
                "constraint": ["晚到", "点的餐"],
            }
        ],
    )
    [pair] = rows(path)
    assert isinstance(pair, Pair)
    assert (pair.source_lang, pair.target_lang) == ("en", "zh")
    assert pair.terms == (("", "晚到"), ("", "点的餐"))


@pytest.mark.parametrize(
    ("record", "turns"),
    [
        ({"question_id": 1, "text": "Why?", "category": "x"}, ("Why?",)),
        ({"question_id": 1, "text": ["Why?", "How?"], "category": "x"}, ("Why?", "How?")),
        ({"question_id": 1, "category": "x", "turns": ["Why?"]}, ("Why?",)),
        (
            {"passage": None, "question": "Why?", "options": ["(A)a", "(B)b"], "label": "A"},
            ("Why?\n(A)a\n(B)b",),
        ),
    ],
)
def test_questions_are_read_where_they_are_wanted_and_no_source_of_training(
    tmp_path: Path, record: dict[str, Any], turns: tuple[str, ...]
) -> None:
    config = source_config(str(_lines(tmp_path / "suite", [record, record])))
    with pytest.raises(
        UserError, match=r"an evaluation suite, which belongs into evaluate\.suites"
    ):
        open_source(config)
    suite = open_source(config, questions=True)
    [part] = suite.files
    first, _ = suite.rows(part)
    assert isinstance(first, Question)
    assert first.turns == turns


def test_malformed_lines_are_rejected_with_line_and_reason(tmp_path: Path) -> None:
    good = json.dumps({"translation": {"en": "a", "de": "b"}})
    lines = [
        good,
        '{"translation": {"en": "cut of',
        "",
        '["a", "list"]',
        '{"translation": {"en": "alone"}}',
        '{"translation": {"en": "half \\ud83d", "de": "of a pair"}}',
        '{"translation": {"en": "whole \\ud83d\\ude00", "de": "pair"}}',
        '{"other": 1}',
        good,
    ]
    path = write(tmp_path / "a.jsonl", "\n".join(lines))  # no newline at the end
    found = rejected(path)
    assert [line for line, _ in found] == [2, 4, 5, 6, 8]
    assert "no JSON: Unterminated string" in found[0][1]
    assert found[1][1] == "a list, not an object with keys"
    assert "half of a character" in found[3][1]
    good_ones = [row for row in rows(path) if isinstance(row, Pair)]
    assert [row.place.line for row in good_ones] == [1, 7, 9]
    assert good_ones[1].source == "whole 😀"


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([("user", "Hi")], "the last message has no answer"),
        ([("assistant", "Hi"), ("user", "?"), ("assistant", "!")], "must take turns"),
        ([("user", "Hi"), ("user", "?"), ("assistant", "!")], "must take turns"),
        ([("user", "Hi"), ("tool", "x"), ("assistant", "!")], "the role 'tool'"),
        ([("user", "Hi"), ("assistant", None)], "message 2 has no text"),
        ([("user", "Hi"), ("assistant", " ")], "the answer is empty"),
    ],
)
def test_conversations_that_cannot_be_learnt_from_are_rejected(
    tmp_path: Path, messages: list[tuple[str, Any]], reason: str
) -> None:
    good = [{"role": role, "content": text} for role, text in ASKED]
    bad = [{"role": role, "content": text} for role, text in messages]
    path = _lines(tmp_path / "a", [{"messages": good}, {"messages": bad}, {"messages": good}])
    [(line, said)] = rejected(path)
    assert line == 2
    assert reason in said


def test_rows_of_an_array_are_numbered_and_a_broken_byte_spoils_one(tmp_path: Path) -> None:
    text = b'[{"en": "a", "de": "b"}, {"en": "caf\xe9", "de": "c"}, {"en": "d", "de": "e"}]'
    path = write(tmp_path / "a.json", text)
    assert rejected(path) == [(2, "a byte in it is no UTF-8")]
    assert [row.place.line for row in rows(path)] == [1, 2, 3]


def test_an_array_that_breaks_off_is_an_error_that_names_the_row(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", '[{"en": "a", "de": "b"}, {"en": "c", "de": "d"}, {"en": ')
    with pytest.raises(UserError, match=r"a\.json is no JSON after row 2 "):
        rows(path)


def test_a_broken_text_in_parquet_spoils_its_row_only(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    raw = pa.array([b"a", b"caf\xe9", b"c"])
    text = pa.StringArray.from_buffers(3, raw.buffers()[1], raw.buffers()[2])
    pq.write_table(pa.table({"en": text, "de": pa.array(["x", "y", "z"])}), tmp_path / "a.parquet")
    found = rows(tmp_path / "a.parquet")
    assert [type(row) for row in found] == [Pair, Rejected, Pair]
    assert rejected(tmp_path / "a.parquet") == [(2, "a byte in it is no UTF-8")]
