"""Tasks for lm-evaluation-harness in a folder of their own; their questions are made up."""

from __future__ import annotations

import json
import random
from pathlib import Path

CHOOSE = """
task: choose
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
fewshot_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list:
  - metric: acc
  - metric: acc_norm
"""
WRITE = """
task: write
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{written}}}}"
generation_kwargs: {{until: ["17", " "], max_gen_toks: 12, do_sample: false}}
metric_list:
  - metric: exact_match
"""
READ = """
task: read
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{question}}}}"
metric_list:
  - metric: word_perplexity
"""
WORDS = [
    *("Guten Morgen", "Good morning", "April", "meters", "hours", "2037", "17", "the", "of", "and"),
    *("中国", "日本", "नमस्ते", "दुनिया", "مرحبا", "people", "translate", "into", "Chinese"),
]


def make_tasks(folder: Path, questions: int = 60) -> Path:
    """`choose` between four texts of different length, `write` a text, `read` one, in a folder."""
    rng = random.Random(3)
    file = folder / "questions.jsonl"
    with file.open("w", encoding="utf-8") as lines:
        for _ in range(questions):
            question = " ".join(rng.choices(WORDS, k=rng.randrange(3, 12)))
            choices = [" ".join(rng.choices(WORDS, k=rng.randrange(1, 5))) for _ in range(4)]
            row = {"question": question, "choices": choices, "answer": rng.randrange(4)}
            lines.write(json.dumps({**row, "written": ""}, ensure_ascii=False) + "\n")
    for name, task in {"choose": CHOOSE, "write": WRITE, "read": READ}.items():
        (folder / f"{name}.yaml").write_text(task.format(file=file), "utf-8")
    return folder
