from __future__ import annotations

import string
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sources import packed, write

from bayling.data.sources import opening
from bayling.data.sources.opening import Broken, head, lines, stream
from bayling.errors import UserError

pytestmark = pytest.mark.unit

HOW = (None, "gzip", "zstd", "xz")
AWKWARD = [
    "tab\there",
    'a "quote" and \'another',
    "next\u0085line",
    "line\u2028separator and paragraph\u2029",
    "vertical\x0btab, form\x0cfeed, \x1c\x1d\x1e",
    "👩‍👩‍👧 emoji",
    "\u202bעברית\u202c and العربية",
    "",
    "  spaces  ",
    "lone \r in the middle",
]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_line_ends_at_a_newline_and_nowhere_else(
    tmp_path: Path, how: str | None, end: str
) -> None:
    # The name says nothing about the packing, and is not asked.
    path = write(tmp_path / "text", "".join(line + end for line in AWKWARD), how)
    assert list(lines(str(path))) == AWKWARD
    assert head(str(path)).compression == how


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    text=st.lists(
        st.text(
            st.one_of(
                st.characters(exclude_categories=["Cs"], exclude_characters="\n\r"),
                st.sampled_from("\t\"'\\,;\u0085\u2028\u200f\ufeff" + string.ascii_letters),
            ),
            max_size=12,
        ),
        min_size=1,
        max_size=6,
    ),
    how=st.sampled_from(HOW),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_any_text_comes_back_as_it_was(
    tmp_path: Path, text: list[str], how: str | None, encoding: str
) -> None:
    if encoding == "utf-8":
        text = [text[0].lstrip("\ufeff\0"), *text[1:]]  # a mark, or UTF-16, at the beginning
        if "\0" in "".join(text):
            text = [line.replace("\0", "") for line in text]
    path = write(tmp_path / "text", "".join(f"{line}\n" for line in text).encode(encoding), how)
    assert list(lines(str(path))) == text


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"])
def test_other_encodings_of_unicode_are_told(tmp_path: Path, encoding: str) -> None:
    text = "id\tEnglish text\tein Text\n1\tDatum 21\t二十一\n"
    path = write(tmp_path / "text", text.encode(encoding))
    assert list(lines(str(path))) == text.splitlines()
    assert head(str(path)).encoding.startswith(encoding[:6])


def test_a_broken_byte_spoils_its_line_only(tmp_path: Path) -> None:
    path = write(tmp_path / "text", b"first\ncaf\xe9 au lait\nthird\r\n")
    found = list(lines(str(path)))
    assert found[::2] == ["first", "third"]
    assert found[1] == Broken("caf\\xe9 au lait", "byte 4 of the line is no UTF-8")


def test_half_a_character_of_utf16_spoils_its_line_only(tmp_path: Path) -> None:
    data = (
        "\ufeffgood\n".encode("utf-16-le") + b"\x00\xd8a\x00\n\x00" + "fine\n".encode("utf-16-le")
    )
    found = list(lines(str(write(tmp_path / "text", data))))
    assert found[0] == "good"
    assert isinstance(found[1], Broken)
    assert found[2] == "fine"


def test_a_file_that_ends_without_a_newline_has_its_last_line(tmp_path: Path) -> None:
    assert list(lines(str(write(tmp_path / "a", "one\ntwo")))) == ["one", "two"]
    assert list(lines(str(write(tmp_path / "b", "one\n\n")))) == ["one", ""]
    assert list(lines(str(write(tmp_path / "c", "")))) == []


def test_lines_do_not_depend_on_where_the_file_is_cut_for_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "ä\n\nzwei 😀 drei\n" * 5 + "end"
    path = write(tmp_path / "text", text)
    for size in range(1, 9):
        monkeypatch.setattr(opening, "_READ", size)
        assert list(lines(str(path))) == text.split("\n")


def test_a_line_without_end_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "LONGEST", 2**20)
    monkeypatch.setattr(opening, "_READ", 2**18)
    path = write(tmp_path / "text", "first\n" + "x" * 3 * 2**20 + "\nlast\n" + "y" * 2 * 2**20)
    first, long, last, unended = lines(str(path))
    assert (first, last) == ("first", "last")
    for line in (long, unended):
        assert isinstance(line, Broken)
        assert line.reason == "the line is longer than 1 MiB"
        assert len(line.text) < 2**20


@pytest.mark.parametrize("how", HOW[1:])
def test_packed_data_that_breaks_off_or_is_damaged_is_an_error(tmp_path: Path, how: str) -> None:
    import random

    text = random.Random(1).randbytes(4000).hex() + "\n"
    whole = packed(text.encode() * 3, how)
    for name, data in (("cut", whole[: len(whole) // 2]), ("garbage", whole + b"garbage here")):
        path = write(tmp_path / name, data)
        with pytest.raises(UserError, match=f"{name} is damaged {how} data"):
            list(lines(str(path)))


@pytest.mark.parametrize("how", HOW[1:])
def test_packed_pieces_after_each_other_are_one_text(tmp_path: Path, how: str) -> None:
    path = write(tmp_path / "text", packed(b"one\ntw", how) + packed(b"o\nthree\n", how))
    assert list(lines(str(path))) == ["one", "two", "three"]


def test_a_parser_gets_a_mark_in_place_of_broken_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "text", b'["caf\xe9", "ok"]')
    with stream(str(path)) as text:
        assert text.read().decode() == f'["caf{opening.BROKEN}", "ok"]'
