"""Sources from files to packed tokens: nothing is lost, nothing tested is trained on."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from running import Recorder

from bayling.config import Config, compose
from bayling.data import gathering, heldout, sourced, tables
from bayling.data.gathering import Gathering, Piece
from bayling.data.making import HELD_OUT, Making
from bayling.data.passes import Passes
from bayling.data.run import digest
from bayling.data.sourced import Sourced
from bayling.data.tables import Pair, Quarantined
from bayling.data.tokens import Tokens
from bayling.languages import locale_of
from bayling.pipeline import Pipeline
from bayling.stage import Manifest
from bayling.templates import Conversation

WORDS = {
    "en": ("The delegates of", "met the envoys of", "and spoke about peace."),
    "de": ("Die Abgeordneten von", "trafen die Gesandten von", "und sprachen über den Frieden."),
    "zh": ("来自", "的代表会见了来自", "的使者，并谈到了和平。"),
}
PAIRS, TALKS = 300, 40


def line(language: str, countries: list[str]) -> str:
    names = [locale_of(language).territories[code] for code in countries]
    comma = "、" if language == "zh" else ", "
    first, second, third = WORDS[language]
    parts = [first, comma.join(names[:3]), second, comma.join(names[3:]), third]
    return ("" if language == "zh" else " ").join(parts)


@dataclass(frozen=True)
class Made:
    """A run of the stage."""

    config: Config
    folder: Path
    manifest: Manifest
    sources: Path

    @property
    def pairs(self) -> list[Pair]:
        paths = sorted((self.folder / "pairs").glob("*.parquet"))
        return [pair for path in paths for pair in tables.read_pairs(path)]

    @property
    def quarantine(self) -> list[Quarantined]:
        return list(tables.read_quarantine(self.folder / "quarantine"))

    @property
    def conversations(self) -> list[Conversation]:
        paths = sorted((self.folder / "conversations").glob("*.parquet"))
        return [row for path in paths for row in tables.read_conversations(path)]


def overrides(folder: Path, output: Path) -> list[str]:
    return [
        "recipe=smoke",
        f"output_dir={output}",
        "data.languages=[en,de,zh]",
        f"data.sources=[{{path:[{folder}/x.en,{folder}/x.de],origin:opus}},"
        f"{{path:{folder}/zh.jsonl,origin:zh,weight:0.5}},{folder}/talks.json]",
        f"data.decontaminate=[{{path:[{folder}/test.en,{folder}/test.de]}}]",
        "data.conversations=600",
        "data.partition_size=90",
        "data.tokenizer_sample=300",
        "data.heldout_per_direction=5",
        "data.cleaning.skip=[boilerplate]",
    ]


@pytest.fixture(scope="module")
def made(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("sources")
    rng = random.Random(5)
    known = [set(locale_of(tag).territories) for tag in WORDS]
    codes = sorted(code for code in set.intersection(*known) if code.isalpha())[:150]
    lists = [rng.sample(codes, 6) for _ in range(PAIRS)]
    lists[50] = lists[10]
    english = [line("en", one) for one in lists]
    german = [line("de", one) for one in lists]
    german[20] = english[20]
    german[30] = ""
    german[40] = line("zh", lists[40])
    (folder / "x.en").write_text("\n".join(english) + "\n", "utf-8")
    (folder / "x.de").write_text("\n".join(german) + "\n", "utf-8")
    (folder / "test.en").write_text(f"{english[60]}\n{english[61]}\n", "utf-8")
    (folder / "test.de").write_text(f"{german[60]}\n{german[61]}\n", "utf-8")
    rows = []
    for _ in range(PAIRS):
        one = rng.sample(codes, 6)
        rows.append(json.dumps({"translation": {"en": line("en", one), "zh": line("zh", one)}}))
    rows[7] = '{"translation": {"en": "broken'
    (folder / "zh.jsonl").write_text("\n".join(rows), "utf-8")
    talks = [
        {
            "conversations": [
                {"from": "human", "value": f"Name three countries, please, for the {n}th time."},
                {"from": "gpt", "value": f"I would name {line('en', rng.sample(codes, 6))}"},
            ]
        }
        for n in range(TALKS)
    ]
    talks[3]["conversations"][1]["value"] = "As an AI language model, I cannot travel."
    (folder / "talks.json").write_text(json.dumps(talks), "utf-8")

    config = compose(overrides(folder, tmp_path_factory.mktemp("outputs")))
    pipeline = Pipeline(config, Recorder())
    manifest = pipeline.run_stage("data")
    return Made(config, pipeline.folder("data"), manifest, folder)


def test_every_row_is_kept_or_in_the_quarantine_with_a_reason_and_its_place(made: Made) -> None:
    where = Counter((pair.file, pair.line) for pair in made.pairs)
    reasons = {(one.file, one.line): one for one in made.quarantine if one.step != "held out"}
    for name in ("x.de", "zh.jsonl"):
        file = str(made.sources / name)
        for number in range(1, PAIRS + 1):
            assert (where[file, number] == 1) is not ((file, number) in reasons)
    aligned = str(made.sources / "x.de")
    steps = {number: reasons[aligned, number].step for number in (21, 31, 41, 51, 61, 62)}
    assert steps == {
        21: "identical",
        31: "empty",
        41: "script",
        51: "duplicate",
        61: "contaminated",
        62: "contaminated",
    }
    assert reasons[str(made.sources / "zh.jsonl"), 8].step == "unreadable"
    assert reasons[str(made.sources / "talks.json"), 4].step == "identity"
    dropped = Counter(one.step for one in made.quarantine)
    assert {step: made.manifest.dropped[step] for step in dropped} == dict(dropped)


def test_what_is_held_out_is_not_trained_on(made: Made) -> None:
    rows = [
        json.loads(text)
        for text in (made.folder / "heldout/translate.jsonl").read_text("utf-8").splitlines()
    ]
    directions = Counter((row["source_lang"], row["target_lang"]) for row in rows)
    assert directions == dict.fromkeys([("de", "en"), ("en", "de"), ("en", "zh"), ("zh", "en")], 5)
    said = [turn.content for row in made.conversations for turn in row.messages]
    for row in rows:
        assert not any(row["source"] in text or row["target"] in text for text in said)
    assert sum(one.step == "held out" for one in made.quarantine) >= 10


def test_the_mixture_is_as_configured(made: Made) -> None:
    """Sources by their size and weight; both directions; words that have to be used."""
    origins = Counter(row.origin for row in made.conversations)
    assert origins["opus"] / origins["zh"] == pytest.approx(2.0, abs=0.5)
    directions = Counter((row.source_lang, row.target_lang) for row in made.conversations)
    assert directions["en", "de"] / directions["de", "en"] == pytest.approx(1.0, abs=0.5)
    tasks = Counter(row.task for row in made.conversations)
    assert set(tasks) == {"translate", "constrained", "interactive", "general"}
    from_pairs = sum(tasks.values()) - tasks["general"]
    assert tasks["constrained"] / from_pairs == pytest.approx(0.1, abs=0.06)
    assert tasks["interactive"] / from_pairs == pytest.approx(0.3, abs=0.1)
    checks = made.manifest.counts["checks"]
    assert "met by the answer before" not in checks
    assert checks.get("met by a copy of the prompt", 0) < 0.2 * checks["turns"]
    assert made.manifest.counts["conversations"] == len(made.conversations)


def test_other_workers_in_another_order_make_the_same_bytes(made: Made, tmp_path: Path) -> None:
    config = made.config
    found, digest_of_tests = gather_backwards(config, tmp_path)
    assert digest_of_tests == made.manifest.results["heldout_digest"]
    shutil.copytree(made.folder / "tokenizer", tmp_path / "tokenizer")
    making = Making(config.data, config.seed, tmp_path)
    tokens = Tokens(config.data, config.model, tmp_path)
    for number in reversed(range(len(found.names))):
        name = found.names[number]
        making.from_rows(number, name, found.uses, tmp_path / sourced.HELD_OUT)
        tokens.pack(number)
    for part in ("pairs", "talks", "quarantine", "conversations", "packed"):
        assert digest(tmp_path / part) == digest(made.folder / part), part


def test_large_files_are_read_in_stretches_and_nothing_else_is_different(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Piece] = []
    one_by_one = Gathering.read

    def recorded(work: Gathering, piece: Piece) -> Any:
        read.append(piece)
        return one_by_one(work, piece)

    monkeypatch.setattr(Gathering, "read", recorded)
    monkeypatch.setattr(sourced, "is_large", lambda file: not file.endswith(".json"))
    monkeypatch.setattr(gathering, "_AT_A_TIME", 1)
    size = 70
    config = replace(made.config, data=replace(made.config.data, partition_size=size))
    _, digest_of_tests = gather_backwards(config, tmp_path)
    lines = PAIRS // size + 1
    assert Counter(Path(piece.part.name).stem for piece in read)["x"] == lines
    assert digest_of_tests == made.manifest.results["heldout_digest"]
    again = replace(made, folder=tmp_path)
    assert again.pairs == made.pairs
    place = attrgetter("file", "line", "step")
    before = [one for one in made.quarantine if one.step != HELD_OUT]  # by the next pass
    assert sorted(map(place, again.quarantine)) == sorted(map(place, before))


def test_another_language_is_asked_for_that_lies_in_another_file(
    made: Made, tmp_path: Path
) -> None:
    """Files of two languages each, as OPUS has them: no partition has both translations."""
    known = [set(locale_of(tag).territories) for tag in WORDS]
    codes = sorted(code for code in set.intersection(*known) if code.isalpha())
    lists = [random.Random(number).sample(codes, 6) for number in range(60)]
    for language in ("de", "zh"):
        for tag in ("en", language):
            text = "\n".join(line(tag, one) for one in lists)
            (tmp_path / f"{language}.{tag}").write_text(text, "utf-8")
    sources = ",".join(
        f"{{path:[{tmp_path}/{one}.en,{tmp_path}/{one}.{one}]}}" for one in ("de", "zh")
    )
    data = compose(
        [
            *overrides(tmp_path, tmp_path),
            f"data.sources=[{sources}]",
            "data.decontaminate=[]",
            "data.heldout_per_direction=1",
            "data.mixture.tasks.translate=0",
            "data.mixture.tasks.constrained=0",
            "data.mixture.tasks.interactive=1",
        ]
    )
    folder = tmp_path / "stage"
    found, _ = gather_backwards(data, folder)
    assert len({name.split("-")[0] for name in found.names}) == len(found.names) == 2
    making = Making(data.data, data.seed, folder)
    for number, name in enumerate(found.names):
        making.from_rows(number, name, found.uses, folder / sourced.HELD_OUT)
    rows = replace(made, folder=folder).conversations
    asked = [row for row in rows if any("Chinese" in one.content for one in row.messages[2:])]
    assert any({"en", "de"} == {row.source_lang, row.target_lang} for row in asked)


def gather_backwards(config: Config, folder: Path) -> tuple[Sourced, str]:
    """What came of the sources, and the digest of the tests, without Ray and from the end."""

    class Backwards(Passes):
        def each(self, what: str, items: Any, work: Any) -> list[Any]:
            return [work(item) for item in reversed(items)][::-1]

    context: Any = SimpleNamespace(
        folder=folder, seed=config.seed, report=lambda *_: None, note=lambda _: None
    )
    tests = heldout.build(config.data, config.seed)
    return sourced.gather(config.data, context, tests, Backwards(context)), tests.digest


def test_the_card_tells_where_it_came_from_and_is_in_mlflow(made: Made) -> None:
    from bayling.registry import runs

    text = (made.folder / "card/README.md").read_text("utf-8")
    for said in ("| opus | not stated |", "Chinese → English", "### constrained", "| identical |"):
        assert said in text
    assert made.manifest.results["packed_digest"] in text
    client = runs.client(made.config.tracking)
    files = {file.path for file in client.list_artifacts(str(made.manifest.run_id), "card")}
    assert files == {
        f"card/{name}" for name in ("README.md", "dropped.png", "languages.png", "lengths.png")
    }


def test_a_changed_source_is_read_again_and_an_unchanged_one_is_not(made: Made) -> None:
    before = Pipeline(made.config, None).fingerprints["data"]  # type: ignore[arg-type]
    assert before == made.manifest.fingerprint
    path = made.sources / "x.en"
    text = path.read_text("utf-8")
    path.write_text(text + "One more line of text.\n", "utf-8")
    try:
        after = Pipeline(made.config, None).fingerprints["data"]  # type: ignore[arg-type]
    finally:
        path.write_text(text, "utf-8")
    assert after != before


def test_a_killed_run_goes_on_and_makes_the_same_bytes(made: Made, tmp_path: Path) -> None:
    chosen = overrides(made.sources, tmp_path)
    folder = Pipeline(compose(chosen), Recorder()).folder("data")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-m", "bayling.cli", "data", *chosen],
        env=environment,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not list(folder.glob("pairs/*.parquet")):
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (folder / "manifest.json").exists(), "it was killed too late to show anything"
    manifest = Pipeline(compose(chosen), Recorder()).run_stage("data")
    for key in ("heldout_digest", "packed_digest"):
        assert manifest.results[key] == made.manifest.results[key]
    assert manifest.counts == made.manifest.counts
    assert manifest.dropped == made.manifest.dropped
    for part in ("pairs", "talks", "quarantine", "conversations", "packed", "heldout"):
        assert digest(folder / part) == digest(made.folder / part), part
