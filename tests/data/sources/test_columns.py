from __future__ import annotations

import pytest

from bayling.data.sources.columns import columns_of, direction_in, named_in

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("name", "direction"),
    [
        ("valid.zh-en.json", ("zh", "en")),
        ("WMT_2022-en_de", ("en", "de")),
        ("eng_Latn-zho_Hans", ("en", "zh")),
        ("constraints.en-zh.zh.first400", ("en", "zh")),
        ("news.pt-br.tsv", None),  # Portuguese as in Brazil, not Portuguese and Breton
        ("to-do-list", None),
        ("train.en", None),
    ],
)
def test_names_of_files_say_directions(name: str, direction: tuple[str, str] | None) -> None:
    assert direction_in(name) == direction


@pytest.mark.parametrize(
    ("token", "tag"),
    [("en", "en"), ("zho_simpl", "zh"), ("pt-br", "pt-BR"), ("en-de", None), ("id", None),
     ("src", None), ("tok", None), ("devtest", None)],
)  # fmt: skip
def test_not_every_word_that_could_be_a_code_is_one(token: str, tag: str | None) -> None:
    assert named_in(token) == tag


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        (["id", "src", "tgt"], {"source": "src", "target": "tgt", "id": "id"}),
        (["German", "English"], {"de": "German", "en": "English"}),
        (["sentence_eng_Latn", "URL", "sentence_swh_Latn"],
         {"en": "sentence_eng_Latn", "sw": "sentence_swh_Latn"}),
        (["Source", "Target", "Source_Lang"],
         {"source": "Source", "target": "Target", "source_lang": "Source_Lang"}),
        (["text", "label"], {}),
        (["en"], {}),
    ],
)  # fmt: skip
def test_columns_are_told_by_their_names(names: list[str], columns: dict[str, str]) -> None:
    assert columns_of(names) == columns
