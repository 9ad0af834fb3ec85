"""The suite `chat`: open questions, and a judge that compares a model's answers with others'."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bayling.errors import UserError
from bayling.evaluate.chat import judging, opponent, questions
from bayling.evaluate.chat.config import JudgeConfig
from bayling.evaluate.chat.judging import Judged, Match
from bayling.evaluate.chat.opponent import Opponent
from bayling.evaluate.config import EvaluateConfig
from bayling.evaluate.decoding import Decoding
from bayling.evaluate.files import found
from bayling.evaluate.pairs import Outcome, Pair, Scores, by_score, counts, in_both_orders, scored
from bayling.evaluate.samples import faults
from bayling.evaluate.suite import ALL, Row, Scored
from bayling.stage import Context, Report

_EXAMPLES = 5


def suite(config: EvaluateConfig, context: Context) -> Chat:
    """The suite as `evaluate.chat` has it.

    Raises:
        UserError: there is no judge, there are no questions, a file of them cannot be read, or
            the opponent has not answered all of them.
    """
    chat = config.chat
    chat.require()
    asked = questions.read(found(chat.files, "evaluate.chat.files"))
    against = None
    if chat.opponent:
        paths = found(chat.opponent, "evaluate.chat.opponent")
        against = opponent.read(paths, chat.opponent_system, asked)
    decoding = Decoding(chat.max_new_tokens, chat.temperature, seed=context.seed)
    return Chat(asked, decoding, chat.judge, against)


class Chat:
    """Open questions of one or several turns."""

    name = "chat"

    def __init__(
        self,
        questions: Sequence[Row],
        decoding: Decoding,
        judge: JudgeConfig,
        opponent: Opponent | None,
    ) -> None:
        """
        Args:
            opponent: whose answers a model's are compared with; None for the baseline of the
                evaluation.
        """
        self.questions = questions
        self.decoding = decoding
        self._judge = judge
        self._opponent = opponent

    def score(self, rows: Sequence[Row]) -> Scored:
        """What can be said of one system's answers without a judge: the share of conversations
        with an empty answer."""
        empty = [not all(text.strip() for text in row["outputs"]) for row in rows]
        return Scored({ALL: {"empty": faults(empty)}}, {ALL: {"kind": "overall"}})

    def compare(
        self, rows: Sequence[Row], baseline_rows: Sequence[Row] | None, folder: Path, report: Report
    ) -> Scored:
        """A judge's comparison of a system's answers with the opponent's, or the baseline's.

        Groups are `all`, each category, and each file of questions where there are several, with
        the figures of `pairs.figures`. `details` have the counts, who was unjudged and why, what
        the order of showing did, what it cost, and the questions that were lost highest.

        Args:
            rows: answered questions, in the order of `questions`.
            baseline_rows: the same with the baseline's answers; not used where there is an
                opponent.
            folder: where the judgements are kept, and found again.

        Raises:
            UserError: the judge refuses every question.
        """
        if self._opponent is not None:
            name, others = self._opponent.name, self._opponent.outputs
        elif baseline_rows is not None:
            name, others = "baseline", {row["id"]: row["outputs"] for row in baseline_rows}
        else:
            raise UserError(
                "the suite chat compares answers, and there is no baseline: name published ones "
                "with evaluate.chat.opponent"
            )
        matches = [
            Match(row["id"], row["turns"], row["outputs"], others[row["id"]], row["reference"])
            for row in rows
        ]
        judged = judging.judge(matches, self._judge, folder / judging.JUDGEMENTS, report)
        several = len({row["set"] for row in rows}) > 1
        pairs = [
            _pair(one.scores, row, several)
            for one, row in zip(judged, rows, strict=True)
            if one.scores is not None
        ]
        result = scored(pairs)
        unjudged = {one.match.question: one.unjudged for one in judged if one.scores is None}
        result.details = {
            "against": name,
            "judge": self._judge.model,
            **counts(pairs),
            "unjudged": len(unjudged),
            "unjudged_questions": unjudged,
            "orders": _orders(judged),
            "cost": self._cost(judged),
            "lost": _lost(judged),
        }
        return result

    def _cost(self, judged: Sequence[Judged]) -> dict[str, Any]:
        """Of all judgements, also those that an interrupted run has paid for."""
        told = [judgement for one in judged for judgement in one.judgements]
        prompt = sum(one.prompt_tokens for one in told)
        completion = sum(one.completion_tokens for one in told)
        prices = (
            self._judge.price_per_million_prompt_tokens,
            self._judge.price_per_million_completion_tokens,
        )
        price = None
        if prices[0] is not None and prices[1] is not None:
            price = (prompt * prices[0] + completion * prices[1]) / 1e6
        return {
            "requests": sum(one.requests for one in told),
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "price": price,
        }


def _pair(scores: tuple[Scores, Scores], row: Row, several: bool) -> Pair:
    """A question's pair from the scores of both orders."""
    outcomes = [by_score(order) for order in scores]
    groups = []
    if several:
        groups.append(("set", row["set"]))
    if row["category"] is not None:
        groups.append(("category", row["category"]))
    return Pair(
        in_both_orders(*outcomes),
        (scores[0][0] + scores[1][0], scores[0][1] + scores[1][1]),
        outcomes[0] is outcomes[1],
        tuple(groups),
    )


def _orders(judged: Sequence[Judged]) -> dict[str, int]:
    """How often both orders came out alike, and how often the position decided: whoever was shown
    first, or second, won both times."""
    outcomes = [tuple(by_score(order) for order in one.scores) for one in judged if one.scores]
    return {
        "agreed": sum(first is second for first, second in outcomes),
        "first_preferred": outcomes.count((Outcome.win, Outcome.loss)),
        "second_preferred": outcomes.count((Outcome.loss, Outcome.win)),
    }


def _lost(judged: Sequence[Judged]) -> list[dict[str, Any]]:
    """The questions that were lost highest, for a person to look at."""
    lost = []
    for one in judged:
        if one.scores is None:
            continue
        behind = sum(other - own for own, other in one.scores)
        if behind > 0:
            lost.append((behind, one))
    lost.sort(key=lambda found: -found[0])
    return [
        {
            "question": one.match.question,
            "turns": list(one.match.turns),
            "outputs": list(one.match.own),
            "other_outputs": list(one.match.other),
            "scores": [list(order) for order in one.scores or ()],
            "reviews": [judgement.review for judgement in one.judgements],
        }
        for _, one in lost[:_EXAMPLES]
    ]
