"""A judge that behaves, and judges that do not: each is a real server."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from judge_server import Answer, Asked, JudgeServer, by_merit, judging

from bayling.errors import UserError
from bayling.evaluate.chat.config import JudgeConfig
from bayling.evaluate.chat.judging import JUDGEMENTS, Judged, Match, judge

pytestmark = pytest.mark.unit

KEY = "sk-not-to-be-seen"


def matches(number: int = 3) -> list[Match]:
    return [
        Match(f"q/{index}", [f"Question {index}?"], [f"good {index}"], [f"poor {index}"])
        for index in range(number)
    ]


def ask(
    server: JudgeServer, folder: Path, among: list[Match] | None = None, **different: object
) -> list[Judged]:
    settings: dict[str, object] = {"timeout_s": 5.0, "retries": 1, **different}
    config = JudgeConfig(url=server.url, model="judge-1", **settings)  # type: ignore[arg-type]
    asked = matches() if among is None else among
    return judge(asked, config, folder / JUDGEMENTS, lambda *_: None)


def behaves(asked: Asked, server: JudgeServer) -> Answer:
    return by_merit(asked)


def test_each_pair_is_judged_in_both_orders_at_temperature_0(tmp_path: Path) -> None:
    with judging(behaves) as server:
        judged = ask(server, tmp_path)
    assert [one.scores for one in judged] == [((9, 4), (9, 4))] * 3
    shown = {asked.answers for asked in server.asked}
    assert shown == {
        pair
        for index in range(3)
        for pair in [(f"good {index}", f"poor {index}"), (f"poor {index}", f"good {index}")]
    }
    for asked in server.asked:
        assert asked.path == "/v1/chat/completions"
        assert (asked.body["model"], asked.body["temperature"]) == ("judge-1", 0)
        assert "authorization" not in asked.headers


def test_a_run_that_was_killed_asks_for_nothing_twice(tmp_path: Path) -> None:
    with judging(behaves) as server:
        first = ask(server, tmp_path, matches(2))
        file = tmp_path / JUDGEMENTS
        # Killed while it wrote the fourth judgement.
        file.write_bytes(file.read_bytes()[:-30])
        kept = [json.loads(line) for line in file.read_text().splitlines()[:-1]]
        before = len(server.asked)
        again = ask(server, tmp_path, matches(3))
    assert before == 4 and len(kept) == 3
    assert len(server.asked) == before + 1 + 2
    assert [one.scores for one in again[:2]] == [one.scores for one in first]
    assert len(file.read_text().splitlines()) == 6


def test_other_answers_are_judged_anew(tmp_path: Path) -> None:
    with judging(behaves) as server:
        ask(server, tmp_path, matches(1))
        worse = [Match("q/0", ["Question 0?"], ["poor now"], ["poor 0"])]
        [judged] = ask(server, tmp_path, worse)
    assert judged.scores == ((4, 4), (4, 4))
    assert len(server.asked) == 4


def test_a_judge_that_is_busy_is_asked_again_when_it_says(tmp_path: Path) -> None:
    def busy_at_first(asked: Asked, server: JudgeServer) -> Answer:
        if len(server.asked) <= 2:
            return Answer(status=429, headers={"retry-after": "0.3"})
        return by_merit(asked)

    with judging(busy_at_first) as server:
        began = time.monotonic()
        [judged] = ask(server, tmp_path, matches(1))
        took = time.monotonic() - began
    assert judged.scores == ((9, 4), (9, 4))
    assert 0.3 <= took < 1.0  # its own pauses would be from half a second on
    assert len(server.asked) == 4


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_judge_that_never_answers_leaves_pairs_unjudged(tmp_path: Path, status: int) -> None:
    def down(asked: Asked, server: JudgeServer) -> Answer:
        return Answer(status=status, headers={"retry-after": "0"}, error="try later")

    with judging(down) as server:
        judged = ask(server, tmp_path)
    assert [one.scores for one in judged] == [None] * 3
    assert {one.unjudged for one in judged} == {f"{status}: try later (2 tries)"}
    assert len(server.asked) == 3 * 2 * 2
    # Nothing was said that would be worth keeping: another run asks again.
    assert (tmp_path / JUDGEMENTS).read_text() == ""


def test_a_judge_that_hangs_leaves_its_pair_unjudged_and_the_others_judged(tmp_path: Path) -> None:
    def hangs_at_one(asked: Asked, server: JudgeServer) -> Answer:
        if "good 1" in asked.answers:
            server.closing.wait(30)
        return by_merit(asked)

    with judging(hangs_at_one) as server:
        began = time.monotonic()
        judged = ask(server, tmp_path, timeout_s=0.5, retries=0)
        assert time.monotonic() - began < 5
    assert [one.scores is None for one in judged] == [False, True, False]
    assert judged[1].unjudged == "no answer within 0.5 s (1 try)"


def test_nonsense_is_asked_about_once_more_and_then_counted(tmp_path: Path) -> None:
    def nonsense(asked: Asked, server: JudgeServer) -> Answer:
        if "good 0" in asked.answers:
            return Answer("Both are lovely.")
        # Understands at the second try.
        return by_merit(asked) if len(asked.messages) > 2 else Answer("8 of 10 for the first.")

    with judging(nonsense) as server:
        judged = ask(server, tmp_path, matches(2))
        assert len(server.asked) == 2 * 2 * 2
        assert judged[0].scores is None
        assert judged[0].unjudged == "the judge's answer has no scores"
        assert judged[1].scores == ((9, 4), (9, 4))
        # What was paid for is counted, and at temperature 0 nothing else would be said.
        assert [one.requests for one in judged[0].judgements] == [2, 2]
        assert sum(one.prompt_tokens for one in judged[0].judgements) == 400
        again = ask(server, tmp_path, matches(2))
        assert len(server.asked) == 8
    assert [one.scores for one in again] == [one.scores for one in judged]


def test_an_answer_without_a_text_is_nonsense(tmp_path: Path) -> None:
    with judging(lambda *_: Answer(None)) as server:
        [judged] = ask(server, tmp_path, matches(1))
    assert judged.scores is None and len(server.asked) == 4


def test_a_pair_that_is_refused_alone_is_unjudged_alone(tmp_path: Path) -> None:
    def too_long(asked: Asked, server: JudgeServer) -> Answer:
        if "good 1" in asked.answers:
            return Answer(status=400, error="the context has 100 tokens")
        return by_merit(asked)

    with judging(too_long) as server:
        judged = ask(server, tmp_path)
    assert [one.unjudged for one in judged] == ["", "400: the context has 100 tokens", ""]
    assert len(server.asked) == 6  # another try would change nothing


def test_a_key_is_sent_and_never_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_KEY", f"{KEY}\n")

    def refuses(asked: Asked, server: JudgeServer) -> Answer:
        return Answer(status=401, error=f"{asked.headers['authorization']} is no key")

    with judging(refuses) as server, pytest.raises(UserError) as refused:
        ask(server, tmp_path, key_variable="THE_KEY")
    assert server.asked[0].headers["authorization"] == f"Bearer {KEY}"
    said = str(refused.value)
    assert "401" in said and "$THE_KEY" in said and KEY not in said
    assert KEY not in (tmp_path / JUDGEMENTS).read_text()


def test_what_was_judged_before_a_refusal_is_kept(tmp_path: Path) -> None:
    def refuses_later(asked: Asked, server: JudgeServer) -> Answer:
        return by_merit(asked) if len(server.asked) <= 3 else Answer(status=404, error="no judge-1")

    with judging(refuses_later) as server, pytest.raises(UserError, match="404: no judge-1"):
        ask(server, tmp_path, concurrency=1)
    assert len((tmp_path / JUDGEMENTS).read_text().splitlines()) == 3


def test_no_more_are_asked_at_a_time_than_allowed(tmp_path: Path) -> None:
    def slow(asked: Asked, server: JudgeServer) -> Answer:
        server.closing.wait(0.05)
        return by_merit(asked)

    with judging(slow) as server:
        ask(server, tmp_path, matches(6), concurrency=3)
    assert server.most_at_once == 3


def test_a_judge_that_is_down_is_not_waited_for_with_each_pair(tmp_path: Path) -> None:
    with judging(lambda *_: Answer(status=503)) as server:
        judged = ask(server, tmp_path, matches(30), retries=0, concurrency=4)
    assert all(one.scores is None for one in judged)
    assert len(server.asked) < 30
    assert judged[-1].unjudged.startswith("not asked, as ")


def test_a_judge_that_is_not_there_is_named_in_the_reason(tmp_path: Path) -> None:
    with judging(behaves) as server:
        pass
    [judged] = ask(server, tmp_path, matches(1), retries=0)
    assert "connect" in judged.unjudged


def test_a_file_of_judgements_that_was_edited_is_refused_by_its_line(tmp_path: Path) -> None:
    with judging(behaves) as server:
        ask(server, tmp_path, matches(1))
        file = tmp_path / JUDGEMENTS
        file.write_text(file.read_text() + '{"scores": [1, 2]}\n')
        with pytest.raises(UserError, match="line 3 is no judgement"):
            ask(server, tmp_path, matches(1))
