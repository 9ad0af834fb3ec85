"""`bayling key`, as a person uses it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bayling.cli import main
from bayling.serve import keys
from bayling.serve.keyring import KeyRing

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the command prints on standard output: the key."""
    assert main(["key", "new", *arguments]) == 0
    shown = capsys.readouterr()
    key = shown.out.strip()
    assert key.rpartition("-")[2] not in shown.err
    return key


def test_a_key_is_made_listed_and_taken_back(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full = made(capsys, "app")
    owner = KeyRing(here / "keys.jsonl").owner(full)
    assert owner is not None and owner.name == "app"

    made(capsys, "lab")
    assert main(["key", "list"]) == 0
    listed = capsys.readouterr().out
    assert "app" in listed and "lab" in listed and owner.id in listed
    assert owner.sha256 not in listed and full not in listed

    assert main(["key", "revoke", "app"]) == 0
    assert "app" in capsys.readouterr().out
    assert KeyRing(here / "keys.jsonl").owner(full) is None
    assert main(["key", "revoke", "app"]) == 2


def test_limits_and_expiry_are_kept_with_the_key(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made(capsys, "a", "--requests-per-minute", "60", "--tokens-per-minute", "none")
    made(capsys, "b", "--expires", "90d")
    made(capsys, "c", "--expires", "2099-01-31")
    a, b, c = keys.read(here / "keys.jsonl")
    assert (a.limits, a.expires) == ({"requests_per_minute": 60, "tokens_per_minute": None}, None)
    assert b.expires is not None and b.limits == {}
    assert abs(b.expires - datetime.now(UTC) - timedelta(days=90)) < timedelta(minutes=1)
    assert c.expires == datetime(2099, 2, 1, tzinfo=UTC)  # all of that day
    assert main(["key", "list"]) == 0
    assert "60 requests per minute" in capsys.readouterr().out


def test_a_folder_takes_a_file_for_each_key(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "keys").mkdir()
    made(capsys, "app", "--file", "keys")
    assert [item.name for item in (here / "keys").iterdir()] == ["app.json"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["new", "a/b"], "cannot name a key"),
        (["new", "a", "--expires", "soon"], "write 90d, 12h or a day"),
        (["new", "a", "--expires", "2020-01-01"], "has passed already"),
        (["new", "a", "--tokens-per-minute", "0"], "tokens_per_minute must be at least 1"),
        (["new", "a", "--file", "no/keys.jsonl"], "no/keys.jsonl"),
        (["list"], "keys.jsonl"),
        (["revoke", "a"], "keys.jsonl"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    here: Path, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["key", *arguments]) == 2
    shown = capsys.readouterr()
    assert sentence in shown.err and shown.err.count("\n") == 1 and not shown.out
    assert not list(here.iterdir())
