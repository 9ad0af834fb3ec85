"""Which keys are valid, while their file changes."""

from __future__ import annotations

import hmac
import logging
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bayling.errors import UserError
from bayling.serve import keys
from bayling.serve.keyring import POLL_S, KeyRing

pytestmark = pytest.mark.unit


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def poll(self) -> None:
        """As long as a change may go unseen."""
        self.now += POLL_S


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.jsonl"


def kept(path: Path, name: str = "app", expires: datetime | None = None) -> str:
    full, key = keys.make(name, expires)
    keys.add(path, key)
    return full


def owner(ring: KeyRing, presented: str) -> str | None:
    key = ring.owner(presented)
    return key.name if key else None


def test_a_key_is_its_owners_and_no_other_text_is(file: Path, clock: Clock) -> None:
    full, other = kept(file), kept(file, "other")
    ring = KeyRing(file, clock)
    assert (owner(ring, full), owner(ring, other)) == ("app", "other")
    mixed = full[: full.index("-", 3)] + other[other.index("-", 3) :]
    for wrong in (
        mixed,
        full[:-1],
        full + "x",
        full.upper(),
        "",
        "bl-",
        "ключ",
        "\udce9",
        full[3:],
    ):
        assert owner(ring, wrong) is None


def test_a_key_expires(file: Path, clock: Clock) -> None:
    now = datetime.now(UTC)
    past, later = (
        kept(file, "past", now - timedelta(seconds=1)),
        kept(file, "later", now + timedelta(days=1)),
    )
    ring = KeyRing(file, clock)
    assert (owner(ring, past), owner(ring, later)) == (None, "later")


def test_an_unknown_id_takes_the_same_steps_as_a_wrong_secret(
    file: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, unknown = kept(file), keys.make("nobody")[0]
    wrong = right[: right.index("-", 3)] + unknown[unknown.index("-", 3) :]
    ring = KeyRing(file, clock)
    steps: list[tuple[str, int, int]] = []
    digest, compare = keys.digest, hmac.compare_digest

    def seen_digest(text: str) -> bytes:
        steps.append(("hashed", len(text), 0))
        return digest(text)

    def seen_compare(one: bytes, other: bytes) -> bool:
        steps.append(("compared", len(one), len(other)))
        return compare(one, other)

    monkeypatch.setattr(keys, "digest", seen_digest)
    monkeypatch.setattr(hmac, "compare_digest", seen_compare)
    taken = []
    for presented in (right, wrong, unknown):
        steps.clear()
        ring.owner(presented)
        taken.append(list(steps))
    assert taken[0] == taken[1] == taken[2] == [("hashed", len(right), 0), ("compared", 32, 32)]


def test_a_change_is_seen_after_a_second_and_not_looked_for_before(
    file: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = kept(file)
    ring = KeyRing(file, clock)
    looked = 0
    files = keys.files

    def seen_files(path: Path) -> list[Path]:
        nonlocal looked
        looked += 1
        return files(path)

    second = kept(file, "second")
    monkeypatch.setattr(keys, "files", seen_files)
    for _ in range(100):
        assert owner(ring, second) is None
    assert looked == 0
    clock.poll()
    assert owner(ring, second) == "second"
    monkeypatch.undo()
    keys.remove(file, "app")
    assert owner(ring, first) == "app"
    clock.poll()
    assert (owner(ring, first), owner(ring, second)) == (None, "second")


def test_a_broken_file_keeps_the_keys_and_is_complained_of_once(
    file: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    full = kept(file)
    ring = KeyRing(file, clock)
    good = file.read_text()
    file.write_text(good[:40])
    for _ in range(3):
        clock.poll()
        assert owner(ring, full) == "app"
    [complaint] = [entry for entry in caplog.records if entry.levelno == logging.ERROR]
    assert "keys.jsonl, line 1: no JSON" in complaint.getMessage()
    assert "stay valid" in complaint.getMessage()
    file.write_text("")
    clock.poll()
    assert owner(ring, full) is None


def test_a_file_that_disappears_keeps_the_keys_until_it_is_back(
    file: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    full = kept(file)
    ring = KeyRing(file, clock)
    file.unlink()
    for _ in range(3):
        clock.poll()
        assert owner(ring, full) == "app"
    assert len([entry for entry in caplog.records if entry.levelno == logging.ERROR]) == 1
    new = kept(file, "new")
    clock.poll()
    assert (owner(ring, full), owner(ring, new)) == (None, "new")


class Mounted:
    """A folder as the kubelet mounts a Secret: entries are links to `..data/ENTRY`, and `..data`
    is a link to a folder with a time in its name, which is exchanged in one step."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._version = 0
        folder.mkdir()

    def update(self, entries: dict[str, str]) -> None:
        self._version += 1
        real = self.folder / f"..2026_07_01_{self._version}"
        real.mkdir()
        for name, text in entries.items():
            (real / name).write_text(text)
        aside, data = self.folder / "..data_tmp", self.folder / "..data"
        before = data.resolve() if data.exists() else None
        aside.symlink_to(real.name)
        aside.rename(data)
        for name in entries:
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(f"..data/{name}")
        if before is not None:
            for item in before.iterdir():
                item.unlink()
            before.rmdir()

    def forget(self, name: str) -> None:
        (self.folder / name).unlink()


def test_a_mounted_secret_is_followed_through_its_updates(tmp_path: Path, clock: Clock) -> None:
    mounted = Mounted(tmp_path / "keys")
    made = {name: keys.make(name) for name in ("a", "b", "c")}
    texts = {name: key.line() for name, (_, key) in made.items()}

    def let_in(ring: KeyRing) -> set[str]:
        return {name for name, (full, _) in made.items() if owner(ring, full)}

    mounted.update({"a": texts["a"], "b": texts["b"]})
    ring = KeyRing(mounted.folder, clock)
    assert let_in(ring) == {"a", "b"}
    mounted.update({"b": texts["b"], "c": texts["c"]})
    clock.poll()  # the entry of `a` is a link to nowhere by now
    assert let_in(ring) == {"b", "c"}
    mounted.forget("a")
    clock.poll()
    assert let_in(ring) == {"b", "c"}


def test_a_file_in_a_mounted_secret_is_followed_too(tmp_path: Path, clock: Clock) -> None:
    mounted = Mounted(tmp_path / "keys")
    (old, one), (new, two) = keys.make("old"), keys.make("new")
    mounted.update({"keys.jsonl": one.line()})
    ring = KeyRing(mounted.folder / "keys.jsonl", clock)
    assert owner(ring, old) == "old"
    mounted.update({"keys.jsonl": two.line()})
    clock.poll()
    assert (owner(ring, old), owner(ring, new)) == (None, "new")


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, True), (0o604, True)])
def test_a_file_that_others_can_read_is_warned_of(
    file: Path, mode: int, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    kept(file)
    file.chmod(mode)
    KeyRing(file)
    assert ("chmod 600" in caplog.text) == warned


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_reading_by_ones_group_as_a_pod_does_is_no_reason_to_warn(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept(file)
    os.chown(file, 12345, 0)
    file.chmod(0o440)
    KeyRing(file)
    assert not caplog.text
    file.chmod(0o460)
    KeyRing(file)
    assert "chmod 600" in caplog.text


def test_a_server_without_its_file_does_not_start(file: Path) -> None:
    with pytest.raises(UserError, match=r"keys\.jsonl"):
        KeyRing(file)


def test_nothing_that_lets_anybody_in_is_logged_or_shown(
    file: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    full = kept(file)
    file.chmod(0o644)
    ring = KeyRing(file, clock)
    secret = full.rpartition("-")[2]
    kept(file, "second")
    for text in ("", full, "{" + full, file.read_text()[:-5]):
        clock.poll()
        ring.owner(full)
        file.write_text(text)
    clock.poll()
    ring.owner(full)
    assert len(caplog.records) > 3
    for shown in (caplog.text, repr(ring), repr(ring.owner(full))):
        assert secret not in shown and keys.digest(full).hex() not in shown
