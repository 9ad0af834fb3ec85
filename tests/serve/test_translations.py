"""`/v1/translations` over real HTTP, through Ray Serve, from a real model."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import httpx
import pytest
from tiny_model import CONTEXT
from tiny_server import comes_to_rest, ongoing, small

from bayling.cli import main
from bayling.serve import client


def test_a_stream_adds_up_to_the_answer_without_one(http: httpx.Client) -> None:
    body = {"text": ["Good morning", "Good night"], "target": ["de", "zh"], "max_tokens": 30}
    whole = http.post("/v1/translations", json=body).json()
    texts = dict.fromkeys(range(4), "")
    made, last = [], ""
    request = http.stream("POST", "/v1/translations", json={**body, "stream": True})
    with request as response:
        assert response.headers["x-bayling-model-version"] == "7"
        for line in response.iter_lines():
            if not line:
                continue
            last = line.removeprefix("data: ")
            if last == "[DONE]":
                break
            event = json.loads(last)
            if event["object"] == "translation.delta":
                texts[event["index"]] += event["delta"]
            elif event["object"] == "translation":
                made.append(event["translation"])
            else:
                # The same prompts for the second time are known.
                for usage in (event["usage"], whole["usage"]):
                    del usage["prompt_tokens_details"]
                assert event == {
                    "object": "translation.usage",
                    "model": "bayling",
                    "usage": whole["usage"],
                }
    assert last == "[DONE]"
    assert sorted(made, key=lambda one: one["index"]) == whole["translations"]
    assert [texts[one["index"]] for one in whole["translations"]] == [
        one["text"] for one in whole["translations"]
    ]


def test_a_list_longer_than_the_servers_queue_does_not_overflow_it(server: str) -> None:
    texts = [f"{number} metres" for number in range(12)]
    assert len(texts) > small().max_ongoing_requests + small().max_queued_requests
    answers = client.translate_all(server, texts, ["de", "zh"], instructions="Be brief.")
    assert [answer.target for answer in answers] == ["de", "zh"] * len(texts)
    assert {answer.model_version for answer in answers} == {"7"}


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_all_its_places_at_once(server: str, stream: bool) -> None:
    """Each of the answers would take far longer than the engine takes to be at rest again."""
    body = {
        "text": ["Good morning", "Good night", "Good bye"],
        "target": ["de", "zh"],
        "max_tokens": CONTEXT - 1000,
        "stream": stream,
    }
    with httpx.Client(base_url=server, timeout=60 if stream else 3, trust_env=False) as leaving:
        if stream:
            with leaving.stream("POST", "/v1/translations", json=body) as response:
                lines = response.iter_lines()  # to let go of it would close the connection
                next(lines)
                assert ongoing() >= 1
        else:
            with pytest.raises(httpx.ReadTimeout):
                leaving.post("/v1/translations", json=body)
    assert comes_to_rest(within_s=15)
    time.sleep(0.5)  # none of those that had not begun begins now
    assert ongoing() == 0


def test_the_command_translates_into_several_languages_with_a_glossary(
    server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    glossary = tmp_path / "terms.tsv"
    glossary.write_text("term\tde\tzh\nmorning\tMorgen\t早上\nnight\tNacht\t夜\n", "utf-8")
    options = ["--to", "de", "--to", "zh", "--glossary", str(glossary), "--url", server]
    assert main(["translate", "Good morning to you, and to all of us.", *options]) == 0
    shown = capsys.readouterr()
    lines = [line.split("\t")[0] for line in shown.out.splitlines() if "\t" in line]
    assert lines == ["de", "zh"]
    assert "from English (detected)" in shown.err
    # What this model has never learned it does not write.
    assert "'morning' did not become 'Morgen' in de" in shown.err
    assert "night" not in shown.err


def test_the_command_keeps_the_lines_of_its_input(
    server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("Good morning\n\nGood night\n"))
    assert main(["translate", "-", "--to", "de", "--from", "en", "--url", server]) == 0
    lines = capsys.readouterr().out.split("\n")
    assert len(lines) == 4 and lines[1] == lines[3] == ""
    expected = client.translate(server, "Good night", "de", "en")
    assert lines[2] == " ".join(expected.text.splitlines())


@pytest.mark.unit
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("heart\n", "line 1: expected a term and its translation"),
        ("heart\tHerz\tcœur\n", "line 1: expected a term and its translation"),
        ("term\tde\tfr\n\nheart\tHerz\tcœur\tcor\n", "line 3: expected a term and de and fr"),
        ("heart\tHerz\nheart\tHerzen\n", "line 2: 'heart' is in the glossary already"),
        (None, "cannot read the glossary"),
    ],
)
def test_a_glossary_that_cannot_be_read_is_refused_by_line(
    text: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "terms.tsv"
    if text is not None:
        path.write_text(text, "utf-8")
    assert main(["translate", "heart", "--to", "de", "--glossary", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("bayling: ") and message in error and str(path) in error


@pytest.mark.unit
def test_a_glossary_is_read_with_and_without_a_line_of_languages(tmp_path: Path) -> None:
    from bayling.commands.translate import read_glossary

    path = tmp_path / "terms.tsv"
    path.write_text("\ufeffheart\tHerz\n\nheart attack\tHerzinfarkt\n", "utf-8")
    assert read_glossary(path) == {"heart": "Herz", "heart attack": "Herzinfarkt"}
    path.write_text("Term\tde\tfr\nheart\tHerz\tcœur\nlung\t\tpoumon\n", "utf-8")
    assert read_glossary(path) == {
        "heart": {"de": "Herz", "fr": "cœur"},
        "lung": {"fr": "poumon"},
    }
