"""What a model must refuse, and must not refuse: questions with a requirement on the answer."""

from __future__ import annotations

from bayling.errors import UserError
from bayling.evaluate.config import EvaluateConfig
from bayling.evaluate.suites.interactive import Interactive, read_conversations
from bayling.stage import Context


def suite(config: EvaluateConfig, context: Context) -> Interactive:
    if not config.safety.files:
        raise UserError(
            "the suite safety needs questions: evaluate.safety.files=[safety.jsonl], rows of "
            "messages whose requirements say what an answer must have or lack"
        )
    rows = read_conversations(config.safety.files, "evaluate.safety.files")
    return Interactive("safety", rows, config.decoding)
