"""What is told from what, and what is said where nothing can be told."""

from __future__ import annotations

import io
import json
import random
import re
import tarfile
import zipfile
from pathlib import Path

import pytest
from sources import PAIRS, packed, pairs, rows, write, write_json_lines, write_lines, write_parquet

from bayling.data.sources import open_source, source_config
from bayling.data.sources.formats import FORMATS
from bayling.data.sources.records import FORMS
from bayling.errors import UserError

pytestmark = pytest.mark.unit

EXPECTED = [("en", "de", *pair) for pair in PAIRS]


def _refusal(path: object, **keys: object) -> str:
    with pytest.raises(UserError) as refused:
        open_source(source_config({"path": str(path), **keys}))
    text = str(refused.value)
    assert "\n" not in text
    return text


def test_every_form_of_a_record_is_in_the_table() -> None:
    assert set(FORMS) < set(FORMATS)
    for name, form in FORMS.items():
        assert form.kind == FORMATS[name].kind


def test_every_format_is_documented() -> None:
    text = (Path(__file__).parents[3] / "docs" / "data.md").read_text("utf-8")
    assert [name for name in FORMATS if f"`{name}`" not in text] == []


def test_the_content_counts_and_not_the_name(tmp_path: Path) -> None:
    records = [{"translation": {"en": a, "de": b}} for a, b in PAIRS]
    assert pairs(write_json_lines(tmp_path / "a.txt", records)) == EXPECTED
    assert pairs(write(tmp_path / "b.csv", json.dumps(records))) == EXPECTED
    assert pairs(write_parquet(tmp_path / "c.tsv", records)) == EXPECTED


def test_records_whose_names_differ_by_a_language_are_not_aligned(tmp_path: Path) -> None:
    talk = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    for code in ("en", "de"):
        write_json_lines(tmp_path / f"chat.{code}", [talk])
    source = open_source(source_config(str(tmp_path / "chat.en")))
    assert (source.layout.format, len(source.files)) == ("messages", 1)


def test_a_format_can_be_forced(tmp_path: Path) -> None:
    tabs = write_lines(tmp_path / "x.en", ["a\tb", "c\td"])
    write_lines(tmp_path / "x.de", ["e\tf", "g\th"])
    assert pairs(tabs, languages=["en", "de"]) == [
        ("en", "de", "a\tb", "e\tf"),
        ("en", "de", "c\td", "g\th"),
    ]
    assert pairs(tabs, format="tsv", source_lang="en", target_lang="de") == [
        ("en", "de", "a", "b"),
        ("en", "de", "c", "d"),
    ]
    record = {"src": "a", "tgt": "b", "constraint": ["b"], "id": 1}
    path = write_json_lines(tmp_path / "c.jsonl", [record])
    columns = {"source": "src", "target": "tgt"}
    [row] = rows(path, format="columns", columns=columns, source_lang="en", target_lang="de")
    assert not getattr(row, "terms", None)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty"),
        (b"\n \n\n", "nothing but blank lines"),
        (bytes(range(256)) * 20, "is no text, and none of the binary formats"),
        ("只有中文的句子。\n第二行。\n".encode("gb18030") * 9, "not in UTF-8: convert it"),
        (b"<html><body>no</body></html>", "is XML or HTML, but no TMX"),
        (b'{\n "data": [\n  {"en": "a"}\n ]\n}\n', "one JSON object over several lines"),
        (b"One sentence.\nAnother one.\n", "plain text in one language"),
        (b'{"label": 1, "score": 2}\n', "label, score, which is none of the known forms"),
        (b"BZh91AY&SY" + b"\xff" * 50, "packed with bzip2: unpack it"),
        (b'<tmx version="1.4"><body></body></tmx>', "has no row that can be read: it has none"),
        (b"[]", "looks like json (an array of JSON objects), but has no row that can be read"),
        (b"PAR1" + b"\x00" * 40, "is damaged Parquet data"),
    ],
)
def test_what_cannot_be_read_is_refused_with_what_was_seen(
    tmp_path: Path, data: bytes, said: str
) -> None:
    path = write(tmp_path / "data", data)
    text = _refusal(path)
    assert said in text
    assert text.startswith(str(path))


def test_archives_are_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x.en", "text")
    assert "is a ZIP archive: unpack it" in _refusal(tmp_path / "a.zip")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("x.en"), io.BytesIO())
    assert "is a tar archive: unpack it" in _refusal(tmp_path / "a.tar.gz")


def test_a_path_where_nothing_is_is_named(tmp_path: Path) -> None:
    assert re.search(r"there is no \S+/nowhere", _refusal(tmp_path / "nowhere"))
    assert "no file fits" in _refusal(tmp_path / "*.tsv")
    (tmp_path / "empty").mkdir()
    assert "has no files with data in it" in _refusal(tmp_path / "empty")
    assert "such://where cannot be read" in _refusal("such://where")


@pytest.mark.parametrize("looked_at", [1, 32])
def test_each_file_of_a_folder_is_read_as_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looked_at: int
) -> None:
    monkeypatch.setattr("bayling.data.sources.gathering._LOOKED_AT", looked_at)
    lines = ["\t".join(pair) for pair in PAIRS]
    write_lines(tmp_path / "a.tsv", ["en\tde", *lines])
    write_lines(tmp_path / "b.en-de.tsv", lines)
    other = ["\t".join(reversed(pair)) for pair in PAIRS]
    write_lines(tmp_path / "c.tsv", ["de\ten", *other])
    sides = {"source_lang": "en", "target_lang": "de"}
    assert pairs(tmp_path, **sides) == EXPECTED * 3
    write_json_lines(tmp_path / "d.tsv", [{"translation": {"en": "a", "de": "b"}}])
    with pytest.raises(UserError, match=r"d\.tsv is translation|several formats: .*translation"):
        rows(tmp_path, **sides)


def test_a_folder_of_nothing_known_says_what_it_saw(tmp_path: Path) -> None:
    write(tmp_path / "notes.txt", "One sentence.\n")
    write(tmp_path / "picture.png", b"\x89PNG\r\n\x1a\n" + b"\0" * 50)
    assert "has nothing of a known format: " in _refusal(tmp_path)
    write(tmp_path / "empty", "")
    write_lines(tmp_path / "a.en-de.tsv", ["\t".join(pair) for pair in PAIRS])
    source = open_source(source_config(str(tmp_path)))
    assert [part.name for part in source.files] == [str(tmp_path / "a.en-de.tsv")]
    assert len(source.notes) == 3


def test_a_folder_of_several_formats_is_not_guessed_at(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.en-de.tsv", ["\t".join(pair) for pair in PAIRS])
    write_json_lines(tmp_path / "b.jsonl", [{"instruction": "Hi.", "output": "Hi!"}])
    text = _refusal(tmp_path)
    assert "several formats: tsv (a.en-de.tsv), alpaca (b.jsonl)" in text


def test_a_folder_is_read_in_the_order_of_the_names_each_with_its_languages(tmp_path: Path) -> None:
    write_lines(tmp_path / "b.en-sw.tsv", ["The house is big.\tNyumba ni kubwa."])
    write_lines(tmp_path / "a.en-de.tsv", ["\t".join(pair) for pair in PAIRS])
    write(tmp_path / "LICENSE", "CC0")
    write(tmp_path / ".hidden", "x")
    assert pairs(tmp_path) == [*EXPECTED, ("en", "sw", "The house is big.", "Nyumba ni kubwa.")]
    assert pairs(tmp_path / "*.tsv") == pairs(tmp_path)


def test_no_damage_is_more_than_rejected_rows_or_one_sentence(tmp_path: Path) -> None:
    whole = [
        b'<tmx><header srclang="en"/><body><tu><tuv xml:lang="en"><seg>a</seg></tuv>'
        b'<tuv xml:lang="de"><seg>b</seg></tuv></tu></body></tmx>',
        b'[{"en": "a", "de": "b"}, {"en": "c", "de": "d"}]',
        b"en\tde\nhello there\tHallo\n",
        'en,de\n"x, y",z\n'.encode("utf-16"),
        b'{"instruction": "a", "output": "b"}\n{"instruction": "c", "output": "d"}\n',
    ]
    whole += [packed(data, how) for data, how in zip(whole, ("gzip", "zstd", "xz"), strict=False)]
    chance = random.Random(1)
    read = 0
    for _ in range(400):
        data = bytearray(chance.choice(whole))
        for _ in range(chance.randint(1, 3)):
            place = chance.randrange(len(data))
            if chance.random() < 0.5:
                data[place] = chance.randrange(256)
            else:
                data[place : place + chance.randint(0, 3)] = chance.choice(
                    [b"", b'"', b"<", b"\n{"]
                )
        path = write(tmp_path / "damaged", bytes(data))
        try:
            read += len(rows(path, source_lang="en", target_lang="de"))
        except UserError as error:
            assert "\n" not in str(error)
    assert read > 50
