"""The suite `chat` in the evaluate stage: a real model, a real champion, and a judge."""

from __future__ import annotations

import json
from pathlib import Path

from judge_server import Answer, Asked, JudgeServer, judging
from running import Finished

from bayling.evaluate.answers import read_lines


def by_length(asked: Asked, server: JudgeServer) -> Answer:
    """Longer is better, whoever is shown first."""
    first, second = (min(10, 1 + len(text) // 4) for text in asked.answers)
    return Answer(f"I count letters.\n[[{first}, {second}]]")


def test_a_model_is_compared_with_the_champion_by_a_judge(smoke: Finished, tmp_path: Path) -> None:
    questions = tmp_path / "questions.jsonl"
    rows = [
        {"question_id": 1, "text": "How many days are in a week?", "category": "knowledge"},
        {"question_id": 2, "text": ["Say it in German.", "And in Swahili."], "category": "writing"},
    ]
    questions.write_text("\n".join(map(json.dumps, rows)))
    model = smoke.folder("train") / smoke.outputs["train"].outputs["untrained"]
    with judging(by_length) as server:
        pipeline, _ = smoke.pipeline(
            "experiment=evaluations",
            f"evaluate.model={model}",
            "evaluate.suites=[chat]",
            f"evaluate.chat.files=['{questions}']",
            "evaluate.chat.max_new_tokens=12",
            f"evaluate.chat.judge.url={server.url}",
            "evaluate.chat.judge.model=judge-1",
        )
        pipeline.run_stage("evaluate")
    assert len(server.asked) == 4
    folder = pipeline.folder("evaluate")
    answered = read_lines(folder / "answers" / "model" / "chat.jsonl")
    assert [len(row["outputs"]) for row in answered] == [1, 2]
    result = json.loads((folder / "scores.json").read_text("utf-8"))
    assert result["decoding"]["chat"].startswith("sampling at temperature 0.7, at most 12 new")
    found = result["systems"]["model"]["chat"]
    assert found["details"]["against"] == "baseline"
    assert (found["details"]["judged"], found["details"]["unjudged"]) == (2, 0)
    assert {"score_ratio", "win_rate", "agreement"} <= set(found["groups"]["all"]["figures"])
    assert {"knowledge", "writing"} <= set(found["groups"])
    assert found["details"]["orders"]["agreed"] == 2
    assert (folder / "report" / "scores.html").exists()
