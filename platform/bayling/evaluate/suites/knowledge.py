"""Exams in AGIEval's format, zero-shot: what the model knows, and whether it answers as asked."""

from __future__ import annotations

from collections.abc import Sequence

from bayling.errors import UserError
from bayling.evaluate import choices, exam_scores
from bayling.evaluate.config import EvaluateConfig
from bayling.evaluate.decoding import Decoding
from bayling.evaluate.suite import Row, Scored
from bayling.stage import Context


class Knowledge:
    """The questions of all exams of which it is known what is right."""

    name = "knowledge"

    def __init__(self, exams: Sequence[choices.QuestionFile], decoding: Decoding) -> None:
        self.decoding = decoding
        self.questions: Sequence[Row] = [row for exam in exams for row in exam.rows()]
        self._unlabelled = {exam.name: exam.unlabelled for exam in exams if exam.unlabelled}

    def score(self, rows: Sequence[Row]) -> Scored:
        scored = exam_scores.score(rows)
        if self._unlabelled:
            scored.details["unlabelled"] = self._unlabelled
        return scored


def suite(config: EvaluateConfig, context: Context) -> Knowledge:
    """The suite over `evaluate.knowledge.files`.

    Raises:
        UserError: there are none, one cannot be read, or none has a label.
    """
    own = config.knowledge
    if not own.files:
        raise UserError(
            "the suite knowledge needs exams in AGIEval's format: "
            "evaluate.knowledge.files=[agieval/*.jsonl]"
        )
    exams = [choices.read(path) for path in choices.find(own.files, "evaluate.knowledge.files")]
    made = Knowledge(exams, Decoding(own.max_new_tokens))
    if not made.questions:
        raise UserError(f"no question in {', '.join(own.files)} has a label")
    return made
