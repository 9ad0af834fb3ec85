from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from bayling.data import heldout
from bayling.data.config import DataConfig, trained_directions, zero_shot_directions
from bayling.errors import UserError
from bayling.languages import in_script

pytestmark = pytest.mark.unit

LANGUAGES = ["en", "zh", "de", "ru", "sw"]
CONFIG = DataConfig(languages=LANGUAGES, heldout_per_direction=10, heldout_interactive=20)


@pytest.fixture(scope="module")
def tests() -> heldout.HeldOut:
    return heldout.build(CONFIG, 1)


def test_every_direction_has_the_same_number_of_sentences(tests: heldout.HeldOut) -> None:
    counts = Counter((row["source_lang"], row["target_lang"]) for row in tests.translate)
    assert set(counts) == {*trained_directions(LANGUAGES), *zero_shot_directions(LANGUAGES)}
    assert set(counts.values()) == {CONFIG.heldout_per_direction}


def test_only_directions_without_english_and_chinese_are_zero_shot(tests: heldout.HeldOut) -> None:
    for row in tests.translate:
        pivot = {"en", "zh"} & {row["source_lang"], row["target_lang"]}
        assert row["zero_shot"] == (not pivot)
    assert any(row["zero_shot"] for row in tests.translate)


def test_a_direction_covers_every_kind_of_value(tests: heldout.HeldOut) -> None:
    kinds = Counter(row["kind"] for row in tests.translate)
    assert set(kinds) == {"date", "relative", "quantity", "money", "list"}


def test_a_direction_asks_nothing_twice_and_ids_differ(tests: heldout.HeldOut) -> None:
    asked = {(row["source_lang"], row["target_lang"], row["source"]) for row in tests.translate}
    assert len(asked) == len(tests.translate)
    assert len({row["id"] for row in tests.translate}) == len(tests.translate)


def test_a_row_holds_what_its_scoring_needs(tests: heldout.HeldOut) -> None:
    for row in tests.translate:
        assert row["prompt"].endswith(row["source"])
        assert in_script(row["target"], row["target_lang"])
        assert row["target_lang"] not in row["in_other_languages"]
        assert row["in_other_languages"][row["source_lang"]] == row["source"]
        assert {row["target"], *row["in_other_languages"].values()} <= tests.texts


def test_interactive_conversations_are_of_trained_directions(tests: heldout.HeldOut) -> None:
    assert len(tests.interactive) == CONFIG.heldout_interactive
    trained = trained_directions(LANGUAGES)
    for row in tests.interactive:
        assert row.task == "interactive"
        assert (row.source_lang, row.target_lang) in trained
        assert {m.content for m in row.messages if m.role == "assistant"} <= tests.texts


def test_the_digest_names_the_test_set(tests: heldout.HeldOut) -> None:
    assert heldout.build(CONFIG, 1).digest == tests.digest
    assert heldout.build(CONFIG, 2).digest != tests.digest
    smaller = DataConfig(languages=LANGUAGES, heldout_per_direction=9, heldout_interactive=20)
    assert heldout.build(smaller, 1).digest != tests.digest


def test_the_files_can_be_read_as_json_lines(tests: heldout.HeldOut, tmp_path: Path) -> None:
    heldout.write(tests, tmp_path)
    lines = (tmp_path / heldout.TRANSLATE_FILE).read_text("utf-8").splitlines()
    assert [json.loads(line) for line in lines] == tests.translate
    first = json.loads((tmp_path / heldout.INTERACTIVE_FILE).open(encoding="utf-8").readline())
    assert first["messages"][0]["role"] == "user"
    assert first["messages"][0]["requirements"][0]["kind"] == "script"
    assert "\\u" not in "".join(lines)  # a person can read it


def test_what_the_loss_is_measured_on_has_the_answers_and_no_zero_shot_direction(
    tests: heldout.HeldOut, tmp_path: Path
) -> None:
    heldout.write(tests, tmp_path)
    rows = heldout.as_conversations(tmp_path)
    trained = [row for row in tests.translate if not row["zero_shot"]]
    assert len(rows) == len(trained) + len(tests.interactive)
    for row, made in zip(trained, rows, strict=False):
        assert made.id == row["id"]
        assert [message.role for message in made.messages] == ["user", "assistant"]
        assert made.messages[0].content == row["prompt"]
        assert made.messages[1].content == row["target"]
    for before, made in zip(tests.interactive, rows[len(trained) :], strict=True):
        assert (made.id, made.task) == (before.id, before.task)
        assert [m.content for m in made.messages] == [m.content for m in before.messages]


def test_no_interactive_conversations_can_be_asked_for() -> None:
    config = DataConfig(languages=["en", "zh"], heldout_per_direction=2, heldout_interactive=0)
    assert heldout.build(config, 1).interactive == []


def test_a_language_that_cldr_hardly_knows_is_tested_on_the_kinds_it_has() -> None:
    config = DataConfig(languages=["en", "yav"], heldout_per_direction=6, heldout_interactive=0)
    rows = heldout.build(config, 1).translate
    assert Counter(row["target_lang"] for row in rows) == {"en": 6, "yav": 6}
    assert "relative" not in {row["kind"] for row in rows}


def test_a_direction_without_any_text_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(*_: object) -> None:
        raise heldout.cldr.NotInCldr("nothing")

    monkeypatch.setattr(heldout.cldr, "write", lacking)
    config = DataConfig(languages=["en", "de"], heldout_per_direction=1)
    with pytest.raises(UserError, match=r"en → de: take one of them out of data\.languages"):
        heldout.build(config, 1)
