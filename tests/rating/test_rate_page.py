"""The page in a browser: blind, by keyboard alone, on a phone, in the dark."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import browser as chromium
import pytest
from browser import CONTROL, ENTER, TAB, Browser
from rated import QUESTIONS, compared, on_a_port, session_of, write_answers
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from bayling.rating import app
from bayling.rating.items import AnswerFile, read
from bayling.rating.session import Session

pytestmark = pytest.mark.skipif(
    bool(chromium.MISSING), reason=f"not on this machine: {', '.join(chromium.MISSING)}"
)

Served = Callable[..., tuple[str, Session]]


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    tab = Browser(tmp_path_factory.mktemp("chromium"))
    yield tab
    tab.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """Serve systems by their marks; returns the address and the session."""
    with ExitStack() as stack:

        def serve(*marks: str, **options: str) -> tuple[str, Session]:
            session = session_of(compared(tmp_path, *marks), tmp_path)
            return stack.enter_context(on_a_port(app.application(session, **options))), session

        yield serve


def begin(tab: Browser, name: str = "Ana") -> None:
    tab.until(lambda: tab.focused() == "name")
    tab.press(name, ENTER)
    judging(tab)


def judging(tab: Browser) -> None:
    tab.until(lambda: tab.find("#judge").is_displayed())


def shown(tab: Browser) -> str:
    """What tells an item and its order from others."""
    said = "[...document.querySelectorAll('#turns .said')].map((one) => one.textContent)"
    return str(tab.run(f"return {said}.join('|')"))


def vote(tab: Browser, key: str) -> None:
    before = shown(tab)
    tab.press(key)
    tab.until(lambda: not tab.find("#judge").is_displayed() or shown(tab) != before)


def counted(tab: Browser) -> str:
    return tab.find("#counted").text


@pytest.mark.parametrize("width", [1280, 375])
def test_two_systems_are_judged_with_the_keyboard_alone(
    tab: Browser, served: Served, width: int
) -> None:
    url, session = served("red", "blue")
    tab.open(url, width)
    begin(tab, " Ana  B. ")
    assert tab.find("#rater").text == "Ana B."
    assert tab.focused() == "question", "who hears the page begins at the question"
    keys = {}
    for key in "1230":
        assert counted(tab) == f"{len(keys)} of 4 judged"
        keys[shown(tab)] = key
        vote(tab, key)
    tab.until(lambda: tab.find("#over").is_displayed())
    assert tab.find("#over-title").text == "All judged. Thank you!"
    assert len(session.votes()) == 4
    for number, item in enumerate(session.items):
        [kept] = [one for one in session.votes() if one.item == item.id]
        assert kept.rater == "Ana B."
        assert 0 < kept.seconds < 60
        [key] = [key for said, key in keys.items() if f"answers {item.id}," in said]
        left, right = session.order(item, "Ana B.")
        expected = {"1": (1, 2), "2": (2, 1), "3": (1, 1), "0": (1, 1)}[key]
        assert (kept.ranks[left], kept.ranks[right]) == expected, number
        assert kept.bad is (key == "0")
    assert not tab.complaints()


def test_a_vote_is_undone_an_item_left_for_later_and_a_vote_changed(
    tab: Browser, served: Served
) -> None:
    url, session = served("red", "blue")
    tab.open(url)
    begin(tab)
    first = shown(tab)
    vote(tab, "1")
    for key in ("u", Keys.BACKSPACE):
        tab.press(key)
        tab.until(lambda: shown(tab) == first)
        assert not session.votes()
        assert tab.find("#live").get_property("textContent").startswith("Taken back.")
        vote(tab, "2")
    assert len(session.votes()) == 1

    second = shown(tab)
    vote(tab, Keys.ARROW_RIGHT)
    vote(tab, Keys.ARROW_LEFT)
    assert shown(tab) == second
    vote(tab, Keys.ARROW_LEFT)
    assert shown(tab) == first
    pressed = tab.all("#choice [aria-pressed=true]")
    assert [one.accessible_name for one in pressed] == ["B is better"], "the vote as it stands"
    vote(tab, "3")
    [kept] = session.votes()
    assert set(kept.ranks.values()) == {1}
    vote(tab, Keys.ARROW_LEFT)
    tab.press(Keys.ARROW_LEFT)
    tab.until(lambda: "first one" in str(tab.find("#live").get_property("textContent")))


def test_a_rater_pauses_and_goes_on_after_the_page_was_closed(tab: Browser, served: Served) -> None:
    url, session = served("red", "blue")
    tab.open(url)
    begin(tab)
    vote(tab, "1")
    next_one = shown(tab)
    tab.press("p")
    tab.until(lambda: tab.find("#over").is_displayed())
    assert "1 of 4 judged, and saved" in tab.find("#over-text").text
    tab.driver.get(url)
    tab.until(lambda: tab.find("#begin").is_displayed())
    assert tab.find("#name").get_property("value") == "Ana", "remembered"
    tab.press(ENTER)
    judging(tab)
    assert counted(tab) == "1 of 4 judged"
    assert shown(tab) == next_one
    tab.driver.get(url)
    tab.until(lambda: tab.focused() == "name")
    tab.press(CONTROL, "a")
    begin(tab, "Bo")
    assert counted(tab) == "0 of 4 judged", "another rater has a place of their own"
    assert len(session.votes()) == 1


def test_systems_that_have_no_name_in_the_page(tab: Browser, served: Served) -> None:
    url, _ = served("red", "blue")
    tab.open(url)
    begin(tab)
    for key in "12":
        assert "secret" not in tab.driver.page_source
        vote(tab, key)
    requested = {one.removeprefix(url) for one in tab.requested()}
    assert requested >= {"/", "/rate/app.js", "/rate/base.css", "/api/items/0/vote"}
    assert all(path.startswith("/") for path in requested), "it talks to its own server only"


@pytest.mark.parametrize("width", [1280, 375])
def test_four_systems_are_ranked_with_number_keys(tab: Browser, served: Served, width: int) -> None:
    url, session = served("red", "blue", "green", "grey")
    tab.open(url, width)
    begin(tab)
    tab.press("2")
    assert tab.find("#live").get_property("textContent") == "A has rank 2. Now B."
    tab.press("1")
    tab.press("d")
    tab.press("2")
    assert not tab.find(".ends .primary").is_enabled(), "C has no rank yet"
    tab.press("u")
    tab.press("4")
    tab.press("4")
    assert tab.find(".ends .primary").is_enabled()
    names = [chip.accessible_name for chip in tab.all(".chip")]
    assert sorted(names) == [
        "Answer A, rank 2",
        "Answer B, rank 1",
        "Answer C, rank 4",
        "Answer D, rank 4",
    ]
    vote(tab, ENTER)
    [kept] = session.votes()
    [item] = [one for one in session.items if one.id == kept.item]
    assert [kept.ranks[system] for system in session.order(item, "Ana")] == [2, 1, 3, 3]
    vote(tab, "0")
    assert [one.bad for one in session.votes()] == [False, True]
    tab.press("u")
    tab.until(lambda: len(session.votes()) == 1)


@pytest.mark.parametrize("width", [1280, 375])
def test_answers_are_ranked_by_dragging_or_by_pointing(
    tab: Browser, served: Served, width: int
) -> None:
    url, session = served("red", "blue", "green")
    tab.open(url, width)
    begin(tab)
    slots = {slot.get_attribute("data-rank"): slot for slot in tab.all(".slot")}
    chips = {chip.text: chip for chip in tab.all(".chip")}
    for letter, rank in (("A", "3"), ("B", "1")):
        ActionChains(tab.driver).drag_and_drop(chips[letter], slots[rank]).perform()
    chips["C"].click()
    slots["2"].click()
    assert [chip.text for chip in tab.all(".slot .chip")] == ["B", "C", "A"]
    before = shown(tab)
    tab.find(".ends .primary").click()
    tab.until(lambda: shown(tab) != before)
    [kept] = session.votes()
    [item] = [one for one in session.items if one.id == kept.item]
    assert [kept.ranks[system] for system in session.order(item, "Ana")] == [3, 1, 2]


def test_a_rater_leaves_out_the_languages_that_they_do_not_read(
    tab: Browser, served: Served
) -> None:
    url, _ = served("red", "blue")
    tab.open(url)
    tab.until(lambda: tab.find("#groups").is_displayed())
    labels = [" ".join(one.text.split()) for one in tab.all("#choices label")]
    assert labels == [
        "Instructions 1",
        "Conversations 1",
        "Chinese → German 1",
        "English → Arabic 1",
    ]
    for box in tab.all("#choices input")[:3]:
        box.click()
    tab.find("#name").click()
    begin(tab)
    assert counted(tab) == "0 of 1 judged"
    assert tab.texts(".asked h3") == ["English → Arabic"]
    vote(tab, "1")
    tab.until(lambda: tab.find("#over").is_displayed())


def test_texts_run_in_their_own_direction_and_say_their_language(
    tab: Browser, tmp_path: Path
) -> None:
    question = [QUESTIONS[0]]
    files = [
        AnswerFile(write_answers(tmp_path / name, [{**question[0], "outputs": [output]}]))
        for name, output in (("a.jsonl", "الشاي بارد."), ("b.jsonl", ""))
    ]
    session = session_of(read(files), tmp_path)
    with on_a_port(app.application(session, rater="Ana")) as url:
        tab.open(url)
        tab.until(lambda: tab.find("#begin").is_displayed())
        assert not tab.find("#name").is_displayed(), "the rater is known"
        tab.press(ENTER)
        judging(tab)
        asked, *answers = tab.all("#turns .said")
        style = "return getComputedStyle(arguments[0]).direction"
        assert (asked.get_attribute("lang"), tab.run(style, asked)) == ("en", "ltr")
        directions = {one.text: tab.run(style, one) for one in answers}
        assert directions == {"الشاي بارد.": "rtl", "(empty)": "ltr"}
        assert {one.get_attribute("lang") for one in answers} == {"ar"}


def test_a_vote_that_cannot_be_saved_is_said_to_be_and_can_be_sent_again(
    tab: Browser, tmp_path: Path
) -> None:
    session = session_of(compared(tmp_path, "red", "blue"), tmp_path)
    with on_a_port(app.application(session)) as url:
        tab.open(url)
        begin(tab)
        before = shown(tab)
    tab.press("1")
    tab.until(lambda: tab.find("#error").is_displayed())
    assert "server cannot be reached" in tab.find("#error").text
    assert shown(tab) == before
    assert counted(tab) == "0 of 4 judged"
    assert not session.votes()


def test_a_link_with_a_token_opens_the_page_and_none_does_not(tab: Browser, served: Served) -> None:
    url, session = served("red", "blue", token="open-sesame")
    tab.open(url)
    tab.until(lambda: tab.find("#error").is_displayed())
    assert "Open the link" in tab.find("#error").text
    tab.driver.get("about:blank")
    tab.open(f"{url}/#open-sesame")
    begin(tab)
    vote(tab, "1")
    assert len(session.votes()) == 1


def test_every_control_is_reached_has_a_name_of_its_own_and_shows_the_focus(
    tab: Browser, served: Served
) -> None:
    url, _ = served("red", "blue", "green")
    tab.open(url)
    begin(tab)
    controls = [one for one in tab.all("a, button, input") if one.is_displayed()]
    enabled = [one for one in controls if one.is_enabled()]
    names = [one.accessible_name for one in controls]
    assert len(names) > 12 and all(names), names
    assert len(set(names)) == len(names), names
    visited = set()
    for _ in range(len(enabled) + 3):  # the skip link, the window, and where it began
        element = tab.driver.switch_to.active_element
        if element.tag_name not in ("body", "h2"):
            visited.add(element.accessible_name)
            outline = tab.run(
                "const style = getComputedStyle(arguments[0]);"
                "return style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2",
                element,
            )
            assert outline, element.get_attribute("outerHTML")
        tab.press(TAB)
    assert visited == {"Skip to the question", *(one.accessible_name for one in enabled)}


def test_the_help_names_the_keys_and_takes_none_of_them_for_a_vote(
    tab: Browser, served: Served
) -> None:
    url, session = served("red", "blue")
    tab.open(url)
    begin(tab)
    tab.press("?")
    tab.until(lambda: tab.find("#help").is_displayed())
    assert tab.texts("#keys dt")[:4] == ["1", "2", "3", "0"]
    tab.press("1")
    tab.press(Keys.ESCAPE)
    tab.until(lambda: not tab.find("#help").is_displayed())
    assert not session.votes()
    vote(tab, "1")
    assert len(session.votes()) == 1


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 375, 320])
@pytest.mark.parametrize("marks", [2, 4])
def test_all_text_is_legible_and_nothing_is_wider_than_the_screen(
    tab: Browser, tmp_path: Path, width: int, dark: bool, marks: int
) -> None:
    long = [
        {**row, "outputs": ["and_no_space_to_break_at" * 12 + f" {it} " + "word " * 60] * many}
        for it in range(marks)
        for row in QUESTIONS
        for many in [len(row["turns"])]
    ]
    size = len(QUESTIONS)
    files = [
        AnswerFile(write_answers(tmp_path / f"{it}.jsonl", long[it * size : (it + 1) * size]))
        for it in range(marks)
    ]
    session = session_of(read(files), tmp_path)
    with on_a_port(app.application(session)) as url:
        tab.open(url, width, dark=dark)
        tab.until(lambda: tab.find("#begin").is_displayed())
        assert not tab.too_wide()
        assert tab.contrasts()[0][0] >= 4.5, tab.contrasts()[:5]
        begin(tab, "A" * 60)
        tab.run("document.querySelector('#error').hidden = false")
        tab.run("document.querySelector('#error').textContent = 'x'.repeat(400)")
        if marks == 4:
            tab.press("1")
            tab.press("1")
        assert not tab.too_wide()
        background = tab.run("return getComputedStyle(document.body).backgroundColor")
        assert (int(re.findall(r"\d+", background)[0]) < 60) is dark
        assert tab.contrasts()[0][0] >= 4.5, tab.contrasts()[:5]
        bar = tab.find("#bar").rect
        bottom = bar["y"] + bar["height"] - tab.run("return scrollY")
        assert bottom <= 900, "the vote is in reach without scrolling"


@pytest.mark.parametrize("width", [1280, 375])
def test_conversations_are_shown_turn_by_turn_side_by_side_where_there_is_room(
    tab: Browser, served: Served, width: int
) -> None:
    url, _ = served("red", "blue")
    tab.open(url, width)
    begin(tab)
    while tab.find("#question").text != "Which conversation goes better?":
        vote(tab, Keys.ARROW_RIGHT)
    assert tab.texts(".asked h3") == ["Turn 1", "Turn 2", "Turn 3"]
    answers = tab.all(".answer")
    assert len(answers) == 6
    left, right = answers[0].rect, answers[1].rect
    if width == 1280:
        assert left["y"] == right["y"] and left["x"] < right["x"]
    else:
        assert left["x"] == right["x"] and left["y"] < right["y"]
