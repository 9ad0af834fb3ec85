"""The same files from memory, a web server and a bucket, through the real file systems."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest
import tiny_bucket
import tiny_hub
from sources import PAIRS, pairs, rows, write_json_lines, write_lines, write_parquet

from bayling.errors import UserError

pytestmark = pytest.mark.unit

EXPECTED = [("en", "de", *pair) for pair in PAIRS]
RECORDS = [{"translation": {"en": a, "de": b}} for a, b in PAIRS]
SIDES = {"source_lang": "en", "target_lang": "de"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What every place holds: aligned text, JSON and Parquet, packed and not."""
    folder = tmp_path / "corpora"
    write_lines(folder / "opus" / "x.en.gz", [source for source, _ in PAIRS], "gzip")
    write_lines(folder / "opus" / "x.de", [target for _, target in PAIRS])
    write_json_lines(folder / "json" / "a.jsonl.zst", RECORDS, "zstd")
    write_json_lines(folder / "json" / "b.jsonl", RECORDS)
    (folder / "hub").mkdir()
    write_parquet(folder / "hub" / "train.parquet", RECORDS)
    return folder


@pytest.fixture
def memory(folder: Path) -> Iterator[str]:
    files = fsspec.filesystem("memory")
    files.put(str(folder), "/corpora", recursive=True)
    yield "memory://corpora"
    files.rm("/corpora", recursive=True)


@pytest.fixture
def bucket(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    with tiny_bucket.running(folder.parent) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        yield "s3://corpora"


@pytest.fixture
def web(folder: Path) -> Iterator[str]:
    """A server that gives whole files only, as many do."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            """Silence."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("place", ["folder", "memory", "bucket"])
def test_files_folders_and_globs(place: str, request: pytest.FixtureRequest) -> None:
    where = request.getfixturevalue(place)
    assert pairs(f"{where}/opus/x.en.gz", **SIDES) == EXPECTED
    assert pairs(f"{where}/opus", **SIDES) == EXPECTED
    assert pairs(f"{where}/json/a.jsonl.zst") == EXPECTED
    assert pairs(f"{where}/json") == EXPECTED * 2
    assert pairs(f"{where}/json/*.zst") == EXPECTED
    assert pairs(f"{where}/hub") == EXPECTED
    with pytest.raises(UserError, match=r"there is no .*/nowhere"):
        rows(f"{where}/nowhere")


def test_places_are_addresses_that_can_be_given_again(bucket: str) -> None:
    first, *_ = rows(f"{bucket}/json")
    assert str(first.place) == f"{bucket}/json/a.jsonl.zst:1"
    assert pairs(first.place.file) == EXPECTED


def test_a_web_server(web: str) -> None:
    assert pairs(f"{web}/json/a.jsonl.zst?download=true") == EXPECTED
    assert pairs(f"{web}/json/") == EXPECTED * 2
    assert pairs([f"{web}/opus/x.en.gz", f"{web}/opus/x.de"], languages=["en", "de"]) == EXPECTED
    with pytest.raises(UserError, match=r"there is no http.*/nowhere"):
        rows(f"{web}/nowhere")


def test_a_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tiny_hub.running() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.repositories["owner/name"] = folder / "json"
        assert pairs("hf://owner/name/a.jsonl.zst") == EXPECTED
        assert pairs("hf://owner/name/*.jsonl") == EXPECTED
        with pytest.raises(UserError, match="there is no hf://owner/other"):
            rows("hf://owner/other/a.jsonl")


def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:9/x cannot be read"):
        rows("http://127.0.0.1:9/x")


def test_a_hub_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"hf://datasets/owner/name cannot be read \(.*refused"):
        rows("hf://datasets/owner/name")
