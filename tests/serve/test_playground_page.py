"""The page at `/` in a browser: with a keyboard, on a phone, in the dark."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import browser as chromium
import httpx
import pytest
from app_server import serving
from browser import CONTROL, ENTER, ESCAPE, TAB, Browser
from fastapi import Request
from scripted_model import scripted_app
from starlette.responses import Response
from tiny_model import CONTEXT
from tiny_server import comes_to_rest, ongoing

from bayling.serve import client
from bayling.serve.errors import ApiError

needs_browser = pytest.mark.skipif(
    bool(chromium.MISSING), reason=f"not on this machine: {', '.join(chromium.MISSING)}"
)


# --- in a browser, with a real model ----------------------------------------------------------


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    tab = Browser(tmp_path_factory.mktemp("chromium"))
    yield tab
    tab.close()


def ready(tab: Browser) -> None:
    tab.until(lambda: len(tab.all("#target-language option")) > 1)


def choose(tab: Browser, control: str, value: str) -> None:
    script = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('change'))"
    tab.run(script, tab.find(control), value)


def open_details(tab: Browser, name: str) -> None:
    tab.find(f"#{name} summary").click()
    tab.until(lambda: tab.run("return document.querySelector(arguments[0]).open", f"#{name}"))


def add_term(tab: Browser, term: str, translation: str) -> None:
    if not tab.run("return document.querySelector('#glossary').open"):
        open_details(tab, "glossary")
        tab.find("#terms .from").click()
    else:
        tab.find("#add-term").click()
    tab.press(term)
    tab.press(TAB)
    tab.press(translation)


def finished(tab: Browser) -> None:
    tab.until(lambda: "tokens in" in tab.find("#facts").text)


def translate(tab: Browser, text: str, target: str = "de") -> str:
    """By the button, as most do; returns the translation."""
    choose(tab, "#target-language", target)
    tab.find("#source").clear()
    tab.find("#source").send_keys(text)
    tab.find("#translate").click()
    finished(tab)
    return tab.find("#answer").text


@needs_browser
@pytest.mark.parametrize("width", [1280, 390])
def test_a_text_is_translated_and_refined_twice(tab: Browser, server: str, width: int) -> None:
    tab.open(server, width)
    ready(tab)
    assert "bayling, version 7" in tab.find("#model").text
    shown = translate(tab, "Good morning")
    expected = client.translate(server, "Good morning", "de").text
    assert " ".join(shown.split()) == " ".join(expected.split())
    assert tab.find("#detected").text == "Detected: English"

    answers = [shown]
    for refinement in ("Make it shorter.", "Now in Chinese."):
        tab.find("#refinement").send_keys(refinement, ENTER)
        tab.until(lambda: len(tab.all("#turns li")) > 2 * len(answers))
        finished(tab)
        answers.append(tab.find("#answer").text)
    said = tab.texts("#turns .user .said")
    assert said == ["Good morning", "Make it shorter.", "Now in Chinese."]
    assert tab.texts("#turns .assistant .said") == answers, "earlier turns stay"

    open_details(tab, "settings")
    given = tab.texts("#messages .said")
    assert given[0] == "Provide the German translation for this sentence: Good morning"
    assert given[2::2] == ["Make it shorter.", "Now in Chinese."]
    assert len(given) == 6

    tab.find("#start-over").click()
    assert not tab.all("#turns li") and not tab.find("#refine").is_displayed()
    assert tab.find("#answer").text == "" and tab.focused() == "source"
    assert not tab.complaints()


@needs_browser
def test_an_answer_appears_while_it_is_made_and_stopping_frees_its_place(
    tab: Browser, server: str
) -> None:
    tab.open(server)
    ready(tab)
    open_details(tab, "settings")
    tab.find("#max-tokens").send_keys(str(CONTEXT - 1000))
    tab.find("#source").send_keys("Good morning")
    tab.find("#translate").click()
    tab.until(lambda: len(tab.find("#answer").text) > 20)
    early = len(tab.find("#answer").text)
    place = tab.find("#translate").rect
    tab.until(lambda: len(tab.find("#answer").text) > 20 * early)
    assert tab.find("#translate").text == "Stop"
    assert tab.find("#translate").rect == place, "it runs away from who wants to press it"
    assert ongoing() == 1
    tab.find("#translate").click()
    tab.until(lambda: tab.find("#facts").text == "Stopped")
    assert comes_to_rest(within_s=15)
    assert tab.find("#translate").text == "Translate"
    assert not tab.find("#error").is_displayed(), "to be stopped is no error"

    tab.find("#translate").click()
    tab.until(lambda: tab.find("#answer").text)
    tab.press(ESCAPE)
    tab.until(lambda: tab.find("#facts").text == "Stopped")
    assert comes_to_rest(within_s=15)


@needs_browser
def test_the_page_talks_to_its_own_server_only(tab: Browser, server: str) -> None:
    tab.open(server)
    ready(tab)
    translate(tab, "Good morning")
    requested = tab.requested()
    paths = {url.removeprefix(server) for url in requested}
    assert paths >= {"/", "/playground/app.js", "/v1/models", "/v1/translations"}
    assert all(path.startswith("/") for path in paths), requested
    assert not tab.complaints()


@needs_browser
def test_everything_can_be_done_with_the_keyboard(tab: Browser, server: str) -> None:
    tab.open(server)
    ready(tab)
    tab.press(TAB)
    assert tab.run("return document.activeElement.className") == "skip"
    tab.press(ENTER)
    tab.press("Good morning")
    assert tab.find("#source").get_property("value") == "Good morning"
    tab.press(CONTROL, ENTER)
    finished(tab)
    assert tab.focused() == "source", "the cursor stays where it was"

    # Once around the page: each control is reached, is seen to be, and is left again.
    tab.run("for (const one of document.querySelectorAll('details')) one.open = true")
    tab.until(lambda: tab.all("#terms .term"))
    controls = tab.run(
        "return [...document.querySelectorAll('a, button, input, select, summary, textarea,"
        " [tabindex]')].filter((one) => one.checkVisibility() && !one.disabled).length"
    )
    visited = set()
    for _ in range(controls + 1):  # once also the window itself has the focus
        element = tab.driver.switch_to.active_element
        if element.tag_name != "body":
            visited.add(element.id)
            outline = tab.run(
                "const style = getComputedStyle(arguments[0]);"
                "return style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2",
                element,
            )
            assert outline, element.get_attribute("outerHTML")
        tab.press(TAB)
    assert len(visited) == controls


@needs_browser
@pytest.mark.parametrize("width", [1280, 390, 320])
@pytest.mark.parametrize("dark", [False, True])
def test_all_text_is_legible_and_nothing_is_wider_than_the_screen(
    tab: Browser, server: str, width: int, dark: bool
) -> None:
    tab.open(server, width, dark=dark)
    ready(tab)
    assert not tab.too_wide()
    add_term(tab, "morning", "Morgen" * 20)
    add_term(tab, "tea", "Tee")
    translate(tab, "Good morning " + "and_no_space_to_break_at" * 12, "ar")
    open_details(tab, "settings")
    tab.run("document.querySelector('#error').hidden = false")
    tab.run("document.querySelector('#error').textContent = 'x'.repeat(400)")
    tab.run("document.querySelector('#key-form').hidden = false")
    assert not tab.too_wide()
    background = tab.run("return getComputedStyle(document.body).backgroundColor")
    assert (int(re.findall(r"\d+", background)[0]) < 60) is dark
    contrasts = tab.contrasts()
    assert len(contrasts) > 40
    assert contrasts[0][0] >= 4.5, contrasts[:5]


@needs_browser
def test_every_control_has_a_name(tab: Browser, server: str) -> None:
    tab.open(server)
    ready(tab)
    add_term(tab, "morning", "Morgen")
    add_term(tab, "tea", "Tee")
    translate(tab, "Good morning")
    open_details(tab, "settings")
    tab.run("document.querySelector('#key-form').hidden = false")
    controls = tab.all("button, input, select, textarea, summary, #answer")
    names = [control.accessible_name for control in controls]
    assert len(names) > 25 and all(names), names
    assert "Remove term 2" in names and "Translation of term 1" in names
    # Each once, so that nobody has to guess which of two is meant.
    assert len(set(names)) == len(names), names


@needs_browser
def test_the_finished_translation_is_announced_and_not_its_pieces(
    tab: Browser, server: str
) -> None:
    tab.open(server)
    ready(tab)
    tab.run(
        "window.heard = []; new MutationObserver(() => heard.push("
        "document.querySelector('#live').textContent)).observe("
        "document.querySelector('#live'), {childList: true})"
    )
    answer = translate(tab, "Good morning")
    heard = tab.run("return heard")
    assert len(heard) == 1
    assert " ".join(str(heard[0]).split()).startswith(" ".join(answer.split()))
    assert tab.find("#answer").get_attribute("aria-live") is None


@needs_browser
def test_a_theme_that_was_chosen_is_remembered(tab: Browser, server: str) -> None:
    tab.open(server, dark=True)
    ready(tab)
    theme = "return document.documentElement.dataset.theme"
    assert tab.run(theme) == "dark"
    tab.find("#theme").click()
    assert tab.run(theme) == "light"
    assert tab.find("#theme").accessible_name == "Dark theme"
    tab.driver.refresh()
    ready(tab)
    assert tab.run(theme) == "light"


@needs_browser
def test_arabic_runs_from_the_right_and_languages_have_names(tab: Browser, server: str) -> None:
    tab.open(server)
    ready(tab)
    names = tab.texts("#target-language option")
    assert names == ["Arabic", "Chinese", "English", "German", "Hindi"]
    translate(tab, "Good morning", "ar")
    assert tab.run("return getComputedStyle(document.querySelector('#answer')).direction") == "rtl"
    assert tab.find("#answer").get_attribute("lang") == "ar"
    tab.find("#swap").click()
    chosen = [tab.find(f"#{side}-language").get_property("value") for side in ("source", "target")]
    assert chosen == ["ar", "en"]
    assert tab.run("return getComputedStyle(document.querySelector('#source')).direction") == "rtl"


@needs_browser
def test_what_the_server_refuses_is_shown_in_its_words(tab: Browser, server: str) -> None:
    tab.open(server)
    ready(tab)
    open_details(tab, "settings")
    tab.find("#max-tokens").send_keys(str(10 * CONTEXT))
    tab.find("#source").send_keys("Good morning")
    tab.find("#translate").click()
    tab.until(lambda: tab.find("#error").is_displayed())
    assert f"context is {CONTEXT} tokens" in tab.find("#error").text
    assert tab.find("#error").get_attribute("role") == "alert"


@needs_browser
def test_a_busy_server_is_said_to_be_busy_and_can_be_asked_again(tab: Browser, server: str) -> None:
    tab.open(server)
    ready(tab)
    body = {"model": "bayling", "messages": [{"role": "user", "content": "Hello"}]}
    body = {**body, "max_tokens": CONTEXT - 1000, "stream": True}
    enough = threading.Event()
    refusals: list[int] = []

    def occupy(_: int) -> None:
        """Be inside, or try to be."""
        url = f"{server}/v1/chat/completions"
        while not enough.is_set():
            with httpx.stream("POST", url, json=body, timeout=60, trust_env=False) as answer:
                if answer.status_code == 429:
                    refusals.append(answer.status_code)
                    enough.wait(0.1)
                for _ in answer.iter_lines():
                    if enough.is_set():
                        break

    with ThreadPoolExecutor(6) as pool:
        for number in range(6):
            pool.submit(occupy, number)
        tab.until(lambda: len(refusals) > 20)  # by now all places are taken
        tab.find("#source").send_keys("Good morning")
        tab.find("#translate").click()
        try:
            tab.until(lambda: tab.find("#error").is_displayed())
        finally:
            enough.set()
        assert "try again" in tab.find("#error").text
        assert "wait 1 s" in tab.find("#error").text
    assert comes_to_rest(within_s=15)
    tab.find("#error button").click()
    finished(tab)
    assert not tab.find("#error").is_displayed()


# --- in a browser, with a model that answers by rule -------------------------------------------


@needs_browser
def test_each_glossary_term_shows_what_became_of_it(tab: Browser, model_folder: Path) -> None:
    def rule(prompt: str) -> str:
        return "Das Herz ist gut." if "Alles" in prompt else "Alles ist gut."

    _, app = scripted_app(model_folder, rule)
    with serving(app) as url:
        tab.open(url, 390)
        ready(tab)
        for term, translation in (("heart", "Herz"), ("lung", "Lunge"), ("tea", "Tee")):
            add_term(tab, term, translation)
        answer = translate(tab, "The heart and the lung are fine.")
        assert answer == "Das Herz ist gut."
        assert tab.texts(".use span") == ["used", "not used", "not in the text"]
        assert "Not used: Lunge." in str(tab.find("#live").get_property("textContent"))
        tab.all("#terms .term")[1].find_element("css selector", "button").click()
        assert len(tab.all("#terms .term")) == 2
        link = tab.find("#model a")
        assert link.get_attribute("href") == "http://127.0.0.1:5000/#/models/bayling"


@needs_browser
def test_a_key_is_asked_for_when_the_server_wants_one_and_kept_in_the_tab(
    tab: Browser, model_folder: Path
) -> None:
    _, app = scripted_app(model_folder, lambda prompt: "Guten Morgen")

    @app.middleware("http")
    async def locked(request: Request, answer: Callable[[Request], Response]) -> Response:
        if not request.url.path.startswith("/v1/"):
            return await answer(request)  # type: ignore[misc]
        if request.headers.get("authorization") != "Bearer open-sesame":
            return ApiError(401, "this server wants an API key", code="invalid_api_key").response()
        return await answer(request)  # type: ignore[misc]

    with serving(app) as url:
        tab.open(url)
        tab.until(lambda: tab.find("#key-form").is_displayed())
        assert "API key" in tab.find("#error").text
        assert tab.focused() == "key"
        tab.press("wrong")
        tab.press(ENTER)
        tab.until(lambda: tab.find("#error").is_displayed())
        tab.find("#key").send_keys("open-sesame", ENTER)
        ready(tab)
        assert not tab.find("#key-form").is_displayed()
        assert not tab.find("#error").is_displayed()
        assert translate(tab, "Good morning") == "Guten Morgen"
        assert tab.run("return localStorage.length") == 0
        assert "open-sesame" not in tab.driver.page_source


@needs_browser
def test_a_server_that_is_gone_is_said_to_be_gone(tab: Browser, model_folder: Path) -> None:
    _, app = scripted_app(model_folder, lambda prompt: "Guten Morgen")
    with serving(app) as url:
        tab.open(url)
        ready(tab)
    tab.find("#source").send_keys("Good morning")
    tab.find("#translate").click()
    tab.until(lambda: "cannot be reached" in tab.find("#error").text)
    assert tab.find("#source").get_property("value") == "Good morning"
