"""How often the gate refuses a model that is as good as the champion, and what it notices.

    python benchmarks/gate.py [--json FILE] [--comparisons N] [--languages en,zh,…] [--workers N]

A model is compared with itself: two independent draws of answers from one process of errors, which
is what two seeds make. The questions are the quickstart's held-out sentences, in all its trained
directions; each is more or less difficult, and is answered right, or wrongly in one of the ways
that such models are wrong: another character, another value, a word too few, half a sentence,
another language, nothing. Conversations, exam and safety questions are drawn as right or wrong.
Then one language is damaged: a share of the sentences into it and from it are answered wrongly
that were right. The gate is the real one, with its default thresholds.

Prints the share of refusals, and for each damage how often the gate refused and whom it named.
Takes about three minutes on two cores.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import random
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from bayling.config import compose
from bayling.data import heldout
from bayling.evaluate import directions
from bayling.evaluate.samples import Sample, share
from bayling.evaluate.suite import ALL, Row, Scored
from bayling.evaluate.translation import Metrics
from bayling.promote.config import PromoteConfig
from bayling.promote.evaluation import Evaluation
from bayling.promote.gate import Verdict, judge

RIGHT = 0.8
"""Of the sentences; the quickstart's model has 55 to 92 %."""
WRONG = {"character": 0.36, "value": 0.26, "word": 0.2, "half": 0.15, "language": 0.02, "no": 0.01}
"""How wrong answers are wrong."""
OTHERS = {"interactive": (100, 0.8), "knowledge": (1000, 0.32), "safety": (200, 0.97)}
"""Suite → its questions, and the share of them that is answered as it should be."""
CONFIG = PromoteConfig(max_off_target=1.0)
"""The defaults; a limit is no comparison, and would refuse or accept all draws alike."""
DAMAGED = "hi"
DAMAGES = (0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass(frozen=True)
class Test:
    """The questions, and what every way of answering them is worth."""

    pairs: tuple[tuple[str, str], ...]
    """Of each question."""
    sheets: tuple[dict[str, Sample], ...]
    """The right answers, and those wrong in each way: figures of all questions, in their order."""
    difficulty: np.ndarray
    """How likely each question is to be answered right."""

    @staticmethod
    def build(languages: Sequence[str], seed: int) -> Test:
        config = compose(["recipe=quickstart", f"data.languages=[{','.join(languages)}]"])
        found = heldout.build(config.data, config.seed).translate
        rows = [row for row in found if not row["zero_shot"]]
        rng = random.Random(seed)
        answered = [[row["target"] for row in rows]]
        for way in WRONG:
            answered.append([_wrong(way, row, rows, rng) for row in rows])
        sheets = []
        for outputs in answered:
            given = [{**row, "outputs": [text]} for row, text in zip(rows, outputs, strict=True)]
            sheets.append(directions.score(given, Metrics(ter=False)).samples[ALL])
        # Some sentences are nearly always right and some nearly never.
        difficulty = np.random.default_rng(seed).beta(2 * RIGHT, 2 * (1 - RIGHT), len(rows))
        pairs = tuple((row["source_lang"], row["target_lang"]) for row in rows)
        return Test(pairs, tuple(sheets), difficulty)

    def answers(self, seed: int, damaged: str = "", damage: float = 0.0) -> dict[str, Scored]:
        """One draw of a model's answers: suite → what was found."""
        rng = np.random.default_rng(seed)
        right = rng.random(len(self.pairs)) < self.difficulty
        hit = np.array([damaged in pair for pair in self.pairs])
        right &= ~(hit & (rng.random(len(right)) < damage))
        way = 1 + rng.choice(len(WRONG), len(right), p=list(WRONG.values()))
        chosen = np.where(right, 0, way)
        drawn = {"heldout": self._scored(chosen)}
        for suite, (number, share_of) in OTHERS.items():
            likely = np.random.default_rng(number).beta(3 * share_of, 3 * (1 - share_of), number)
            hits = (rng.random(number) < likely).astype(float)
            figure = "accuracy" if suite == "knowledge" else "satisfied"
            one = Scored()
            one.samples[ALL] = {figure: share(list(hits))}
            one.groups[ALL] = {"kind": "overall"}
            drawn[suite] = one
        return drawn

    def _scored(self, chosen: np.ndarray) -> Scored:
        scored = Scored()
        figures = {
            name: Sample(
                self.sheets[0][name].figure,
                np.stack([sheet[name].items for sheet in self.sheets])[
                    chosen, np.arange(len(chosen))
                ],
            )
            for name in ("chrf", "exact_match", "off_target")
        }
        scored.samples[ALL], scored.groups[ALL] = figures, {"kind": "overall"}

        def add(group: str, inside: list[bool], **known: Any) -> None:
            chrf = figures["chrf"]
            scored.samples[group] = {"chrf": Sample(chrf.figure, chrf.items[np.array(inside)])}
            scored.groups[group] = known

        for pair in sorted(set(self.pairs)):
            source, target = pair
            known = {"source_lang": source, "target_lang": target, "zero_shot": False}
            add(
                f"{source} → {target}",
                [one == pair for one in self.pairs],
                kind="direction",
                **known,
            )
        for place, kind, key in ((1, "into", "target_lang"), (0, "from", "source_lang")):
            for tag in sorted({pair[place] for pair in self.pairs}):
                inside = [pair[place] == tag for pair in self.pairs]
                add(f"{kind} {tag}", inside, kind=kind, **{key: tag})
        return scored


def _wrong(way: str, row: Row, rows: Sequence[Row], rng: random.Random) -> str:
    """An answer that is wrong in one way."""
    text = str(row["target"])
    if way == "character":
        place = rng.randrange(len(text))
        return text[:place] + rng.choice("0123456789") + text[place + 1 :]
    if way == "value":
        pair = row["source_lang"], row["target_lang"]
        same = [one for one in rows if (one["source_lang"], one["target_lang"]) == pair]
        return str(rng.choice(same)["target"])
    if way == "word":
        words = text.split()
        gone = rng.randrange(len(words))
        return " ".join(words[:gone] + words[gone + 1 :]) or text[:-1]
    if way == "half":
        return text[: len(text) // 2]
    return rng.choice(list(row["in_other_languages"].values())) if way == "language" else ""


def verdict(candidate: dict[str, Scored], champion: dict[str, Scored]) -> Verdict:
    """The gate's, of figures as an evaluation writes them."""
    result = {
        "baseline": "champion",
        "champion_version": "1",
        "systems": {"trained": {name: one.as_dict() for name, one in candidate.items()}},
        "comparison": {
            suite: {
                group: {figure: one.as_dict() for figure, one in figures.items()}
                for group, figures in scored.against(champion[suite]).items()
            }
            for suite, scored in candidate.items()
        },
    }
    with TemporaryDirectory() as folder:
        path = Path(folder) / "scores.json"
        path.write_text(json.dumps(result), "utf-8")
        return judge(Evaluation.read(path), CONFIG, {})


@dataclass(frozen=True)
class Outcome:
    """Of one comparison."""

    refused: bool
    rules: tuple[str, ...]
    named: tuple[str, ...]
    """The groups that the rule about languages blames."""
    loss: float
    """chrF++ that the damaged language lost, into it and from it."""


_test: Test | None = None


def _begin(languages: Sequence[str], seed: int) -> None:
    global _test
    _test = Test.build(languages, seed)


def _compared(task: tuple[int, float]) -> Outcome:
    number, damage = task
    assert _test is not None
    candidate = _test.answers(2 * number, DAMAGED, damage)
    champion = _test.answers(2 * number + 1)
    found = verdict(candidate, champion)
    failed = [finding for finding in found.findings if not finding.passed]
    named = [group for one in failed if one.rule == "max_language_loss" for group in one.groups]
    sides = [f"{side} {DAMAGED}" for side in ("into", "from")]
    lost = [
        champion["heldout"].samples[side]["chrf"].value
        - candidate["heldout"].samples[side]["chrf"].value
        for side in sides
    ]
    return Outcome(
        not found.accepted,
        tuple(sorted({one.rule for one in failed})),
        tuple(named),
        float(np.mean(lost)),
    )


def _named(outcome: Outcome) -> bool:
    """Whether the damaged language, and no other, is blamed."""
    return {group.split()[-1] for group in outcome.named} == {DAMAGED}


def main() -> None:
    parser = argparse.ArgumentParser(description="How often the gate is wrong.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--comparisons", type=int, default=400)
    parser.add_argument("--damaged", type=int, default=40, help="comparisons for each damage")
    parser.add_argument("--languages", default="en,zh,de,ru,ar,hi,sw,ja")
    parser.add_argument("--seed", type=int, default=1, help="of the questions' difficulty")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    languages = arguments.languages.split(",")
    rate = CONFIG.false_refusals

    with ProcessPoolExecutor(
        arguments.workers,
        mp_context=get_context("spawn"),
        initializer=_begin,
        initargs=(languages, arguments.seed),
    ) as pool:
        equal = list(pool.map(_compared, [(one, 0.0) for one in range(arguments.comparisons)]))
        refused = [one for one in equal if one.refused]
        print(
            f"a model and itself: {len(refused)} of {len(equal)} refused, at most {rate:.0%} may be"
        )
        for rule in sorted({rule for one in refused for rule in one.rules}):
            print(f"  {rule}: {sum(rule in one.rules for one in refused)}")
        noticed = {}
        print(f"{DAMAGED} damaged: the share of its right answers made wrong, and what it lost")
        for damage in DAMAGES:
            # Other draws than those above.
            tasks = [(10**6 + one, damage) for one in range(arguments.damaged)]
            found = list(pool.map(_compared, tasks))
            noticed[str(damage)] = figures = {
                "chrf_lost": float(np.mean([one.loss for one in found])),
                "refused": float(np.mean([one.refused for one in found])),
                "named": float(np.mean([_named(one) for one in found])),
            }
            print(
                f"  {damage:4.0%}  {figures['chrf_lost']:5.1f} chrF++: "
                f"refused {figures['refused']:.0%}, {DAMAGED} alone named {figures['named']:.0%}"
            )
    if arguments.json:
        result = {
            "ratios": {"refusals_over_stated_rate": len(refused) / len(equal) / rate},
            "figures": {
                "comparisons": len(equal),
                "refused": len(refused),
                "false_refusals": rate,
                "damaged": noticed,
            },
            "machine": {"cpus": os.cpu_count(), "system": platform.platform()},
            "versions": {
                name: importlib.metadata.version(name)
                for name in ("bayling-platform", "numpy", "sacrebleu")
            },
        }
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
