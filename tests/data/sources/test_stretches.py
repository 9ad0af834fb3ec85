"""A large file read in stretches is the file: the same rows, at the same places."""

from __future__ import annotations

import codecs
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sources import write, write_lines

from bayling.data.sources import Part, Source, is_large, open_source, source_config
from bayling.data.sources.opening import lines
from bayling.data.sources.stretches import in_stretches
from bayling.errors import UserError

pytestmark = pytest.mark.unit

WORDS = [f"sentence {number}\u2028 and more" for number in range(25)]
OTHERS = [f"Satz {number}" for number in range(25)]


def opened(path: Path, **keys: object) -> Source:
    return open_source(source_config({"path": str(path), **keys}))


def read(source: Source, parts: list[Part]) -> list[object]:
    return [row for part in parts for row in source.rows(part)]


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    data=st.lists(st.sampled_from([b"a", b"\n", b"\r\n", b"\xff", "é".encode(), b"\n\n"])),
    mark=st.booleans(),
    each=st.integers(1, 5),
)
def test_the_lines_of_all_stretches_are_those_of_the_file(
    tmp_path: Path, data: list[bytes], mark: bool, each: int
) -> None:
    path = tmp_path / "text"
    path.write_bytes(codecs.BOM_UTF8 * mark + b"".join(data))
    whole = list(lines(str(path)))
    found = in_stretches(str(path), each)
    assert found is not None
    assert found.total == len(whole)
    pieces = [list(lines(str(path), stretch)) for stretch in found.stretches]
    assert [line for piece in pieces for line in piece] == whole
    assert all(len(piece) == each for piece in pieces[:-1])
    assert [stretch.first for stretch in found.stretches] == [
        1 + number * each for number in range(len(pieces))
    ]


def test_aligned_files_stay_aligned_and_keep_their_line_numbers(tmp_path: Path) -> None:
    broken = [*WORDS[:7], "\udcff", *WORDS[8:]]
    path = tmp_path / "x.en"
    path.write_bytes("\n".join(broken).encode("utf-8", "surrogateescape"))
    write_lines(tmp_path / "x.de", OTHERS)
    source = opened(path, source_lang="en")
    parts = source.split(source.files[0], 4)
    assert len(parts) == 7
    assert read(source, parts) == read(source, list(source.files))


def test_json_lines_too(tmp_path: Path) -> None:
    records = [{"translation": {"en": a, "de": b}} for a, b in zip(WORDS, OTHERS, strict=True)]
    texts = [*map(json.dumps, records[:9]), "", "{", *map(json.dumps, records[9:])]
    path = write_lines(tmp_path / "x.jsonl", texts)
    source = opened(path)
    parts = source.split(source.files[0], 6)
    assert len(parts) == 5
    assert read(source, parts) == read(source, list(source.files))


def test_what_is_packed_or_small_stays_whole(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "x.en.gz", WORDS, "gzip")
    write_lines(tmp_path / "x.de", OTHERS)
    source = opened(path, source_lang="en")
    assert source.split(source.files[0], 4) == list(source.files)
    source = opened(write(tmp_path / "y.tsv", "en\tde\n" + "a\tb\n" * 20))
    assert source.split(source.files[0], 4) == list(source.files)
    plain = write_lines(tmp_path / "z.de", OTHERS)
    assert is_large(str(plain), 10) and not is_large(str(plain))
    assert not is_large("s3://bucket/z.de", 10)


def test_files_with_different_numbers_of_lines_are_refused_with_both(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "x.en", WORDS)
    write_lines(tmp_path / "x.de", OTHERS[:-2])
    source = opened(path)
    with pytest.raises(UserError, match=r"x\.de has 23 lines, .*x\.en has 25 lines"):
        source.split(source.files[0], 4)
