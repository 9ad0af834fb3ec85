"""Conversations of others lose what would make BayLing believe that it is another model."""

from __future__ import annotations

import pytest

from bayling.data.general import clean
from bayling.templates import Message

pytestmark = pytest.mark.unit
LANGUAGES = ["en", "zh", "de"]


def talk(*turns: str) -> tuple[Message, ...]:
    roles = ("user", "assistant")
    return tuple(Message(roles[number % 2], turn) for number, turn in enumerate(turns))


@pytest.mark.parametrize(
    "turns",
    [
        ("Who are you?", "A friend of yours."),
        ("Hello!", "Hello! As an AI language model, I am glad to help."),
        ("Tell me a story.", "I'm ChatGPT, and this is my story."),
        ("Is it raining?", "I was trained by OpenAI and cannot see the weather."),
        ("你叫什么名字？", "我叫小明。"),
        ("今天天气怎么样？", "作为一个人工智能语言模型，我无法知道天气。"),
        ("Say hello", "Hello there", "And again", "My name is Claude, hello again"),
    ],
)
def test_who_a_model_says_it_is_is_not_learnt(turns: tuple[str, ...]) -> None:
    step, found = clean(talk(*turns), None, LANGUAGES, 1000)
    assert step == "identity"
    assert "who the model is" in str(found)


@pytest.mark.parametrize(
    "turns",
    [
        ("Who painted water lilies?", "Claude Monet painted them, and a bard sang of them."),
        ("What eats grass in the Andes?", "The llama and the alpaca do, and so do sheep."),
        ("Which star sign follows Taurus?", "It is Gemini, the twins, in late spring."),
        ("我们应该怎么做？", "作为一名老师，我认为应该多读书，也要多运动。"),
    ],
)
def test_names_that_mean_something_else_stay(turns: tuple[str, ...]) -> None:
    messages, language = clean(talk(*turns), None, LANGUAGES, 1000)
    assert [message.content for message in messages] == list(turns)
    assert language in ("en", "zh")


def test_paragraphs_and_code_stay_as_they_are() -> None:
    answer = (
        "Like this:\r\n\r\n\r\n\r\n```\ndef f():\r\n\treturn 1\u00a0 \r\n```\r\n- one\u200b\r\n"
    )
    messages, _ = clean(talk("How do I write a function?", answer), "en", LANGUAGES, 1000)
    assert messages[1].content == "Like this:\n\n```\ndef f():\n\treturn 1\n```\n- one"


@pytest.mark.parametrize(
    ("turns", "language", "step", "found"),
    [
        (("Hi", " \n "), "en", "empty", "turn 2 is empty"),
        (("Hi", "word " * 300), "en", "length", "turn 2 has 1,499 characters, over 1,000"),
        (("Bonjour", "Bonjour à tous"), "fr", "language", "fr is not among data.languages"),
        (("1 2 3", "4 5 6"), None, "language", "in none of data.languages"),
    ],
)
def test_what_is_dropped_is_told(
    turns: tuple[str, ...], language: str | None, step: str, found: str
) -> None:
    said = clean(talk(*turns), language, LANGUAGES, 1000)
    assert said[0] == step
    assert found in str(said[1])
