"""Where there is more than one translation, another one can be asked for; nowhere else."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest

from bayling.data.instructions import interactive, refinements
from bayling.data.instructions.building import Dropped, turned
from bayling.data.instructions.forms import PromptShares
from bayling.data.instructions.interactive import KINDS, WORDS
from bayling.data.instructions.refinements import State, Step
from bayling.data.instructions.siblings import Siblings
from bayling.data.instructions.versions import KINDS as VERSIONS
from bayling.data.tables import Pair
from bayling.requirements import all_satisfied
from bayling.templates import Conversation

pytestmark = pytest.mark.unit

ENGLISH, CHINESE = PromptShares(1, 0, 0, 0), PromptShares(0, 1, 0, 0)
SENTENCE = "In 1998 the delegates of India met. They talked for 12 hours about Sweden."
IN = {
    "de": "Im Jahr 1998 trafen sich die Abgeordneten von Indien. "
    "Sie sprachen 12 Stunden über Schweden.",
    "fr": "En 1998, les délégués de l’Inde se sont réunis. "
    "Ils ont parlé pendant 12 heures de la Suède.",
    "zh": "1998年，印度的代表开了会。他们谈了12个小时的瑞典。",
}


def pair(source: str, target: str, tags: str = "en de", register: str = "") -> Pair:
    source_lang, target_lang = tags.split()
    return Pair(source_lang, target_lang, source, target, "opus", "x", 1, (), register)


THREE = [pair(SENTENCE, text, f"en {tag}") for tag, text in IN.items()]
# With one thing to change only, so that there are turns left for another language.
TALKED = {
    "de": "Sie sprachen 12 Stunden lang über Schweden und den Vertrag.",
    "fr": "Ils ont parlé pendant 12 heures de la Suède et du traité.",
    "zh": "他们就瑞典和那份已经签署了很久的双边条约谈了整整12个小时。",
}
PLAIN = [
    pair("They talked for 12 hours about Sweden and the treaty.", text, f"en {tag}")
    for tag, text in TALKED.items()
]
MORE = pair("Nobody left early.", "Niemand ging früher.")
BOUGHT = [
    pair("他昨天在北京买了一辆新汽车。", text, "zh en")
    for text in (
        "He bought a new car in Beijing yesterday.",
        "Yesterday he purchased a new automobile in Beijing.",
    )
]
STATION = "Could you please tell me where the station is?"
REGISTERS = [
    pair(STATION, "Könnten Sie mir bitte sagen, wo der Bahnhof ist?", register="formal"),
    pair(STATION, "Kannst du mir bitte sagen, wo der Bahnhof ist?", register="Informal"),
]
WATCH = [
    pair("Where did you buy this watch?", text, "en zh", register)
    for text, register in (
        ("您在哪里买的这块手表？", "formal"),
        ("你在哪里买的这块手表？", "informal"),
    )
]
STATES = [
    pair("The president of the United States visited Germany.", text, "en zh")
    for text in ("美国总统昨天访问了德国。", "美利坚合众国总统昨天访问了德国。")
]


def many(
    one: Pair,
    siblings: Sequence[Pair],
    shares: PromptShares = ENGLISH,
    more: Pair | None = MORE,
    seeds: int = 150,
) -> list[Conversation]:
    made = []
    for seed in range(seeds):
        try:
            made.append(interactive.build(one, more, random.Random(seed), shares, 6, siblings))
        except Dropped:
            continue
    return made


def kind_of(prompt: str) -> str:
    """Which kind of refinement a prompt asks for."""
    for words in WORDS.values():
        for kind, forms in words.items():
            for form in forms:
                before, slot, rest = form.partition("{")
                after = rest.rpartition("}")[2]
                if prompt == form or (
                    slot and prompt.startswith(before) and prompt.endswith(after)
                ):
                    return kind
    raise AssertionError(prompt)


def kinds(made: list[Conversation]) -> Counter[str]:
    return Counter(kind_of(turn.content) for one in made for turn in one.messages[2::2])


def state(one: Pair, siblings: Sequence[Pair], **given: object) -> State:
    made = interactive._state(one, "en", siblings)
    return replace(made, **given)  # type: ignore[arg-type]


def step(kind: str, now: State, seed: int = 0) -> Step | None:
    return KINDS[kind](random.Random(seed), now, None)


@pytest.mark.parametrize("shares", [ENGLISH, CHINESE])
def test_every_kind_occurs_where_the_data_has_it(shares: PromptShares) -> None:
    assert set(VERSIONS) == {"language", "register", "require", "forbid"}
    assert "language" in kinds(many(PLAIN[0], PLAIN, shares))
    assert {"require", "forbid"} <= set(kinds(many(BOUGHT[0], BOUGHT, shares)))
    for two in (REGISTERS, WATCH):
        assert "register" in kinds(many(two[0], two, shares))


def test_no_kind_occurs_where_it_does_not() -> None:
    """Without another translation, and with one of another sentence."""
    for siblings in ([], THREE[:1], [MORE], [turned(one) for one in THREE]):
        assert not set(kinds(many(THREE[0], siblings))) & set(VERSIONS)
    assert not set(kinds(many(BOUGHT[0], BOUGHT))) & {"language", "register"}
    assert not set(kinds(many(REGISTERS[0], REGISTERS))) & {"require", "forbid"}
    unnamed = [replace(one, register="") for one in REGISTERS]
    assert "register" not in kinds(many(unnamed[0], unnamed))


@pytest.mark.parametrize("siblings", [PLAIN, BOUGHT, REGISTERS, WATCH, STATES])
@pytest.mark.parametrize("shares", [ENGLISH, CHINESE])
def test_who_copies_does_not_pass(siblings: list[Pair], shares: PromptShares) -> None:
    seen = 0
    for one in many(siblings[0], siblings, shares, None):
        previous = one.messages[1].content
        for user, assistant in zip(one.messages[2::2], one.messages[3::2], strict=True):
            assert all_satisfied(user.requirements, assistant.content, previous)
            if kind_of(user.content) in VERSIONS:
                seen += 1
                named = [
                    value
                    for item in user.requirements
                    if item.kind == "contains"
                    for value in item.values
                ]
                for copied in (
                    previous,
                    user.content,
                    one.messages[0].content,
                    siblings[0].source,
                    " ".join(named),
                    f"{previous} {' '.join(named)}",
                    f"{previous} {user.content}",
                    "",
                ):
                    assert not all_satisfied(user.requirements, copied, previous), copied
            previous = assistant.content
    assert seen > 10


def test_another_language_is_asked_for_once_and_is_what_the_data_has() -> None:
    names = {"German": "de", "French": "fr", "Chinese": "zh"}
    seen = set()
    for one in many(PLAIN[0], PLAIN):
        asked = [turn for turn in one.messages[2::2] if kind_of(turn.content) == "language"]
        assert len(asked) < 2
        for user, assistant in zip(one.messages[2::2], one.messages[3::2], strict=True):
            if user in asked and "{" not in assistant.content:
                [tag] = [tag for name, tag in names.items() if name in user.content]
                assert assistant.content.strip("“”") == TALKED[tag]
                seen.add(tag)
    assert seen == {"fr", "zh"}


def test_an_answer_in_another_language_of_the_same_script_does_not_do() -> None:
    for seed in range(20):
        made = step("language", state(THREE[0], THREE), seed)
        assert made is not None
        if made.state.target_lang == "fr":
            wanted = *refinements.standing(made.state), *made.wanted
            assert all_satisfied(wanted, IN["fr"], IN["de"])
            for wrong in (IN["de"], SENTENCE.replace("1998", "1999"), f"{IN['zh']}。"):
                assert not all_satisfied(wanted, wrong, IN["zh"])
            # Nor does it in a later turn.
            later = KINDS["quotes"](random.Random(0), made.state, None)
            assert later is not None
            wanted = *refinements.standing(later.state), *later.wanted
            assert not all_satisfied(wanted, f"“{IN['de']}”", IN["fr"])
            return
    raise AssertionError("French was never asked for")


def test_after_another_language_all_is_that_of_the_other_pair() -> None:
    """Terms and numbers are the new ones, no sentence of the old direction is added, and the way
    back is the one to the source."""
    seen: Counter[str] = Counter()
    for one in many(PLAIN[0], PLAIN, seeds=500):
        language = None
        for user, assistant in zip(one.messages[2::2], one.messages[3::2], strict=True):
            kind = kind_of(user.content)
            if language is not None:
                seen[kind] += 1
                assert kind != "add"
                if kind == "bold":
                    [word] = assistant.content.split("**")[1:2]
                    assert word in TALKED[language]
                if kind == "number":
                    assert TALKED[language][-4:] in assistant.content.replace("**", "")
                if kind == "explain":
                    assert assistant.content.split("“")[-1].split("”")[0] in TALKED[language]
                if kind == "back":
                    assert "English" in user.content
                    script = [item for item in user.requirements if item.kind == "script"]
                    assert script[0].values == ("en",)
            if kind == "language":
                language = "fr" if "French" in user.content else "zh"
    assert {"number", "bold", "explain", "quotes", "back"} <= set(seen)


@pytest.mark.parametrize(
    "given",
    [
        {"number": "1999"},
        {"source": SENTENCE.replace("1998", "1999"), "number": "1999"},
        {"source": "In 1998 the delegates of India met."},
        {"bold": "Indien"},
    ],
)
def test_what_the_state_forbids_is_not_asked_for(given: dict[str, str]) -> None:
    """A number was replaced, a sentence taken away, a word put in bold that French has not."""
    assert step("language", state(THREE[0], THREE)) is not None
    assert step("language", state(THREE[0], THREE, **given)) is None


def test_quotation_marks_do_not_go_around_a_text_that_has_some() -> None:
    quoted = pair(SENTENCE, IN["zh"].replace("印度", "“印度”"), "en zh")
    siblings = [THREE[0], quoted]
    assert step("language", state(THREE[0], siblings)) is not None
    assert step("language", state(THREE[0], siblings, shape="quotes")) is None
    assert step("language", state(THREE[0], siblings, shape="json")) is not None


def test_a_word_in_bold_stays_so_in_another_version() -> None:
    now = state(STATES[0], STATES, bold="德国")
    made = step("forbid", now)
    assert made is not None
    assert made.slots == {"word": "美国"}
    assert made.state.answer == "美利坚合众国总统昨天访问了**德国**。"
    assert step("forbid", state(STATES[0], STATES, bold="美国")) is None


def test_a_word_that_was_asked_for_stands() -> None:
    third = replace(BOUGHT[0], target="He purchased a new vehicle in Beijing yesterday.")
    now = state(BOUGHT[0], [*BOUGHT, third])
    for seed in range(20):
        made = step("require", now, seed)
        assert made is not None
        if made.slots["word"] == "automobile":
            break
    assert step("forbid", made.state) is None, "no other one has an automobile"
    wanted = refinements.standing(made.state)
    assert all_satisfied(wanted, BOUGHT[1].target, None)
    assert not all_satisfied(wanted, third.target, None)
    assert step("first", made.state) is None
    # Another language takes it back.
    french = replace(BOUGHT[0], target_lang="fr", target="Il a acheté une voiture hier à Pékin.")
    again = step("language", replace(made.state, siblings=(*made.state.siblings, french)))
    assert again is not None
    assert not again.state.kept


def test_a_sentence_with_an_avoided_word_is_not_added() -> None:
    german = [
        pair("It is an old building.", text)
        for text in ("Das ist ein altes Gebäude.", "Das ist ein altes Bauwerk.")
    ]
    made = step("forbid", state(german[0], german))
    assert made is not None
    assert made.slots == {"word": "Gebäude"}
    for text, fits in (("Das Gebäude steht leer.", False), ("Es steht leer.", True)):
        more = interactive._state(pair("It is empty.", text), "en")
        assert (KINDS["add"](random.Random(0), made.state, more) is not None) is fits


def test_versions_that_have_little_in_common_are_no_revision() -> None:
    apart = [
        BOUGHT[0],
        replace(BOUGHT[0], target="Someone got themselves wheels the day before."),
    ]
    assert not set(kinds(many(apart[0], apart))) & set(VERSIONS)


def test_a_register_is_told_by_the_words_that_show_it() -> None:
    for two, asked, here, there in (
        (REGISTERS, "informal", ("Sie",), ("du",)),
        (REGISTERS[::-1], "formal", ("du",), ("Sie",)),
        (WATCH, "informal", ("您",), ("你",)),
    ):
        made = step("register", state(two[0], two))
        assert made is not None
        assert made.slots == {"register": asked}
        assert made.state.target == two[1].target
        assert {(one.kind, one.values) for one in made.state.kept} == {
            ("contains", there),
            ("lacks", here),
        }


def test_siblings_are_found_in_both_directions_and_not_too_many() -> None:
    found = Siblings([*THREE, MORE])
    assert found.of(THREE[1]) == tuple(THREE)
    assert found.of(turned(MORE)) == (turned(MORE),)
    assert found.of(BOUGHT[0]) == ()
    two = [
        pair("印度很远。", "India is far.", "zh en"),
        pair("印度很远。", "Indien ist weit.", "zh de"),
    ]
    assert Siblings(two).of(turned(two[0])) == (turned(two[0]),)
    yes = [pair("Yes.", f"Ja {number}.") for number in range(500)]
    assert len(Siblings(yes).of(yes[0])) < 50
