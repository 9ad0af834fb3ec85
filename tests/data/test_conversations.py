from __future__ import annotations

from collections import Counter

import pytest

from bayling.data import cldr, conversations, heldout
from bayling.data.cldr import Sentence, Value
from bayling.data.config import PIVOTS, DataConfig, trained_directions, zero_shot_directions
from bayling.languages import in_script, name_of
from bayling.requirements import all_satisfied
from bayling.templates import Conversation, check_turns

pytestmark = pytest.mark.unit

SEED = 1
LANGUAGES = ["en", "zh", "de", "ru", "ar", "sw"]
CONFIG = DataConfig(languages=LANGUAGES, interactive_share=0.5)
ROWS = 2000


def made(count: int, config: DataConfig = CONFIG, seed: int = SEED) -> list[Conversation]:
    rows = []
    for index in range(count):
        try:
            rows.append(conversations.build(index, config, seed))
        except conversations.Dropped:
            continue
    return rows


@pytest.fixture(scope="module")
def rows() -> list[Conversation]:
    return made(ROWS)


@pytest.fixture(scope="module")
def tests() -> heldout.HeldOut:
    return heldout.build(
        DataConfig(languages=LANGUAGES, heldout_per_direction=12, heldout_interactive=40), SEED
    )


def answers(row: Conversation) -> list[str]:
    return [message.content for message in row.messages if message.role == "assistant"]


def test_most_rows_become_conversations(rows: list[Conversation]) -> None:
    assert len(rows) > 0.9 * ROWS
    tasks = Counter(row.task for row in rows)
    assert set(tasks) == {"translate", "interactive"}
    assert 0.35 < tasks["interactive"] / len(rows) < 0.65


def test_training_directions_have_english_or_chinese_on_one_side() -> None:
    trained, untrained = trained_directions(LANGUAGES), zero_shot_directions(LANGUAGES)
    assert len(trained) + len(untrained) == len(LANGUAGES) * (len(LANGUAGES) - 1)
    assert not set(trained) & set(untrained)
    assert all(source in PIVOTS or target in PIVOTS for source, target in trained)
    assert ("de", "ru") in untrained
    assert ("de", "en") in trained


def test_every_row_is_of_a_trained_direction_and_all_occur(rows: list[Conversation]) -> None:
    assert {(row.source_lang, row.target_lang) for row in rows} == set(
        trained_directions(LANGUAGES)
    )


def test_every_turn_of_a_conversation_translates_from_or_into_a_pivot(
    rows: list[Conversation],
) -> None:
    switched = 0
    for row in rows:
        for message in row.messages:
            if message.role != "user":
                continue
            (target,) = (item.values[0] for item in message.requirements if item.kind == "script")
            assert row.source_lang in PIVOTS or target in PIVOTS
            assert target != row.source_lang
            switched += target != row.target_lang
    assert switched > 50


def test_an_answer_is_in_the_language_that_its_turn_asks_for(rows: list[Conversation]) -> None:
    for row in rows:
        for user, answer in zip(row.messages[::2], row.messages[1::2], strict=True):
            (target,) = (item.values[0] for item in user.requirements if item.kind == "script")
            assert in_script(answer.content, target)


def test_the_answers_meet_what_the_turns_ask_for(rows: list[Conversation]) -> None:
    for row in rows:
        previous = None
        for user, answer in zip(row.messages[::2], row.messages[1::2], strict=True):
            assert user.requirements
            assert all_satisfied(user.requirements, answer.content, previous)
            previous = answer.content


def test_conversations_take_turns_and_have_as_many_as_configured(rows: list[Conversation]) -> None:
    turns: dict[str, set[int]] = {"translate": set(), "interactive": set()}
    for row in rows:
        check_turns(row.messages)
        turns[row.task].add(len(row.messages) // 2)
    assert turns == {"translate": {1}, "interactive": {2, 3, 4}}


@pytest.mark.parametrize(
    "sentence",
    [
        "Make it shorter.",
        "请更简短。",
        "Now in ",
        "现在用",
        "Replace ",
        "换成",
        "Make sure to include these words: ",
        "确保包含这些词：",
    ],
)
def test_every_refinement_is_asked_in_english_and_in_chinese(
    rows: list[Conversation], sentence: str
) -> None:
    asked = [m.content for row in rows for m in row.messages[2:] if m.role == "user"]
    assert sum(sentence in text for text in asked) >= 5


def test_the_first_turn_is_baylings_instruction(rows: list[Conversation]) -> None:
    english = chinese = 0
    for row in rows:
        prompt = row.messages[0].content
        names = name_of(row.target_lang, "en"), name_of(row.target_lang, "zh")
        if prompt.startswith(f"Provide the {names[0]} translation for this sentence: "):
            english += 1
        else:
            assert prompt.startswith(f"提供这句话的{names[1]}翻译：")
            chinese += 1
    assert 0.15 < chinese / (english + chinese) < 0.35


def test_a_shorter_answer_is_of_the_same_value_in_the_same_language(
    rows: list[Conversation],
) -> None:
    for row in rows:
        for index, message in enumerate(row.messages):
            if message.content in ("Make it shorter.", "请更简短。"):
                assert len(row.messages[index + 1].content) < len(row.messages[index - 1].content)


def test_training_never_draws_a_value_of_the_heldout_side(monkeypatch: pytest.MonkeyPatch) -> None:
    values: set[Value] = set()
    write = cldr.write

    def watched(value: Value, form: str, language: str) -> Sentence:
        values.add(value)
        return write(value, form, language)

    monkeypatch.setattr(cldr, "write", watched)
    made(ROWS)
    assert len(values) > 0.8 * ROWS
    assert not [value for value in values if cldr.is_heldout(value, CONFIG.heldout_share, SEED)]


def test_no_heldout_text_is_a_training_answer(
    rows: list[Conversation], tests: heldout.HeldOut
) -> None:
    assert not {answer for row in rows for answer in answers(row)} & tests.texts


def test_heldout_conversations_are_about_heldout_values_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values: set[Value] = set()
    write = cldr.write

    def watched(value: Value, form: str, language: str) -> Sentence:
        values.add(value)
        return write(value, form, language)

    monkeypatch.setattr(cldr, "write", watched)
    heldout.build(DataConfig(heldout_per_direction=10, heldout_interactive=50), SEED)
    assert len(values) > 100
    assert all(cldr.is_heldout(value, CONFIG.heldout_share, SEED) for value in values)


def test_a_row_depends_on_seed_and_index_alone(rows: list[Conversation]) -> None:
    assert made(100) == rows[: len(made(100))]
    backwards = [conversations.build(i, CONFIG, SEED) for i in (7, 3)]
    assert backwards == [conversations.build(i, CONFIG, SEED) for i in (3, 7)][::-1]
    other = made(100, seed=2)
    same = {row.id for row in other} & {row.id for row in rows}
    assert len(same) < 20  # of 100: short lists come by again, whatever the seed


def test_ids_name_the_content(rows: list[Conversation]) -> None:
    by_id = {row.id: row.messages for row in rows}
    assert all(by_id[row.id] == row.messages for row in rows)


def test_shares_of_zero_and_one_are_kept() -> None:
    plain = DataConfig(languages=["en", "de"], interactive_share=0.0, chinese_prompts=1.0)
    for row in made(60, plain):
        assert row.task == "translate"
        assert row.messages[0].content.startswith("提供这句话的")
    refined = DataConfig(languages=["en", "de"], interactive_share=1.0, chinese_prompts=0.0)
    assert {row.task for row in made(60, refined)} == {"interactive"}
