from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from judge_server import Answer, Asked, JudgeServer, by_merit, judging

from bayling.errors import UserError
from bayling.evaluate.chat.config import ChatConfig, JudgeConfig
from bayling.evaluate.config import EvaluateConfig
from bayling.evaluate.suites.chat import Chat, suite
from bayling.scale import ScaleConfig
from bayling.stage import Context, TrackedRun

pytestmark = pytest.mark.unit

QUESTIONS = {
    "single.en.jsonl": [
        {"question_id": 1, "text": "Why?", "category": "generic"},
        {"question_id": 2, "text": "What is 1 + 1?", "category": "math"},
    ],
    "multi.zh.jsonl": [
        {"question_id": 1, "text": ["为什么？", "请再说一遍。"], "category": "generic"},
    ],
}
ANSWERS = {  # id → the system's, the baseline's
    "single.en/1": (["good"], ["poor"]),
    "single.en/2": (["poor"], ["good"]),
    "multi.zh/1": (["good", "poor"], ["good", "good"]),
}


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "utf-8")
    return str(path)


def made(folder: Path, url: str = "http://judge/v1", **different: Any) -> Chat:
    files = [write(folder / name, rows) for name, rows in QUESTIONS.items()]
    judge = JudgeConfig(
        url=url,
        model="judge-1",
        price_per_million_prompt_tokens=10.0,
        price_per_million_completion_tokens=30.0,
        retries=0,
    )
    chat = ChatConfig(**{"files": files, "judge": judge, **different})
    tracked = TrackedRun("", "", "")
    context = Context(folder, {}, "f", 1, ScaleConfig(), tracked, lambda *_: None, lambda _: None)
    return suite(EvaluateConfig(chat=chat), context)


def answered(chat: Chat, system: int) -> list[dict[str, Any]]:
    return [{**row, "outputs": ANSWERS[row["id"]][system]} for row in chat.questions]


def counting(seen: list[tuple[float, float]]) -> Any:
    return lambda what, done, of: seen.append((done, of))


def test_a_fair_judge_says_who_is_better(tmp_path: Path) -> None:
    seen: list[tuple[float, float]] = []
    with judging(lambda asked, _: by_merit(asked)) as server:
        chat = made(tmp_path, server.url)
        found = chat.compare(answered(chat, 0), answered(chat, 1), tmp_path, counting(seen))
    shown = found.as_dict()
    details = shown["details"]
    # The third pair has a good answer on both sides.
    assert {name: details[name] for name in ("wins", "ties", "losses", "judged", "unjudged")} == {
        **{"wins": 1, "ties": 1, "losses": 1},
        **{"judged": 3, "unjudged": 0},
    }
    every = {name: value["value"] for name, value in shown["groups"]["all"]["figures"].items()}
    assert every["score_ratio"] == pytest.approx(1.0)
    assert every["win_rate"] == pytest.approx(1 / 3)
    assert every["agreement"] == 1.0
    assert shown["groups"]["math"]["losses"] == 1
    assert shown["groups"]["math"]["figures"]["score_ratio"]["value"] == pytest.approx(4 / 9)
    assert {name: group["kind"] for name, group in shown["groups"].items()} == {
        "all": "overall",
        "single.en": "set",
        "multi.zh": "set",
        "generic": "category",
        "math": "category",
    }
    assert details["against"] == "baseline" and details["judge"] == "judge-1"
    assert details["orders"] == {"agreed": 3, "first_preferred": 0, "second_preferred": 0}
    [lost] = details["lost"]
    assert lost["question"] == "single.en/2" and lost["scores"] == [[4, 9], [4, 9]]
    assert seen[0] == (0, 6) and seen[-1] == (6, 6)
    json.dumps(shown)


def test_tokens_and_money_are_counted(tmp_path: Path) -> None:
    with judging(lambda asked, _: by_merit(asked)) as server:
        chat = made(tmp_path, server.url)
        rows, others = answered(chat, 0), answered(chat, 1)
        cost = chat.compare(rows, others, tmp_path, counting([])).details["cost"]
        again = chat.compare(rows, others, tmp_path, counting([])).details["cost"]
        assert len(server.asked) == 6
    assert cost == again
    assert (cost["requests"], cost["prompt_tokens"], cost["completion_tokens"]) == (6, 600, 60)
    assert cost["price"] == pytest.approx((600 * 10 + 60 * 30) / 1e6)


def test_a_judge_that_prefers_the_first_finds_no_winner(tmp_path: Path) -> None:
    with judging(lambda *_: Answer("The first one.\n[[9, 6]]")) as server:
        chat = made(tmp_path, server.url)
        found = chat.compare(answered(chat, 0), answered(chat, 1), tmp_path, counting([]))
    details = found.details
    assert (details["wins"], details["ties"], details["losses"]) == (0, 3, 0)
    assert details["orders"] == {"agreed": 0, "first_preferred": 3, "second_preferred": 0}
    assert found.samples["all"]["agreement"].value == 0.0
    assert found.samples["all"]["score_ratio"].value == pytest.approx(1.0)


def test_what_is_unjudged_is_named_and_is_no_tie(tmp_path: Path) -> None:
    def nonsense_about_one(asked: Asked, server: JudgeServer) -> Answer:
        if "Why?" in asked.messages[1]["content"]:
            return Answer("I like both.")
        return by_merit(asked)

    with judging(nonsense_about_one) as server:
        chat = made(tmp_path, server.url)
        found = chat.compare(answered(chat, 0), answered(chat, 1), tmp_path, counting([]))
    details = found.details
    assert details["unjudged_questions"] == {"single.en/1": "the judge's answer has no scores"}
    assert (details["wins"], details["ties"], details["losses"]) == (0, 1, 1)
    assert (details["judged"], details["unjudged"]) == (2, 1)
    assert len(found.samples["all"]["score_ratio"]) == 2


def test_with_nothing_judged_there_are_no_figures(tmp_path: Path) -> None:
    with judging(lambda *_: Answer(status=500)) as server:
        chat = made(tmp_path, server.url)
        found = chat.compare(answered(chat, 0), answered(chat, 1), tmp_path, counting([]))
    assert found.as_dict()["groups"] == {}
    assert (found.details["judged"], found.details["unjudged"]) == (0, 3)


def test_published_answers_take_the_place_of_the_baseline(tmp_path: Path) -> None:
    rows = [
        {
            "question_id": row["question_id"],
            "question": row["text"],
            "system1": {"name": "BayLing-13B", "response": ["poor"] * turns},
            "system2": {"name": "GPT-3.5-turbo", "response": ["good"] * turns},
            "score": [5, 9],
        }
        for asked in QUESTIONS.values()
        for row in asked
        for turns in [1 if isinstance(row["text"], str) else len(row["text"])]
    ]
    published = write(tmp_path / "reviews.jsonl", rows)
    with judging(lambda asked, _: by_merit(asked)) as server:
        chat = made(tmp_path, server.url, opponent=[published], opponent_system="BayLing-13B")
        found = chat.compare(answered(chat, 0), None, tmp_path, counting([]))
    assert found.details["against"] == "BayLing-13B"
    assert (found.details["wins"], found.details["ties"]) == (2, 1)


def test_the_decoding_is_named(tmp_path: Path) -> None:
    assert str(made(tmp_path).decoding) == "sampling at temperature 0.7, at most 1024 new tokens"
    assert str(made(tmp_path, temperature=0.0).decoding) == "greedy, at most 1024 new tokens"


def test_without_a_judge_empty_answers_are_counted(tmp_path: Path) -> None:
    chat = made(tmp_path)
    rows = answered(chat, 0)
    rows[2]["outputs"] = ["good", "  "]
    assert chat.score(rows).samples["all"]["empty"].value == pytest.approx(1 / 3)


def test_without_a_baseline_or_an_opponent_there_is_nothing_to_compare(tmp_path: Path) -> None:
    chat = made(tmp_path)
    with pytest.raises(UserError, match=r"name published ones with evaluate\.chat\.opponent"):
        chat.compare(answered(chat, 0), None, tmp_path, counting([]))


def test_an_opponent_that_did_not_answer_is_refused_before_anything_is_asked(
    tmp_path: Path,
) -> None:
    rows = [{"question_id": 1, "text": "Why?", "response": "So."}]
    with pytest.raises(UserError, match="no answer to 2 of 3 questions"):
        made(tmp_path, opponent=[write(tmp_path / "few.jsonl", rows)])


def test_without_questions_or_a_judge_the_suite_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"needs evaluate\.chat\.files and evaluate\.chat"):
        made(tmp_path, files=[], judge=JudgeConfig())
