"""Keys in files and folders, and what a person reads who has broken one."""

from __future__ import annotations

import hashlib
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bayling.errors import UserError
from bayling.serve import keys

pytestmark = pytest.mark.unit


def kept(path: Path, name: str = "app") -> str:
    """A new key in a file; what its owner has."""
    full, key = keys.make(name)
    keys.add(path, key)
    return full


def test_a_key_has_256_random_bits_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "keys.jsonl"
    full = kept(file)
    identity, _, secret = full.removeprefix("bl-").partition("-")
    assert len(secret) == 43  # 32 bytes in base64
    text = file.read_text()
    assert secret not in text and full not in text
    [key] = keys.read(file)
    assert (key.id, key.name, key.sha256) == (
        identity,
        "app",
        hashlib.sha256(full.encode()).hexdigest(),
    )
    assert len({keys.make("a")[0] for _ in range(100)}) == 100


def test_what_is_written_is_read_again_to_the_last_field(tmp_path: Path) -> None:
    expires = datetime.now(UTC).replace(microsecond=0) + timedelta(days=3)
    own = {"requests_per_minute": 60, "tokens_per_minute": None}
    _, key = keys.make("lab-1", expires, own)
    keys.add(tmp_path / "keys.jsonl", key)
    assert keys.read(tmp_path / "keys.jsonl") == [key]
    assert not key.expired(expires - timedelta(seconds=1)) and key.expired(expires)


def test_a_hash_is_in_no_repr() -> None:
    full, key = keys.make("app")
    assert key.sha256 not in repr(key) and full not in repr(key)


def test_a_new_file_is_for_its_owner_only_and_so_is_one_that_was_changed(tmp_path: Path) -> None:
    file = tmp_path / "keys.jsonl"
    kept(file)
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o644)
    kept(file, "other")
    assert file.stat().st_mode & 0o777 == 0o600
    assert [item.name for item in tmp_path.iterdir()] == ["keys.jsonl"]


def test_a_link_to_a_file_stays_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real.jsonl", tmp_path / "keys.jsonl"
    kept(real)
    link.symlink_to(real)
    kept(link, "other")
    assert link.is_symlink() and [key.name for key in keys.read(real)] == ["app", "other"]


def test_a_folder_has_a_file_for_each_key(tmp_path: Path) -> None:
    kept(tmp_path, "a")
    kept(tmp_path, "b")
    assert {item.name for item in tmp_path.iterdir()} == {"a.json", "b.json"}
    keys.remove(tmp_path, "a")
    assert {item.name for item in tmp_path.iterdir()} == {"b.json"}
    assert [key.name for key in keys.read(tmp_path)] == ["b"]


def test_one_key_is_taken_out_and_the_others_stay(tmp_path: Path) -> None:
    file = tmp_path / "keys.jsonl"
    for name in ("a", "b", "c"):
        kept(file, name)
    assert keys.remove(file, "b").name == "b"
    assert [key.name for key in keys.read(file)] == ["a", "c"]
    with pytest.raises(UserError, match="no key named 'cc': did you mean 'c'"):
        keys.remove(file, "cc")


def test_keys_that_are_made_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    file = tmp_path / "keys.jsonl"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: kept(file, f"k{n}"), range(4)))
    assert {key.name for key in keys.read(file)} == {"k0", "k1", "k2", "k3"}


def test_a_name_is_had_once(tmp_path: Path) -> None:
    kept(tmp_path / "keys.jsonl")
    with pytest.raises(UserError, match=r"already.*bayling key revoke app"):
        kept(tmp_path / "keys.jsonl")


@pytest.mark.parametrize("name", ["", "a/b", "../x", ".hidden", "a b", "x" * 64, "a\n"])
def test_a_name_can_be_a_files(name: str) -> None:
    with pytest.raises(UserError, match="cannot name a key"):
        keys.make(name)


def _record(**changes: object) -> str:
    record = json.loads(keys.make("app")[1].line())
    return json.dumps({**record, **changes})


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", r"no JSON at column 2"),
        ("[1]", "a record is an object"),
        (_record(hash="x"), "nothing else"),
        (_record(id="X"), "id is missing or not"),
        (_record(name=5), "name is missing or not"),
        (_record(sha256="12"), "sha256 is missing or not"),
        (_record(created="yesterday"), "created must be a time with its zone"),
        (_record(expires="2027-01-31"), "expires must be a time with its zone"),
        (_record(limits=[1]), "limits is an object"),
        (_record(limits={"requests": 1}), "requests_per_minute, tokens_per_minute, concurrent"),
        (_record(limits={"requests_per_minute": "5"}), "a whole number, or null"),
        (_record(limits={"requests_per_minute": True}), "a whole number, or null"),
        (_record(limits={"concurrent_requests": 0}), "concurrent_requests must be at least 1"),
    ],
    ids=range(13),  # a drawn key is another one each time
)
def test_a_broken_record_is_named_by_its_file_and_line(
    tmp_path: Path, line: str, reason: str
) -> None:
    file = tmp_path / "keys.jsonl"
    kept(file, "good")
    file.write_text(f"{file.read_text()}\n{line}\n")
    with pytest.raises(UserError, match=rf"keys\.jsonl, line 3: .*{reason}") as refused:
        keys.read(file)
    assert "\n" not in str(refused.value)


def test_a_key_that_was_pasted_into_the_file_is_in_no_message(tmp_path: Path) -> None:
    full, _ = keys.make("app")
    for line in (full, _record(sha256=full), _record(id=full), json.dumps({full: 1}), f'"{full}"'):
        (tmp_path / "keys.jsonl").write_text(line)
        with pytest.raises(UserError) as refused:
            keys.read(tmp_path / "keys.jsonl")
        assert full.rpartition("-")[2] not in repr(refused.value)


def test_the_same_id_or_name_twice_is_refused(tmp_path: Path) -> None:
    line = _record()
    (tmp_path / "keys.jsonl").write_text(f"{line}\n{line}\n")
    with pytest.raises(UserError, match="line 2: another key has the id"):
        keys.read(tmp_path / "keys.jsonl")
    (tmp_path / "keys.jsonl").write_text(f"{_record()}\n{_record()}\n")
    with pytest.raises(UserError, match="line 2: another key has the name 'app'"):
        keys.read(tmp_path / "keys.jsonl")


def test_files_that_are_none_are_told_by_their_path(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "none"))):
        keys.read(tmp_path / "none")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="no text"):
        keys.read(tmp_path / "binary")
    with pytest.raises(UserError, match="no keys can be kept in"):
        kept(tmp_path / "no" / "keys.jsonl")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_cannot_be_read_is_told_by_its_path(tmp_path: Path) -> None:
    kept(tmp_path / "keys.jsonl")
    (tmp_path / "keys.jsonl").chmod(0)
    with pytest.raises(UserError, match=r"keys\.jsonl \(Permission denied\)"):
        keys.read(tmp_path / "keys.jsonl")
