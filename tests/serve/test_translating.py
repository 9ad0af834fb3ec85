"""Translations of a model that answers by rule: what is asked again, and what is kept.

The template, the tokenizer, the prompts and the HTTP layer are the real ones; only what the
model would say is written down here.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from scripted_model import Rule, scripted_app
from tiny_model import CONTEXT

from bayling.serve.errors import Overloaded


class Server:
    """The whole API over a scripted model, in this process."""

    def __init__(self, folder: Path, rule: Rule, context: int = CONTEXT, at_once: int = 3) -> None:
        self.model, self._app = scripted_app(folder, rule, context=context, at_once=at_once)
        self.left = 0
        """How many answers were still being made a moment after the last response."""

    def post(self, **body: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self._app)
            url = "http://localhost"
            async with httpx.AsyncClient(transport=transport, base_url=url) as client:
                response = await client.post("/v1/translations", json=body)
            await asyncio.sleep(0.02)
            self.left = self.model.now
            return response

        return asyncio.run(ask())

    def translations(self, **body: Any) -> list[dict[str, Any]]:
        response = self.post(**body)
        assert response.status_code == 200, response.text
        answers: list[dict[str, Any]] = response.json()["translations"]
        return answers

    def events(self, **body: Any) -> list[Any]:
        response = self.post(**body, stream=True)
        assert response.headers["content-type"].startswith("text/event-stream"), response.text
        lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
        return [line if line == "[DONE]" else json.loads(line) for line in lines]


@pytest.fixture
def serve(model_folder: Path) -> Callable[..., Server]:
    return lambda rule, **options: Server(model_folder, rule, **options)


def test_a_missing_term_is_asked_for_in_a_further_turn(serve: Callable[..., Server]) -> None:
    server = serve(lambda prompt: "Das Herz ist gut." if "Alles" in prompt else "Alles ist gut.")
    [answer] = server.translations(
        text="The heart is fine.", target="de", glossary={"heart": "Herz"}
    )
    assert (answer["text"], answer["attempts"]) == ("Das Herz ist gut.", 2)
    assert answer["glossary"] == [
        {"term": "heart", "translation": "Herz", "applicable": True, "used": True}
    ]
    asked = "Make sure to include these words: Herz"
    assert [turn["content"] for turn in answer["messages"]] == [
        f"Provide the German translation for this sentence: The heart is fine.\n{asked}",
        "Alles ist gut.",
        asked,
        "Das Herz ist gut.",
    ]


def test_the_first_answer_stays_when_asking_again_makes_it_no_better(
    serve: Callable[..., Server],
) -> None:
    def rule(prompt: str) -> str:
        return "Die Leber nicht." if "Das Herz" in prompt else "Das Herz ist gut."

    server = serve(rule)
    glossary = {"heart": "Herz", "lung": "Lunge"}
    [answer] = server.translations(text="heart and lung", target="de", glossary=glossary)
    assert (answer["text"], answer["attempts"]) == ("Das Herz ist gut.", 2)
    assert [use["used"] for use in answer["glossary"]] == [True, False]
    assert len(answer["messages"]) == 2
    assert "these words: Lunge\n" in server.model.prompts[1], "only what is missing is asked for"


def test_it_is_asked_again_once_only_and_not_at_all_when_nothing_is_missing(
    serve: Callable[..., Server],
) -> None:
    server = serve(lambda prompt: "Alles ist gut.")
    [answer] = server.translations(text="heart", target="de", glossary={"heart": "Herz"})
    assert (answer["attempts"], len(server.model.prompts)) == (2, 2)
    server = serve(lambda prompt: "Das Herz ist gut.")
    [answer] = server.translations(text="heart", target="de", glossary={"heart": "Herz"})
    assert (answer["attempts"], len(server.model.prompts)) == (1, 1)


def test_a_term_that_the_text_lacks_is_not_asked_for_and_is_told_so(
    serve: Callable[..., Server],
) -> None:
    server = serve(lambda prompt: "Herz")
    [answer] = server.translations(text="The hearth.", target="de", glossary={"heart": "Herz"})
    assert "Make sure" not in server.model.prompts[0]
    assert answer["glossary"] == [
        {"term": "heart", "translation": "Herz", "applicable": False, "used": False}
    ]


def test_each_target_gets_its_own_words_in_the_language_of_the_prompt(
    serve: Callable[..., Server],
) -> None:
    server = serve(lambda prompt: "Herz" if "德语" in prompt else "心脏")
    answers = server.translations(
        text="heart",
        target=["de", "zho"],
        glossary={"heart": {"deu": "Herz", "zh": "心脏"}, "lung": {"de": "Lunge"}},
        prompt_language="zh",
    )
    assert [answer["target"] for answer in answers] == ["de", "zh"]
    assert all(answer["glossary"][0]["used"] for answer in answers)
    assert [len(answer["glossary"]) for answer in answers] == [2, 1]
    assert "确保包含这些词：Herz" in server.model.prompts[0]
    assert "确保包含这些词：心脏" in server.model.prompts[1]


def test_an_answer_outlives_an_overload_that_meets_its_second_attempt(
    serve: Callable[..., Server],
) -> None:
    server = serve(lambda prompt: Overloaded() if "Alles" in prompt else "Alles ist gut.")
    [answer] = server.translations(text="heart", target="de", glossary={"heart": "Herz"})
    assert (answer["text"], answer["attempts"]) == ("Alles ist gut.", 1)
    assert answer["glossary"][0]["used"] is False


def test_what_would_not_fit_into_the_context_is_not_asked_again(
    serve: Callable[..., Server],
) -> None:
    body = {"text": "heart", "target": "de", "glossary": {"heart": "Herz"}, "max_tokens": 20}
    usage = serve(lambda prompt: "Herz").post(**body).json()["usage"]
    tight = serve(lambda prompt: "gut", context=usage["prompt_tokens"] + 20)
    [answer] = tight.translations(**body)
    assert (answer["text"], answer["attempts"]) == ("gut", 1)


def test_an_answer_is_the_history_of_its_refinement(serve: Callable[..., Server]) -> None:
    server = serve(lambda prompt: "Kurz." if "shorter" in prompt else "Das Herz ist lang.")
    glossary = {"heart": "Herz"}
    [first] = server.translations(text="heart", target="de", glossary=glossary)
    [second] = server.translations(
        text="Make it shorter.", history=first["messages"], glossary=glossary
    )
    turns = [turn["content"] for turn in second["messages"]]
    assert turns[:2] == [turn["content"] for turn in first["messages"]]
    assert turns[2] == "Make it shorter.", "the word was asked for already"
    assert (second["source"], second["target"], second["source_detected"]) == (None, None, False)
    # The term is still the conversation's, although this turn does not name it.
    assert second["glossary"][0] == {**first["glossary"][0], "used": False}
    assert second["attempts"] == 2


def test_the_words_of_the_prompt_are_no_words_of_the_text(serve: Callable[..., Server]) -> None:
    server = serve(lambda prompt: "Kurz.")
    glossary = {"sentence": "Satz", "German": "deutsch"}
    [first] = server.translations(text="heart", target="de", glossary=glossary)
    [second] = server.translations(text="Shorter.", history=first["messages"], glossary=glossary)
    for answer in (first, second):
        assert [use["applicable"] for use in answer["glossary"]] == [False, False]


def test_texts_come_before_targets_and_each_says_its_place(serve: Callable[..., Server]) -> None:
    server = serve(lambda prompt: prompt.split("sentence: ")[1].split("\n")[0])
    answers = server.translations(text=["eins", "zwei"], source="de", target=["en", "zh"])
    assert [(a["index"], a["text_index"], a["text"], a["target"]) for a in answers] == [
        (0, 0, "eins", "en"),
        (1, 0, "eins", "zh"),
        (2, 1, "zwei", "en"),
        (3, 1, "zwei", "zh"),
    ]


@pytest.mark.parametrize(
    ("text", "target", "source"),
    [
        ("The weather is fine today.", "de", "en"),
        ("今天天气很好。", "de", "zh"),
        ("आज मौसम अच्छा है।", "en", "hi"),
        ("17. September 2038", "en", "de"),
        ("12:30", "de", None),
        ("Сегодня хорошая погода.", "de", None),  # no language of the model
    ],
)
def test_a_source_that_is_not_given_is_detected_among_the_models_languages(
    serve: Callable[..., Server], text: str, target: str, source: str | None
) -> None:
    [answer] = serve(lambda prompt: "x").translations(text=text, target=target)
    assert (answer["source"], answer["source_detected"]) == (source, source is not None)


def test_a_source_that_is_given_stands(serve: Callable[..., Server]) -> None:
    [answer] = serve(lambda prompt: "x").translations(
        text="The weather is fine.", target="zh", source="deu"
    )
    assert (answer["source"], answer["source_detected"]) == ("de", False)


def test_a_stream_tells_of_a_second_attempt_and_ends_with_the_text_that_counts(
    serve: Callable[..., Server],
) -> None:
    server = serve(lambda prompt: "Das Herz ist gut." if "Alles" in prompt else "Alles ist gut.")
    body = {"text": "The heart is fine.", "target": "de", "glossary": {"heart": "Herz"}}
    events = server.events(**body)
    kinds = [event if event == "[DONE]" else event["object"] for event in events]
    restart = kinds.index("translation.restart")

    def text(part: list[Any]) -> str:
        return "".join(event["delta"] for event in part)

    assert text(events[:restart]) == "Alles ist gut."
    assert text(events[restart + 1 : -3]) == "Das Herz ist gut."
    assert kinds[-3:] == ["translation", "translation.usage", "[DONE]"]
    whole = server.post(**body).json()
    assert [events[-3]["translation"]] == whole["translations"]
    assert (events[-2]["usage"], events[-2]["model"]) == (whole["usage"], "bayling")


def test_several_translations_stream_side_by_side(serve: Callable[..., Server]) -> None:
    server = serve(lambda prompt: "Das Herz ist gut.", at_once=2)
    events = server.events(text=["one", "two", "three"], target=["de", "zh"])
    deltas = [event["index"] for event in events[:-2] if event["object"] == "translation.delta"]
    assert deltas != sorted(deltas), "they take turns"
    for index in range(6):
        own = [event for event in events[:-2] if event["index"] == index]
        assert "".join(event["delta"] for event in own[:-1]) == own[-1]["translation"]["text"]


def test_a_long_list_is_sent_a_few_at_a_time_in_order(serve: Callable[..., Server]) -> None:
    server = serve(lambda prompt: "gut", at_once=3)
    texts = [f"number {n}" for n in range(100)]
    answers = server.translations(text=texts, target="de")
    assert [answer["text_index"] for answer in answers] == list(range(100))
    assert server.model.most == 3
    asked = [prompt.split("sentence: ")[1].split("\n")[0] for prompt in server.model.prompts]
    assert asked == texts


@pytest.mark.parametrize("stream", [True, False])
def test_a_first_answer_that_fails_has_a_status_of_its_own(
    serve: Callable[..., Server], stream: bool
) -> None:
    server = serve(lambda prompt: Overloaded())
    response = server.post(text=["a", "b"], target="de", stream=stream)
    assert (response.status_code, response.headers["retry-after"]) == (429, "1")
    assert response.json()["error"]["code"] == "overloaded"


def test_a_failure_in_a_stream_is_an_event_and_ends_the_others(
    serve: Callable[..., Server],
) -> None:
    server = serve(lambda prompt: Overloaded() if "two" in prompt else "gut " * 30, at_once=1)
    events = server.events(text=["one", "two", "three"], target="de")
    assert events[-1]["error"]["code"] == "overloaded"
    assert "[DONE]" not in events
    assert server.left == 0


def test_one_that_fails_takes_those_beside_it_along(serve: Callable[..., Server]) -> None:
    server = serve(lambda prompt: Overloaded() if "two" in prompt else "gut " * 1000, at_once=2)
    assert server.post(text=["one", "two"], target="de").status_code == 429
    assert (server.model.cancelled, server.left) == (1, 0)


GLOSSARY = {"heart": "Herz"}


@pytest.mark.parametrize(
    ("body", "status", "param", "words"),
    [
        ({"text": "x"}, 400, "target", "name a language"),
        ({"text": "x", "target": []}, 400, "target", "name a language"),
        ({"text": "x", "target": ["de", "deu"]}, 400, "target.1", "twice"),
        ({"text": "x", "target": ["de", "dex"]}, 400, "target.1", "knows no language"),
        ({"text": " ", "target": "de"}, 400, "text", "is empty"),
        ({"text": ["x", ""], "target": "de"}, 400, "text.1", "text.1 is empty"),
        ({"text": ["x"] * 100, "target": ["de", "zh", "hi"]}, 413, "text", "300"),
        (
            {"text": "x", "target": ["de", "zh"], "glossary": GLOSSARY},
            400,
            "glossary.heart",
            '{"de": "Herz"}',
        ),
        (
            {"text": "x", "target": "de", "glossary": {"heart": {"dex": "Herz"}}},
            400,
            "glossary.heart.dex",
            "knows no language",
        ),
        ({"text": "x", "target": "de", "glossary": {"heart": ""}}, 400, "glossary.heart", None),
        ({"text": "x", "target": "de", "glossary": {"heart": 5}}, 400, "glossary.heart", None),
        ({"text": "x", "target": "de", "glossary": ["heart"]}, 400, "glossary", None),
        (
            {"text": "x", "history": [{"role": "user", "content": "y"}], "target": ["de", "zh"]},
            400,
            "target",
            "one target",
        ),
        ({"text": "x", "target": "de", "glosary": GLOSSARY}, 400, "glosary", "glossary"),
        ({"text": "x", "target": "de", "stream": "yes"}, 400, "stream", None),
    ],
)
def test_what_is_wrong_with_a_request_is_told_by_name(
    serve: Callable[..., Server], body: Any, status: int, param: str, words: str | None
) -> None:
    server = serve(lambda prompt: "x")
    response = server.post(**body)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (status, param), error
    assert words is None or words in error["message"], error
    assert not server.model.prompts
