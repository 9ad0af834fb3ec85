"""How fast an evaluation generates, beside a plain loop of batched `generate` calls.

    python benchmarks/evaluate.py [--json FILE] [--model FOLDER] [--rounds N] [--prompts N]

Both answer the same prompts with the same model, greedily, and make the same tokens. The plain loop
is what evaluation scripts have: prompts sorted by length, padded batches of 64, transformers'
`generate`, with one thread or all of them, whichever is faster. The evaluation has its Ray actors,
two engines of one thread each. They take turns; a ratio is the median over the rounds. Loading is
left out of both, writing the answers is not.

The model is the quickstart's champion unless another export is named. Takes about three minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch

from bayling.cluster import local
from bayling.evaluate.answers import Answers
from bayling.evaluate.config import EvaluateConfig
from bayling.evaluate.decoding import Decoding
from bayling.evaluate.generate import Answerers
from bayling.evaluate.suite import Row
from bayling.evaluate.suites.heldout import HeldOut
from bayling.model_folder import Serving, load_chat
from bayling.scale import ScaleConfig
from bayling.templates import Message

BATCH, NEW_TOKENS = 64, 40


class Plain:
    """The loop that people write."""

    def __init__(self, folder: Path) -> None:
        from bayling.engines.loading import load_model

        self._model = load_model(folder, "cpu", "auto")
        self._chat = load_chat(folder, Serving.read(folder).template)

    def warm_up(self, rows: Sequence[Row]) -> int:
        """Take the number of threads that is faster, and return it."""
        took = {}
        for threads in (1, os.cpu_count() or 1):
            torch.set_num_threads(threads)
            self.answer(rows)
            started = time.perf_counter()
            self.answer(rows)
            took[threads] = time.perf_counter() - started
        best = min(took, key=lambda threads: took[threads])
        torch.set_num_threads(best)
        return best

    @torch.inference_mode()
    def answer(self, rows: Sequence[Row]) -> tuple[list[str], int]:
        """The answers, and how many tokens were generated for them."""
        prompts = [self._chat.prompt_ids([Message("user", row["turns"][0])]) for row in rows]
        stops = list(self._chat.stop_ids)
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        answers, tokens = [""] * len(prompts), 0
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            longest = max(len(prompts[index]) for index in batch)
            pads = [longest - len(prompts[index]) for index in batch]
            ids = [[0] * pad + prompts[index] for pad, index in zip(pads, batch, strict=True)]
            mask = [[0] * pad + [1] * (longest - pad) for pad in pads]
            made = self._model.generate(
                input_ids=torch.tensor(ids),
                attention_mask=torch.tensor(mask),
                max_new_tokens=NEW_TOKENS,
                do_sample=False,
                eos_token_id=stops,
                pad_token_id=stops[0],
            )
            for index, row in zip(batch, made[:, longest:].tolist(), strict=True):
                end = next((at for at, token in enumerate(row) if token in stops), len(row))
                tokens += end
                answers[index] = self._chat.tokenizer.decode(row[:end], skip_special_tokens=True)
        return answers, tokens


def evaluation(answerers: Answerers, model: Path, rows: Sequence[Row], place: Path) -> list[Row]:
    """As the evaluate stage does it, from questions to answers on disk."""
    suite = HeldOut([{**row, "prompt": row["turns"][0]} for row in rows], Decoding(NEW_TOKENS))
    answers = Answers(place, suite)
    waiting, running = answers.missing(BATCH), 0
    while waiting or running:
        while waiting and answerers.room:
            piece = waiting.pop(0)
            answerers.submit(piece, model, suite.decoding, answers.questions(piece))
            running += 1
        piece, made = answerers.next()
        running -= 1
        answers.keep(piece, made.rows)
    return answers.read()


def main() -> None:
    options = _options()
    model = options.model or _champion()
    rows = _questions(model, options.prompts)
    scale = ScaleConfig()
    plain = Plain(model)
    speeds: dict[str, list[float]] = {"plain": [], "evaluation": []}
    with local.connected(scale), tempfile.TemporaryDirectory() as folder:
        answerers = Answerers(EvaluateConfig(max_batch=BATCH), scale)
        evaluation(answerers, model, rows[:BATCH], Path(folder) / "warm")
        threads = plain.warm_up(rows[: 2 * BATCH])
        print(f"the plain loop is faster with {threads} thread{'s' if threads > 1 else ''}")
        for number in range(options.rounds):
            started = time.perf_counter()
            texts, tokens = plain.answer(rows)
            middle = time.perf_counter()
            answered = evaluation(answerers, model, rows, Path(folder) / str(number))
            ended = time.perf_counter()
            speeds["plain"].append(tokens / (middle - started))
            speeds["evaluation"].append(tokens / (ended - middle))
            same = sum(a == row["outputs"][0] for a, row in zip(texts, answered, strict=True))
            print(
                f"round {number + 1}: {speeds['plain'][-1]:,.0f} tokens/s in a plain loop, "
                f"{speeds['evaluation'][-1]:,.0f} in the evaluation; {same} of {len(rows)} "
                "answers are the same"
            )
        answerers.close()
    ratios = [a / b for a, b in zip(speeds["evaluation"], speeds["plain"], strict=True)]
    ratio = statistics.median(ratios)
    print(
        f"evaluation over plain generate: {ratio:.2f} (rounds {min(ratios):.2f}–{max(ratios):.2f})"
    )
    result = {
        "ratios": {"evaluation_over_generate": ratio},
        "figures": {name: statistics.median(those) for name, those in speeds.items()},
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": {name: metadata.version(name) for name in ("torch", "transformers", "ray")},
    }
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


def _questions(model: Path, number: int) -> list[Row]:
    """Held-out questions in the languages that the model knows."""
    from bayling.config import compose
    from bayling.data import heldout

    languages = Serving.read(model).languages
    config = compose(["recipe=quickstart", f"data.languages=[{','.join(languages)}]"])
    made = heldout.build(config.data, seed=config.seed)
    rows = made.translate[:: max(1, len(made.translate) // number)][:number]
    return [{**row, "turns": [row["prompt"]]} for row in rows]


def _champion() -> Path:
    from bayling.config import compose
    from bayling.registry import models

    config = compose(["recipe=quickstart"])
    version = models.require_alias(config.tracking, config.registered_model, models.CHAMPION)
    return models.fetch(config.tracking, version.name, version.version)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep everything measured")
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="default: the quickstart's")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=1280)
    return parser.parse_args()


if __name__ == "__main__":
    main()
