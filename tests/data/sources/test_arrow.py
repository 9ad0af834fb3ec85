"""Folders of Hugging Face `datasets`, written by `datasets` itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sources import PAIRS, pairs, rows, write, write_parquet

from bayling.data.sources import open_source, source_config
from bayling.errors import UserError

pytestmark = pytest.mark.unit

RECORDS = [{"id": n, "translation": {"en": a, "de": b}} for n, (a, b) in enumerate(PAIRS)]
EXPECTED = [("en", "de", *pair) for pair in PAIRS]


@pytest.fixture(scope="module")
def datasets() -> Any:
    return pytest.importorskip("datasets")


def test_a_saved_data_set_is_read_without_the_library(tmp_path: Path, datasets: Any) -> None:
    data = datasets.Dataset.from_list(RECORDS * 2)
    data.info.license = "cc-by-4.0"
    data.save_to_disk(str(tmp_path / "saved"), num_shards=2)
    assert sorted(pairs(tmp_path / "saved")) == sorted(EXPECTED * 2)
    source = open_source(source_config(str(tmp_path / "saved")))
    assert len(source.files) == 2
    assert source.licence() == "cc-by-4.0"


def test_of_several_splits_the_one_for_training_is_read(tmp_path: Path, datasets: Any) -> None:
    splits = {
        "train": datasets.Dataset.from_list(RECORDS),
        "test": datasets.Dataset.from_list(RECORDS[:1]),
    }
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    assert pairs(tmp_path / "saved") == EXPECTED
    notes = open_source(source_config(str(tmp_path / "saved"))).notes
    assert notes == ("left out: the split test; its folder can be named",)
    assert pairs(tmp_path / "saved" / "test") == EXPECTED[:1]


def test_a_folder_as_on_the_hub_is_read_with_its_card(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_parquet(tmp_path / "data" / "train-00000-of-00001.parquet", RECORDS)
    write_parquet(tmp_path / "data" / "validation-00000-of-00001.parquet", RECORDS[:1])
    write(tmp_path / "README.md", "---\nlanguage:\n- en\nlicense: cc0-1.0\n---\n# Card\n")
    assert pairs(tmp_path) == EXPECTED
    source = open_source(source_config(str(tmp_path)))
    assert source.licence() == "cc0-1.0"
    assert source.notes == ("left out: the split validation; its files can be named",)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", RECORDS * 500)
    data = bytearray(path.read_bytes())
    write(path, bytes(data[: len(data) // 2]))
    with pytest.raises(UserError, match=r"a\.parquet is damaged Parquet data"):
        rows(path)
