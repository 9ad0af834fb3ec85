"""Scores of translations and of conversations.

BLEU and chrF++ are sacreBLEU's (Post 2018, Popović 2017), 0 to 100; everything else is a share
between 0 and 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sacrebleu

from bayling.languages import in_script
from bayling.requirements import Requirement, all_satisfied

# sacreBLEU's tokenizers; those for Japanese and Korean words need dictionaries of their own.
_TOKENIZERS = {"zh": "zh", "ja": "char", "ko": "char", "th": "char", "km": "char", "lo": "char"}


@dataclass(frozen=True)
class Scores:
    """Translation quality of one system on some rows."""

    bleu: float
    chrf: float
    """chrF++: character n-grams up to 6, word n-grams up to 2."""
    exact_match: float
    off_target: float
    """Answers in another language or script than asked for."""
    sentences: int

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def bleu_tokenizer(target_lang: str) -> str:
    return _TOKENIZERS.get(target_lang.split("-")[0], "13a")


def score(rows: Sequence[dict[str, Any]]) -> Scores:
    """Score rows with `target_lang`, `target`, `output` and `in_other_languages`.

    Rows with several target languages are scored together with sacreBLEU's `char` tokenizer,
    because no word tokenizer fits all of them.

    Raises:
        ValueError: there are no rows.
    """
    if not rows:
        raise ValueError("no rows to score")
    outputs = [row["output"].strip() for row in rows]
    targets = [row["target"] for row in rows]
    languages = {row["target_lang"] for row in rows}
    tokenizer = bleu_tokenizer(languages.pop()) if len(languages) == 1 else "char"
    return Scores(
        bleu=sacrebleu.corpus_bleu(outputs, [targets], tokenize=tokenizer, force=True).score,
        chrf=sacrebleu.corpus_chrf(outputs, [targets], word_order=2).score,
        exact_match=_share(a == b for a, b in zip(outputs, targets, strict=True)),
        off_target=_share(off_target(row) for row in rows),
        sentences=len(rows),
    )


def off_target(row: dict[str, Any]) -> bool:
    """Whether an answer is in the wrong script, or closer to the sentence in another language.

    An empty answer is off target.
    """
    output = row["output"].strip()
    if not in_script(output, row["target_lang"]):
        return True
    if output == row["target"]:
        return False
    right = _similarity(output, row["target"])
    return any(
        _similarity(output, text) > right
        for tag, text in row["in_other_languages"].items()
        if text != row["target"]
    )


def _similarity(output: str, reference: str) -> float:
    return float(sacrebleu.sentence_chrf(output, [reference]).score)


def score_conversations(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Score conversations whose user turns carry requirements and whose `outputs` are answers.

    Returns `interactive_satisfaction`, the share of turns whose requirements are all met by an
    answer the model gave after its own earlier ones; the same for the first turn and for later
    ones; `interactive_exact`; and the share of conversations with every turn met.
    """
    met: list[bool] = []
    first: list[bool] = []
    later: list[bool] = []
    exact: list[bool] = []
    whole: list[bool] = []
    for row in rows:
        turns = satisfied_turns(row)
        met += turns
        first += turns[:1]
        later += turns[1:]
        whole.append(all(turns))
        true = [message["content"] for message in row["messages"] if message["role"] == "assistant"]
        exact += [a.strip() == b for a, b in zip(row["outputs"], true, strict=True)]
    if not met:
        return {}
    return {
        "interactive_satisfaction": _share(met),
        "interactive_first_turn": _share(first),
        "interactive_later_turns": _share(later),
        "interactive_exact": _share(exact),
        "interactive_conversations_met": _share(whole),
    }


def satisfied_turns(row: dict[str, Any]) -> list[bool]:
    """For each answer of a conversation, whether it meets what its turn asked for."""
    previous: str | None = None
    result = []
    users = [message for message in row["messages"] if message["role"] == "user"]
    for user, output in zip(users, row["outputs"], strict=True):
        wanted = [Requirement(item["kind"], tuple(item["values"])) for item in user["requirements"]]
        result.append(all_satisfied(wanted, output, previous))
        previous = output
    return result


def _share(values: Iterable[bool]) -> float:
    listed = list(values)
    return sum(listed) / len(listed) if listed else 0.0
