from __future__ import annotations

from pathlib import Path

import pytest
from sources import ENDINGS, PAIRS, pairs, rejected, rows, write, write_lines

from bayling.data.sources import Pair, Parallel, Rejected, open_source, source_config
from bayling.errors import UserError

pytestmark = pytest.mark.unit

ENGLISH = [source for source, _ in PAIRS]
GERMAN = [target for _, target in PAIRS]
EXPECTED = [("en", "de", *pair) for pair in PAIRS]


@pytest.mark.parametrize("how", [None, *ENDINGS])
@pytest.mark.parametrize(
    ("english", "german"),
    [
        ("train.en", "train.de"),  # Moses
        ("Europarl.en-de.en", "Europarl.en-de.de"),  # OPUS
        ("eng.devtest", "deu.devtest"),  # FLORES-101
        ("eng_Latn.dev", "deu_Latn.dev"),  # FLORES-200
        ("news-src.en.txt", "news-ref.de.txt"),  # WMT
        ("en.txt", "de.txt"),
        ("x.en-US", "x.de-AT"),
    ],
)
def test_one_file_leads_to_the_other(
    tmp_path: Path, how: str | None, english: str, german: str
) -> None:
    end = ENDINGS[how] if how else ""
    path = write_lines(tmp_path / f"{english}{end}", ENGLISH, how)
    write_lines(tmp_path / f"{german}{end}", GERMAN, how)
    write_lines(tmp_path / "other.fr", ["autre"])
    assert pairs(path, source_lang="en", target_lang="de") == EXPECTED
    assert sorted(pairs(path, languages=["de", "en"])) == sorted(
        ("de", "en", target, source) for source, target in PAIRS
    )


def test_the_name_says_which_language_is_the_source(tmp_path: Path) -> None:
    write_lines(tmp_path / "x.en-de.en", ENGLISH)
    path = write_lines(tmp_path / "x.en-de.de", GERMAN)
    assert pairs(path) == EXPECTED


def test_each_side_may_be_packed_in_its_own_way(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "x.en.gz", ENGLISH, "gzip")
    write_lines(tmp_path / "x.de.zst", GERMAN, "zstd")
    assert pairs(path, source_lang="en", target_lang="de") == EXPECTED


@pytest.fixture
def devtest(tmp_path: Path) -> Path:
    folder = tmp_path / "devtest"
    texts = {"eng": ENGLISH, "deu": GERMAN, "zho_simpl": ["房子很大。", "我们星期四到。", "在哪？"]}
    for code, text in texts.items():
        write_lines(folder / f"{code}.devtest", text)
    write(folder / "README", "FLORES")
    write(folder / "LICENSE", "CC-BY-SA")
    return folder


def test_a_folder_of_many_languages_gives_every_two_of_them_once(devtest: Path) -> None:
    found = pairs(devtest)
    assert len(found) == 9
    assert {frozenset(pair[:2]) for pair in found} == {
        frozenset({"de", "en"}),
        frozenset({"de", "zh"}),
        frozenset({"en", "zh"}),
    }


def test_directions_can_be_chosen(devtest: Path) -> None:
    assert {pair[:2] for pair in pairs(devtest, source_lang="zho_Hans")} == {
        ("zh", "de"),
        ("zh", "en"),
    }
    assert {pair[:2] for pair in pairs(devtest, target_lang="en")} == {("de", "en"), ("zh", "en")}
    assert {pair[:2] for pair in pairs(devtest, languages=["zh", "en", "de"])} == {
        ("zh", "en"),
        ("zh", "de"),
        ("en", "de"),
    }
    with pytest.raises(UserError, match="has no fr: there are de, en, zh"):
        pairs(devtest, languages=["en", "fr"])


def test_a_sentence_can_be_had_in_all_its_languages(devtest: Path) -> None:
    source = open_source(source_config({"path": str(devtest), "languages": ["en", "zh", "de"]}))
    [part] = source.files
    first, *others = source.parallel(part)
    assert isinstance(first, Parallel)
    assert dict(first.texts) == {"en": ENGLISH[0], "zh": "房子很大。", "de": GERMAN[0]}
    assert len(others) == 2


def test_a_language_that_cldr_does_not_know_is_named(devtest: Path) -> None:
    write_lines(devtest / "xxq_Latn.devtest", ["?", "?", "?"])
    source = open_source(source_config(str(devtest)))
    assert source.languages == ("de", "en", "zh")
    assert any("knows no language 'xxq_Latn'" in note for note in source.notes)


def test_different_numbers_of_lines_are_an_error_that_names_both(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "x.en", ENGLISH)
    write_lines(tmp_path / "x.de", GERMAN[:-1])
    with pytest.raises(UserError, match=r"x\.de has 2 lines, .*x\.en has 3 lines"):
        rows(path)


def test_a_broken_line_is_rejected_with_its_file_and_the_others_stay_aligned(
    tmp_path: Path,
) -> None:
    path = write_lines(tmp_path / "x.en", ENGLISH)
    broken = write(tmp_path / "x.de", b"Das Haus\nDonnerstag \xff\nWo\n")
    found = rows(path, source_lang="en", target_lang="de")
    assert isinstance(found[1], Rejected)
    assert str(found[1].place) == f"{broken}:2"
    assert found[1].text == "Donnerstag \\xff"
    assert isinstance(found[2], Pair)
    assert (found[2].source, found[2].target) == (ENGLISH[2], "Wo")
    assert rejected(path) == [(2, "byte 12 of the line is no UTF-8")]


def test_empty_lines_are_sides_of_their_pairs(tmp_path: Path) -> None:
    path = write(tmp_path / "x.en", "a\n\nc\n")
    write(tmp_path / "x.de", "a\nb\n\n")
    assert [pair[2:] for pair in pairs(path, languages=["en", "de"])] == [
        ("a", "a"),
        ("", "b"),
        ("c", ""),
    ]


def test_files_whose_names_say_nothing_can_be_listed(tmp_path: Path) -> None:
    one = write_lines(tmp_path / "train.src", ENGLISH)
    other = write_lines(tmp_path / "train.tgt", GERMAN)
    with pytest.raises(UserError, match="plain text in one language"):
        rows(one)
    assert pairs([str(one), str(other)], languages=["en", "de"]) == EXPECTED


def test_names_that_say_their_languages_outweigh_the_order_of_a_list(tmp_path: Path) -> None:
    english = write_lines(tmp_path / "x.en", ENGLISH)
    german = write_lines(tmp_path / "x.de", GERMAN)
    assert pairs([str(german), str(english)], languages=["en", "de"]) == EXPECTED
