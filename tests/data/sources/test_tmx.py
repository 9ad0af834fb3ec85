from __future__ import annotations

from pathlib import Path

import pytest
from sources import PAIRS, pairs, rejected, rows, write

from bayling.data.sources import Pair
from bayling.errors import UserError

pytestmark = pytest.mark.unit


def _unit(**texts: str) -> str:
    variants = "".join(
        f'<tuv xml:lang="{code.replace("_", "-")}"><seg>{text}</seg></tuv>'
        for code, text in texts.items()
    )
    return f'<tu tuid="u">{variants}</tu>\n'


def _memory(*units: str, before: str = "") -> str:
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n{before}<tmx version="1.4">\n'
        f'<header srclang="en-US"/>\n<body>\n{"".join(units)}</body></tmx>'
    )


@pytest.mark.parametrize("how", [None, "gzip", "zstd", "xz"])
@pytest.mark.parametrize("doctype", ["", '<!DOCTYPE tmx SYSTEM "tmx14.dtd">\n'])
def test_units_are_pairs_and_the_header_says_the_source(
    tmp_path: Path, how: str | None, doctype: str
) -> None:
    units = [_unit(de=target, en_US=source) for source, target in PAIRS]
    path = write(tmp_path / "memory", _memory(*units, before=doctype), how)
    expected = [("en", "de", *pair) for pair in PAIRS]
    assert pairs(path, languages=["en", "de"]) == expected
    [first, *_] = rows(path, source_lang="en", target_lang="de")
    assert isinstance(first, Pair)
    assert (first.place.line, first.id) == (5 + bool(doctype), "u")


@pytest.mark.parametrize("encoding", ["utf-16", "iso-8859-1"])
def test_other_encodings_are_read_as_declared(tmp_path: Path, encoding: str) -> None:
    text = _memory(_unit(en="size", de="Größe")).replace("UTF-8", encoding)
    path = write(tmp_path / "memory.tmx", text.encode(encoding))
    assert pairs(path, languages=["en", "de"]) == [("en", "de", "size", "Größe")]


def test_inline_codes_are_left_out_and_highlighted_text_is_not(tmp_path: Path) -> None:
    source = 'A <bpt i="1">&lt;b&gt;</bpt>bold<ept i="1">&lt;/b&gt;</ept> &amp; <hi>red</hi> one'
    source += "<ph>{x}</ph>."
    path = write(tmp_path / "memory.tmx", _memory(_unit(en=source, de="x")))
    assert pairs(path, languages=["en", "de"])[0][2] == "A bold & red one."


def test_entities_are_never_resolved(tmp_path: Path) -> None:
    secret = write(tmp_path / "secret", "do not read me")
    doctype = (
        f'<!DOCTYPE tmx [<!ENTITY file SYSTEM "file://{secret}"><!ENTITY a "aaaaaaaaaa">'
        '<!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>\n'
    )
    units = [_unit(en="&file;", de="x"), _unit(en="&b;", de="x"), _unit(en="fine", de="gut")]
    path = write(tmp_path / "memory.tmx", _memory(*units, before=doctype))
    found = rows(path, languages=["en", "de"])
    assert "do not read me" not in str(found)
    assert "aaaaaaaaaa" not in str(found)
    assert [line for line, _ in rejected(path, languages=["en", "de"])] == [6, 7]
    assert isinstance(found[-1], Pair)


def test_what_is_no_xml_spoils_its_unit_only(tmp_path: Path) -> None:
    units = [
        _unit(en="one", de="eins"),
        _unit(en="two & three", de="zwei"),
        _unit(en="a\x01b", de="c"),
        _unit(en="a < b", de="c"),
        _unit(en="<b>x", de="y"),
        _unit(en="never", de="closed").replace("</tu>", ""),
        _unit(en="alone"),
        _unit(en="known", xxq="not"),
        _unit(en="last", de="letzte"),
    ]
    path = write(tmp_path / "memory.tmx", _memory(*units))
    found = rejected(path, languages=["en", "de"])
    assert [line for line, _ in found] == [6, 7, 8, 9, 10, 11, 12]
    assert all("no well-formed XML" in reason for _, reason in found[:5])
    assert "does not know xxq" in found[6][1]
    assert [row.source for row in rows(path) if isinstance(row, Pair)] == ["one", "last"]


def test_a_memory_that_breaks_off_is_an_error_that_names_the_line(tmp_path: Path) -> None:
    text = _memory(*[_unit(en=f"{n}", de=f"{n}") for n in range(20)])
    path = write(tmp_path / "memory.tmx", text[: len(text) * 2 // 3])
    with pytest.raises(UserError, match=r"memory\.tmx breaks off at line 1\d:"):
        rows(path)


def test_of_several_languages_some_can_be_chosen(tmp_path: Path) -> None:
    path = write(tmp_path / "m.tmx", _memory(_unit(en="a", de="b", fr="c"), _unit(de="d", fr="e")))
    assert [pair[:2] for pair in pairs(path)] == [
        ("en", "de"),
        ("en", "fr"),
        ("de", "fr"),
        ("de", "fr"),
    ]
    assert rejected(path, languages=["en", "fr"]) == [
        (6, "it is in de, fr, not in two of the languages chosen")
    ]
