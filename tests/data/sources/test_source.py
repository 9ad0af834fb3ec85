from __future__ import annotations

import json
import pickle
import tracemalloc
from pathlib import Path

import pytest
from sources import PAIRS, write, write_json_lines, write_lines

from bayling.data.sources import open_source, opening, source_config, tmx
from bayling.errors import UserError

pytestmark = pytest.mark.unit


def test_a_source_can_be_read_in_another_process(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.en-de.tsv", ["en\tde", *("\t".join(pair) for pair in PAIRS)])
    source = open_source(source_config(str(path)))
    sent = pickle.loads(pickle.dumps(source))
    assert sent == source
    [part] = sent.files
    assert list(sent.rows(part)) == list(source.rows(part))
    assert [row.place.line for row in sent.rows(part)] == [2, 3, 4]


def test_conversations_are_not_parallel(tmp_path: Path) -> None:
    path = write_json_lines(tmp_path / "a.jsonl", [{"instruction": "Hi.", "output": "Hi!"}])
    source = open_source(source_config(str(path)))
    with pytest.raises(UserError, match="has conversations, no sentences in two languages"):
        next(source.parallel(source.files[0]))


def test_pairs_that_say_their_languages_are_filtered_and_the_others_counted(tmp_path: Path) -> None:
    path = write_json_lines(
        tmp_path / "a.jsonl",
        [
            {"source": "a", "target": "b", "source_lang": "en", "target_lang": code}
            for code in ("de", "fr", "deu_Latn")
        ],
    )
    source = open_source(source_config({"path": str(path), "languages": ["en", "de"]}))
    found = [type(row).__name__ for row in source.rows(source.files[0])]
    assert found == ["Pair", "Rejected", "Pair"]


def _made(folder: Path, name: str, number: int) -> Path:
    texts = [(f"The house has number {n}.", f"Das Haus hat die Nummer {n}.") for n in range(number)]
    objects = [json.dumps({"en": english, "de": german}) for english, german in texts]
    if name == "x.en.gz":
        write_lines(folder / "x.de", [german for _, german in texts])
        return write_lines(folder / name, [english for english, _ in texts], "gzip")
    if name == "a.tsv":
        return write_lines(folder / name, ["\t".join(pair) for pair in texts])
    if name == "b.jsonl.zst":
        return write_lines(folder / name, objects, "zstd")
    if name == "c.json":
        return write(folder / name, f"[{','.join(objects)}]")
    units = "".join(
        f'<tu><tuv xml:lang="en"><seg>{english}</seg></tuv>'
        f'<tuv xml:lang="de"><seg>{german}</seg></tuv></tu>\n'
        for english, german in texts
    )
    return write(folder / name, f'<tmx version="1.4"><body>{units}</body></tmx>')


@pytest.mark.parametrize("name", ["x.en.gz", "a.tsv", "b.jsonl.zst", "c.json", "d.tmx"])
def test_memory_does_not_grow_with_the_file(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is read at once is small, so that it is not what is measured.
    monkeypatch.setattr(opening, "_READ", 2**15)
    monkeypatch.setattr(opening, "_PIECE", 2**9)
    monkeypatch.setattr(tmx, "_READ", 2**15)
    peaks = []
    for number in (2_000, 12_000):
        path = _made(tmp_path / str(number), name, number)
        config = {"path": str(path), "source_lang": "en", "target_lang": "de"}
        source = open_source(source_config(config))
        tracemalloc.start()
        counted = sum(1 for part in source.files for _ in source.rows(part))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert counted == number
    assert peaks[1] < 1.2 * peaks[0] + 2**18, peaks
