from __future__ import annotations

import pytest

from bayling.config import compose
from bayling.data.sources import SourceConfig, source_config
from bayling.data.sources.inspection import hydra_value
from bayling.errors import UserError

pytestmark = pytest.mark.unit


def test_a_source_is_a_path_or_a_mapping_on_the_command_line() -> None:
    config = compose(
        [
            "data.sources=[/data/opus/x.en.gz,"
            "{path:s3://bucket/news/*.tsv,source_lang:eng,target_lang:zho_simpl,weight:2,"
            "columns:{source:1,target:3},register:formal,licence:CC-BY-4.0}]"
        ]
    )
    first, second = config.data.sources
    assert first == SourceConfig(path=("/data/opus/x.en.gz",), origin="opus/x")
    assert second == SourceConfig(
        path=("s3://bucket/news/*.tsv",),
        source_lang="en",
        target_lang="zh",
        columns={"source": 1, "target": 3},
        licence="CC-BY-4.0",
        origin="news/tsv",
        weight=2.0,
        register="formal",
    )


def test_a_configuration_can_be_checked_again() -> None:
    config = compose(["data.sources=[a.tsv]"])
    before = config.data.sources
    config.validate()
    assert config.data.sources == before


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"path": "a", "licens": "x"}, "there is no key 'licens': did you mean licence?"),
        ({"path": "a", "format": "sharegtp"}, "no format 'sharegtp': did you mean sharegpt?"),
        ({"format": "tsv"}, "data.sources[1].path is missing"),
        (7, "must be a path or a mapping"),
        ({"path": "a", "weight": 0}, "data.sources[1].weight must be a number above 0"),
        ({"path": "a", "weight": "much"}, "must be a number above 0, not 'much'"),
        ({"path": "a", "source_lang": "xx"}, "data.sources[1].source_lang: the Unicode CLDR"),
        ({"path": "a", "source_lang": False}, 'write "no" in quotes, or nb'),
        ({"path": "a", "source_lang": "de", "target_lang": "deu"}, "are both de"),
        ({"path": "a", "languages": ["en", "eng"]}, "names en twice"),
        ({"path": "a", "languages": ["en", "de"], "source_lang": "fr"}, "must contain source_lang"),
        ({"path": "a", "columns": {"source": "x"}}, "must name both source and target"),
        ({"path": "a", "columns": {"sourse": 1}}, "did you mean source?"),
        ({"path": "a", "columns": {"source": 0, "target": 1}}, "or its number from 1"),
        ("/data/first", "both have the origin 'data/first'"),
    ],
)
def test_a_wrong_entry_is_named_by_its_place(item: object, said: str) -> None:
    from bayling.data.config import DataConfig

    with pytest.raises(UserError) as refused:
        DataConfig(sources=["/data/first", item]).validate()
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("path", "origin"),
    [
        ("/data/opus/x.en", "opus/x"),
        ("x.tsv", "x"),
        ("/data/news.en-de.tsv.zst", "data/news.en-de"),
        ("hf://datasets/owner/name", "owner/name"),
        ("https://host/a/b.jsonl?download=true", "a/b"),
        ("s3://bucket/news/*", "bucket/news"),
    ],
)
def test_the_origin_is_taken_from_the_path(path: str, origin: str) -> None:
    assert source_config(path).origin == origin


@pytest.mark.parametrize(
    "value",
    ["plain/x.en", "s3://b/x*", "with space", 'a "quote"', "it's", "a,b]}", "true", "1e3", "汉\\",
     ["a", "b:c"], {"source": 1, "target": "the column"}],
)  # fmt: skip
def test_values_are_written_as_hydra_reads_them(value: object) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    override = OverridesParser.create().parse_override(f"key=[{hydra_value(value)}]")
    assert override.value() == [value]
