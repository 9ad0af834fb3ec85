from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sources import PAIRS, pairs, rejected, rows, write, write_lines

from bayling.data.sources import Pair
from bayling.errors import UserError

pytestmark = pytest.mark.unit

EXPECTED = [("en", "de", *pair) for pair in PAIRS]
SIDES = {"source_lang": "en", "target_lang": "de"}


def _table(path: Path, cells: list[tuple[str, ...]], delimiter: str) -> Path:
    return write_lines(path, [delimiter.join(row) for row in cells])


@pytest.mark.parametrize("how", [None, "gzip", "zstd", "xz"])
def test_tsv_without_a_header_has_its_languages_in_its_name(
    tmp_path: Path, how: str | None
) -> None:
    path = write_lines(tmp_path / "news.en-de.tsv", ["\t".join(pair) for pair in PAIRS], how)
    assert pairs(path) == EXPECTED


@pytest.mark.parametrize(
    "header",
    [("en", "de"), ("English", "German"), ("sentence_eng_Latn", "sentence_deu_Latn")],
)
def test_a_header_can_name_the_languages(tmp_path: Path, header: tuple[str, str]) -> None:
    assert pairs(_table(tmp_path / "a", [header, *PAIRS], "\t")) == EXPECTED
    for delimiter in ",;":
        shown = [(f'"{a}"', f'"{b}"') for a, b in PAIRS]
        assert pairs(_table(tmp_path / f"b{delimiter}", [header, *shown], delimiter)) == EXPECTED


def test_a_header_can_name_sides_languages_of_each_row_register_and_id(tmp_path: Path) -> None:
    cells = [
        ("id", "src", "tgt", "src_lang", "tgt_lang", "formality"),
        ("7", "Come!", "Kommen Sie!", "eng", "deu", "formal"),
        ("8", "来！", "Komm!", "zho_Hans", "de", ""),
        ("9", "?", "!", "xx", "de", ""),
    ]
    path = _table(tmp_path / "a.tsv", cells, "\t")
    first, second, third = rows(path, register="informal")
    assert isinstance(first, Pair)
    assert (first.source_lang, first.id, first.register) == ("en", "7", "formal")
    assert isinstance(second, Pair)
    assert (second.source_lang, second.register) == ("zh", "informal")
    assert "'xx', which the Unicode CLDR does not know" in str(third)


def test_direct_speech_is_no_quoting(tmp_path: Path) -> None:
    spoken = [
        ('"We know," he said.', "„Wir wissen es“, sagte er."),
        ('"Yes."', '"Ja."'),
        ('He said "no', 'Er sagte "nein"'),
    ]
    assert pairs(_table(tmp_path / "a.en-de.tsv", spoken, "\t")) == [
        ("en", "de", *pair) for pair in spoken
    ]


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    table=st.lists(
        st.tuples(*[st.text(st.sampled_from("ab \t\"',;\n\u0085\u2028ä汉"), max_size=8)] * 2),
        min_size=1,
        max_size=5,
    ),
    delimiter=st.sampled_from([",", ";"]),
)
def test_what_csv_writes_comes_back(
    tmp_path: Path, table: list[tuple[str, str]], delimiter: str
) -> None:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(
        [("en", "de"), *table]
    )
    path = write(tmp_path / "a.csv", text.getvalue())
    assert [pair[2:] for pair in pairs(path)] == table


def test_uneven_rows_are_rejected_with_their_line(tmp_path: Path) -> None:
    cells = [*PAIRS, ("only one",), ("one", "two", "three"), *PAIRS]
    path = _table(tmp_path / "a.en-de.tsv", cells, "\t")
    assert rejected(path) == [(4, "1 column instead of 2"), (5, "3 columns instead of 2")]
    assert len(rows(path)) == 8


def test_a_quote_that_is_never_closed_costs_one_row(tmp_path: Path) -> None:
    lines = ["en,de", 'a,"b', *(f"{number},x" for number in range(150)), '"two\nlines",y']
    path = write_lines(tmp_path / "a.csv", lines)
    assert rejected(path) == [(2, "a quote that is never closed")]
    found = rows(path)
    assert len(found) == 152
    last = found[-1]
    assert isinstance(last, Pair)
    assert (last.source, last.place.line) == ("two\nlines", 153)


def test_numbers_beside_the_texts_are_passed_over_and_a_third_text_is_asked_about(
    tmp_path: Path,
) -> None:
    scored = [("1.07", *pair) for pair in PAIRS]
    assert pairs(_table(tmp_path / "a.en-de.tsv", scored, "\t")) == EXPECTED
    attributed = [(*pair, "by somebody") for pair in PAIRS]
    path = _table(tmp_path / "b.en-de.tsv", attributed, "\t")
    with pytest.raises(
        UserError, match=r"3 columns without a header.*columns=\{source:1,target:2\}"
    ):
        rows(path)
    assert pairs(path, columns={"source": 1, "target": 2}) == EXPECTED


def test_columns_can_be_named(tmp_path: Path) -> None:
    cells = [("orig", "note", "transl"), *((a, "x", b) for a, b in PAIRS)]
    path = _table(tmp_path / "a.tsv", cells, "\t")
    columns = {"source": "orig", "target": "transl"}
    assert pairs(path, columns=columns, **SIDES) == EXPECTED
    assert pairs(path, columns={"en": "orig", "de": "transl"}) == EXPECTED
    with pytest.raises(UserError, match="has no column 'original' for source: it has"):
        rows(path, columns={**columns, "source": "original"}, **SIDES)


def test_languages_are_told_from_the_texts_where_the_name_says_nothing(tmp_path: Path) -> None:
    path = _table(tmp_path / "corpus.tsv", PAIRS, "\t")
    assert pairs(path) == EXPECTED
    both = _table(tmp_path / "same.tsv", [(a, a) for a, _ in PAIRS], "\t")
    with pytest.raises(UserError, match=r"both look like en.*set source_lang and target_lang"):
        rows(both)


def test_the_texts_say_which_side_of_a_name_is_the_source(tmp_path: Path) -> None:
    path = _table(tmp_path / "news.de-en.tsv", PAIRS, "\t")
    assert pairs(path) == EXPECTED


def test_terminology_gives_a_pair_for_each_term(tmp_path: Path) -> None:
    lines = [
        "0\t21\tinterview\tInterview\t\t",
        "1\t51\tprize\tPreis\tpiece\tStück",
        "2\t77\tonly\t\t",
    ]
    path = write_lines(tmp_path / "iate.tsv", [*lines[:2]])
    found = rows(path, **SIDES)
    assert [row.terms for row in found if isinstance(row, Pair)] == [
        (("interview", "Interview"),),
        (("prize", "Preis"),),
        (("piece", "Stück"),),
    ]
    path = write_lines(tmp_path / "iate.tsv", [*lines[:2] * 10, lines[2]])
    assert rejected(path, **SIDES) == [(21, "a term without a translation")]
