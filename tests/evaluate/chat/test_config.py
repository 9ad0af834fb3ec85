from __future__ import annotations

import pytest

from bayling.config import compose
from bayling.errors import UserError
from bayling.evaluate.chat.config import ChatConfig, JudgeConfig

pytestmark = pytest.mark.unit

JUDGE = "evaluate.chat.judge"


def test_answers_are_sampled_as_published_unless_asked_for_otherwise() -> None:
    assert compose([]).evaluate.chat.temperature == 0.7
    assert compose(["evaluate.chat.temperature=0"]).evaluate.chat.temperature == 0


@pytest.mark.parametrize(
    ("override", "says"),
    [
        (f"{JUDGE}.url=judge:8000", "is no address"),
        (f"{JUDGE}.url='http://[judge/v1'", "is no address"),
        (f"{JUDGE}.url=https://me:secret@judge/v1", "must hold no key"),
        (f"{JUDGE}.concurrency=0", "must be at least 1"),
        (f"{JUDGE}.timeout_s=0", "must be above 0"),
        (f"{JUDGE}.retries=-1", "must be at least 0"),
        (f"{JUDGE}.price_per_million_prompt_tokens=-1", "must be at least 0"),
        ("evaluate.chat.temperature=-1", "must be at least 0"),
        ("evaluate.chat.max_new_tokens=0", "must be at least 1"),
        ("evaluate.chat.opponent_system=GPT-4", "name its files too"),
        (f"{JUDGE}.modle=gpt-4", "did you mean evaluate.chat.judge.model"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_key(override: str, says: str) -> None:
    with pytest.raises(UserError) as refused:
        compose([override])
    said = str(refused.value)
    assert override.split("=")[0].removesuffix(".modle") in said and says in said
    assert "secret" not in said


def test_the_suite_names_what_it_lacks() -> None:
    with pytest.raises(UserError) as refused:
        ChatConfig(files=["x.jsonl"], judge=JudgeConfig(url="http://judge/v1")).require()
    assert "needs evaluate.chat.judge.model:" in str(refused.value)


def test_a_suite_that_cannot_be_asked_is_refused_before_anything_runs() -> None:
    with pytest.raises(UserError, match=r"the suite chat needs evaluate\.chat\.files and"):
        compose(["evaluate.suites=[heldout,chat]"])
    whole = compose(
        [
            "evaluate.suites=[chat]",
            "evaluate.chat.files=[x.jsonl]",
            "evaluate.chat.opponent=[y.jsonl]",
            f"{JUDGE}.url=http://judge",
            f"{JUDGE}.model=gpt-4",
        ]
    ).evaluate
    assert whole.all_files == ["x.jsonl", "y.jsonl"]


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("https://api.openai.com/v1", "https://api.openai.com/v1/chat/completions"),
        ("http://judge:8000", "http://judge:8000/v1/chat/completions"),
        ("http://judge:8000/", "http://judge:8000/v1/chat/completions"),
        ("http://gateway/llm/v1/", "http://gateway/llm/v1/chat/completions"),
    ],
)
def test_an_address_is_taken_as_openais_client_takes_it(url: str, endpoint: str) -> None:
    assert JudgeConfig(url=url).endpoint == endpoint
