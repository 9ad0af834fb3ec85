"""Weights are brought over real HTTP by the real clients, from a hub, a bucket and folders."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import tiny_bucket
import tiny_hub
from tiny_hub import COMMIT, Hub
from tiny_weights import pickled_folder, report, safetensors_folder
from transformers import AutoModelForCausalLM

from bayling.errors import StageFailed, UserError
from bayling.model import Licence, ModelConfig
from bayling.model_folder import load_tokenizer
from bayling.weights import fetch, lock
from bayling.weights.folder import Source, digest, wanted

NAME = "owner/llama"
HF = f"hf://{NAME}"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository's content, with things that no base model needs."""
    folder = safetensors_folder(tmp_path_factory.mktemp("repository") / "llama")
    (folder / "README.md").write_text("# a model")
    (folder / "LICENSE.txt").write_text("terms")
    (folder / "consolidated.safetensors").write_bytes(b"x" * 5000)
    (folder / "pytorch_model.bin").write_bytes(b"x" * 5000)
    return folder


@pytest.fixture
def hub(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    for name in ("HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-login"))
    with tiny_hub.running() as running:
        running.repositories[NAME] = base
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


def _leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.unit
def test_what_a_base_needs_comes_and_nothing_else(hub: Hub, base: Path, tmp_path: Path) -> None:
    to = tmp_path / "models" / "llama"
    record = fetch.fetch(HF, COMMIT, to, report=report)
    there = {path.name for path in to.iterdir()}
    assert there == {*record.files, "source.json"}
    assert "README.md" not in there
    assert "consolidated.safetensors" not in there
    assert "pytorch_model.bin" not in there
    assert "LICENSE.txt" in there
    assert (record.source, record.revision, record.asked) == (HF, COMMIT, None)
    assert record.licence == "llama2"
    for name, file in record.files.items():
        assert digest(base / name) == file
        assert digest(to / name) == file
    assert not _leftovers(to.parent)
    assert not _leftovers(to)
    AutoModelForCausalLM.from_pretrained(to, local_files_only=True)
    load_tokenizer(to)


@pytest.mark.unit
def test_a_branch_becomes_its_commit(hub: Hub, tmp_path: Path) -> None:
    record = fetch.fetch(HF, None, tmp_path / "llama", report=report)
    assert (record.revision, record.asked) == (COMMIT, "main")
    assert Source.read(tmp_path / "llama") == record
    # Asked for again, in either way, it is there.
    hub.sent.clear()
    for revision in (None, "main", COMMIT):
        assert fetch.fetch(HF, revision, tmp_path / "llama", report=report) == record
    assert not hub.sent


@pytest.mark.unit
def test_what_lies_there_is_not_taken_for_something_else(hub: Hub, tmp_path: Path) -> None:
    fetch.fetch(HF, COMMIT, tmp_path / "llama", report=report)
    with pytest.raises(UserError, match="not at fedcba"):
        fetch.fetch(HF, "fedcba", tmp_path / "llama", report=report)
    with pytest.raises(UserError, match=f"holds {HF}, not hf://owner/other"):
        fetch.fetch("hf://owner/other", None, tmp_path / "llama", report=report)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").touch()
    with pytest.raises(UserError, match="was not fetched: choose another folder"):
        fetch.fetch(HF, None, tmp_path / "mine", report=report)


@pytest.mark.unit
def test_a_gated_repository_names_the_way_out(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.token = "hf_secret"
    with pytest.raises(
        UserError, match=rf"accept its licence at {hub.url}/{NAME} and set HF_TOKEN"
    ):
        fetch.fetch(HF, COMMIT, tmp_path / "llama", report=report)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(UserError, match="did not accept the token") as refused:
        fetch.fetch(HF, COMMIT, tmp_path / "llama", report=report)
    assert "hf_wrong" not in str(refused.value)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.accepts = False
    with pytest.raises(UserError, match="with that account") as refused:
        fetch.fetch(HF, COMMIT, tmp_path / "llama", report=report)
    assert "hf_secret" not in str(refused.value)
    hub.accepts = True
    fetch.fetch(HF, COMMIT, tmp_path / "llama", report=report)
    for path in (tmp_path / "llama").iterdir():
        assert b"hf_secret" not in path.read_bytes()


@pytest.mark.unit
def test_the_token_of_a_mounted_secret(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.token = "hf_mounted"
    secret = tmp_path / "secret"
    monkeypatch.setenv("HF_TOKEN_PATH", str(secret))
    with pytest.raises(UserError, match=r"HF_TOKEN_PATH=.* cannot be read"):
        fetch.fetch(HF, COMMIT, tmp_path / "llama", report=report)
    secret.write_text("hf_mounted\n")
    fetch.fetch(HF, COMMIT, tmp_path / "llama", report=report)
    assert hub.tokens == {"hf_mounted"}


@pytest.mark.unit
@pytest.mark.parametrize(
    ("source", "revision", "sentence"),
    [
        (HF, "0" * 40, "has no revision '0000"),
        (HF, "v9", "has no revision 'v9'"),
        ("hf://owner/nothing", None, "there is no hf://owner/nothing at http"),
        ("hf://nothing", None, "write hf://OWNER/NAME"),
        ("hf://owner/llama@v1", None, "its commit as the revision"),
        ("owner/llama", None, "for a repository of the hub write hf://owner/llama"),
    ],
)
def test_a_wrong_source_is_one_sentence(
    hub: Hub, tmp_path: Path, source: str, revision: str | None, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence) as refused:
        fetch.fetch(source, revision, tmp_path / "llama", report=report)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "llama").exists()
    assert not list(tmp_path.glob(".llama.lock"))


@pytest.mark.unit
def test_a_hub_that_does_not_answer(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{probe.getsockname()[1]}")
    with pytest.raises(StageFailed, match=r"does not answer .*or name a folder or bucket"):
        fetch.fetch(HF, COMMIT, tmp_path / "llama", report=report)


@pytest.mark.unit
@pytest.mark.parametrize("file", ["model-00001-of-00003.safetensors", "generation_config.json"])
def test_a_flipped_bit_is_refused_and_brought_again(hub: Hub, tmp_path: Path, file: str) -> None:
    """Large files are checked by sha256, small ones by git's id."""
    assert (hub.repositories[NAME] / file).exists()
    hub.flip = {file}
    with pytest.raises(StageFailed, match=f"{file} did not arrive"):
        fetch.fetch(HF, COMMIT, tmp_path / "llama", report=report)
    assert not (tmp_path / "llama").exists()
    hub.flip, hub.sent = set(), []
    fetch.fetch(HF, COMMIT, tmp_path / "llama", report=report)
    assert hub.sent == [file], "what had arrived in order was brought again"


def test_a_fetch_that_was_killed_goes_on(hub: Hub, tmp_path: Path) -> None:
    last = "model-00003-of-00003.safetensors"
    hub.stall = {last}
    to = tmp_path / "llama"
    process = _fetching(to, tmp_path / "said")
    others = set(wanted(path.name for path in hub.repositories[NAME].iterdir())) - {last}
    arrived = tmp_path / ".llama.partial"
    # A file that is there counts once the hub's client has noted that it is whole.
    notes = [arrived / ".cache/huggingface/download" / f"{name}.metadata" for name in others]
    noted = lambda: all(note.exists() and note.stat().st_size for note in notes)  # noqa: E731
    _until(noted, "too little arrived")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not to.exists()
    assert (tmp_path / ".llama.lock").exists(), "the killed process gave its lock back"
    hub.stall = set()
    hub.go.set()
    time.sleep(0.1)
    hub.sent = []
    started = time.monotonic()
    fetch.fetch(HF, COMMIT, to, report=report)
    assert time.monotonic() - started < 100, "a lock whose process is gone was waited for"
    assert set(hub.sent) == {last}, "what had arrived was brought again"
    assert not _leftovers(tmp_path)


def test_of_several_one_downloads_and_the_others_wait(hub: Hub, tmp_path: Path) -> None:
    first = "model-00001-of-00003.safetensors"
    hub.stall = {first}
    to = tmp_path / "llama"
    logs = [tmp_path / f"said-{number}" for number in range(3)]
    processes = [_fetching(to, log) for log in logs]
    _until(lambda: sum("waiting for" in log.read_text() for log in logs) == 2, "nobody waits", 200)
    hub.go.set()
    for process in processes:
        process.wait(300)
    said = [log.read_text() for log in logs]
    assert [process.returncode for process in processes] == [0, 0, 0], said
    assert len(hub.sent) == len(set(hub.sent)), "a file was brought twice"
    waited = [text for text in said if "waiting for" in text]
    assert len(waited) == 2
    assert f"waiting for {socket.gethostname()} (process " in waited[0]
    assert fetch.verify(to, report).revision == COMMIT


def test_a_silent_holder_elsewhere_does_not_block_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(lock, "STALE_SECONDS", 0.5)
    path = tmp_path / "lock"
    owner = {"host": "node-7", "pid": 1, "namespace": "x", "token": "t"}
    path.write_text(json.dumps(owner))
    said: list[str] = []
    started = time.monotonic()
    with lock.held(path, said.append) as held:
        assert time.monotonic() - started > 0.4
        held.check()
    assert set(said) == {"node-7 (process 1)"}
    assert not path.exists()


def test_a_holder_that_beats_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(lock, "STALE_SECONDS", 2.0)
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.05)
    order: list[str] = []

    def second() -> None:
        with lock.held(tmp_path / "lock", lambda who: None):
            order.append("second")

    with lock.held(tmp_path / "lock", lambda who: None):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(3.5)
        order.append("first")
    thread.join(60)
    assert order == ["first", "second"]


def test_a_holder_that_was_taken_for_dead_notices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lock.held(tmp_path / "lock", lambda who: None) as held:
        owner = {"host": "node-7", "pid": 1, "namespace": "x", "token": "t"}
        (tmp_path / "lock").write_text(json.dumps(owner))
        with pytest.raises(StageFailed, match=r"node-7 \(process 1\) took .* over"):
            held.check()
    assert (tmp_path / "lock").exists(), "another's lock was removed"


@pytest.mark.unit
def test_a_lock_has_one_holder_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "POLL_SECONDS", 0.001)
    inside: list[int] = []
    most = 0

    def work() -> None:
        nonlocal most
        for _ in range(5):
            with lock.held(tmp_path / "lock", lambda who: None):
                inside.append(1)
                most = max(most, len(inside))
                time.sleep(0.002)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == 1


@pytest.mark.unit
def test_offline_takes_the_cache_and_asks_nobody(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import snapshot_download

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=r"HF_HUB_OFFLINE is set and the cache holds no hf://"):
        fetch.fetch(HF, COMMIT, tmp_path / "llama", report=report)
    snapshot_download(NAME, revision="main", endpoint=hub.url, cache_dir=str(tmp_path / "cache"))
    hub.repositories.clear()
    for revision in ("main", COMMIT, None):
        record = fetch.fetch(HF, revision, tmp_path / f"llama-{revision}", report=report)
        assert record.revision == COMMIT
    # The cache names blobs by their hash: what rotted there is noticed.
    weights = next((tmp_path / "cache").rglob("model-00002-of-00003.safetensors")).resolve()
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.chmod(0o644)
    weights.write_bytes(raw)
    with pytest.raises(StageFailed, match="model-00002-of-00003"):
        fetch.fetch(HF, COMMIT, tmp_path / "again", report=report)


@pytest.mark.unit
def test_an_air_gapped_copy_keeps_its_origin(hub: Hub, tmp_path: Path) -> None:
    fetch.fetch(HF, COMMIT, tmp_path / "usb" / "llama", report=report)
    hub.repositories.clear()
    copy = str(tmp_path / "usb" / "llama")
    record = fetch.fetch(copy, COMMIT, tmp_path / "llama", report=report)
    assert (record.source, record.revision, record.via) == (HF, COMMIT, copy)
    fetch.fetch(HF, COMMIT, tmp_path / "llama", report=report)  # the same thing
    with pytest.raises(UserError, match="not at 0000"):
        fetch.fetch(copy, "0" * 40, tmp_path / "other", report=report)
    config = tmp_path / "usb" / "llama" / "config.json"
    config.write_text(config.read_text().replace("16", "61", 1))
    with pytest.raises(StageFailed, match=r"config\.json did not arrive"):
        fetch.fetch(copy, COMMIT, tmp_path / "other", report=report)


@pytest.mark.unit
def test_a_plain_folder(base: Path, tmp_path: Path) -> None:
    record = fetch.fetch(str(base), None, tmp_path / "llama", licence="llama1", report=report)
    assert (record.source, record.revision, record.licence) == (str(base), None, "llama1")
    assert fetch.verify(tmp_path / "llama", report) == record
    with pytest.raises(UserError, match=r"leave the revision out \(model.revision=null\)"):
        fetch.fetch(str(base), COMMIT, tmp_path / "other", report=report)
    with pytest.raises(UserError, match="there is no folder"):
        fetch.fetch(str(tmp_path / "nowhere"), None, tmp_path / "other", report=report)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no weights"):
        fetch.fetch(str(tmp_path / "empty"), None, tmp_path / "other", report=report)


def test_a_bucket(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrow's S3 client over HTTP."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3-secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    shutil.copytree(base, tmp_path / "s3" / "weights" / "models" / "llama")
    with tiny_bucket.running(tmp_path / "s3") as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        address = "s3://weights/models/llama"
        record = fetch.fetch(address, None, tmp_path / "llama", report=report)
        assert record.source == address
        for name, file in record.files.items():
            assert digest(base / name) == file
        with pytest.raises(UserError, match="s3://weights/models/nothing") as refused:
            fetch.fetch("s3://weights/models/nothing", None, tmp_path / "no", report=report)
        assert "s3-secret" not in str(refused.value)


@pytest.mark.unit
def test_what_fsspec_reads_is_read(base: Path, tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(str(base), "/llama", recursive=True)
    try:
        fetch.fetch("memory://llama", None, tmp_path / "one", report=report)
    finally:
        memory.rm("/llama", recursive=True)
    handler_class = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": _quiet})
    handler = partial(handler_class, directory=str(base))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        record = fetch.fetch(address, None, tmp_path / "two", report=report)
        server.shutdown()
    assert record.files == fetch.verify(tmp_path / "one", report).files
    with pytest.raises(UserError, match=r"cannot be read|needs a package"):
        fetch.fetch("nonsense://a/b", None, tmp_path / "three", report=report)


def _quiet(*arguments: object) -> None:
    """Silence."""


@pytest.mark.unit
def test_pickles_arrive_as_safetensors(hub: Hub, tmp_path: Path) -> None:
    old = tmp_path / "repository"
    pickled_folder(old)
    hub.repositories["owner/old"] = old
    record = fetch.fetch("hf://owner/old", COMMIT, tmp_path / "llama", report=report)
    assert "model.safetensors" in record.files
    assert "tokenizer.json" in record.files
    assert not any(name.endswith(".bin") for name in record.files)
    assert record.downloaded["pytorch_model-00001-of-00002.bin"] == digest(
        old / "pytorch_model-00001-of-00002.bin"
    )
    fetch.verify(tmp_path / "llama", report)
    AutoModelForCausalLM.from_pretrained(tmp_path / "llama", use_safetensors=True)
    assert not _leftovers(tmp_path)


@pytest.mark.unit
def test_verify_finds_a_changed_and_a_missing_file(hub: Hub, tmp_path: Path) -> None:
    fetch.fetch(HF, COMMIT, tmp_path / "llama", report=report)
    path = tmp_path / "llama" / "model-00002-of-00003.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(StageFailed, match=r"model-00002-of-00003\.safetensors changed"):
        fetch.verify(tmp_path / "llama", report)
    path.unlink()
    with pytest.raises(StageFailed, match="is missing"):
        fetch.verify(tmp_path / "llama", report)
    with pytest.raises(UserError, match="does not exist"):
        fetch.verify(tmp_path / "nothing", report)


@pytest.mark.unit
def test_ensure_fetches_once_and_takes_what_is_there(hub: Hub, base: Path, tmp_path: Path) -> None:
    fetch.ensure(ModelConfig(), report)  # has no base
    to = tmp_path / "llama"
    model = ModelConfig(base=str(to), source=HF, revision=COMMIT, licence=Licence.llama2)
    fetch.ensure(model, report)
    sent = len(hub.sent)
    fetch.ensure(model, report)
    assert len(hub.sent) == sent
    other = ModelConfig(base=str(to), source=HF, revision="0" * 40)
    with pytest.raises(UserError, match="not at 0000"):
        fetch.ensure(other, report)
    # A folder that somebody put there is theirs to answer for.
    fetch.ensure(ModelConfig(base=str(base), source=HF, revision=COMMIT), report)
    fetch.ensure(ModelConfig(base=str(base)), report)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        ("model-00002-of-00003.safetensors", "is incomplete: model-00002-of-00003.safetensors"),
        ("config.json", "has no config.json"),
        ("tokenizer.json", "has no tokenizer"),
    ],
)
def test_ensure_names_what_a_folder_lacks(
    base: Path, tmp_path: Path, broken: str, sentence: str
) -> None:
    folder = shutil.copytree(base, tmp_path / "llama")
    (folder / broken).unlink()
    with pytest.raises(UserError, match=sentence):
        fetch.ensure(ModelConfig(base=str(folder), source=HF), report)


@pytest.mark.unit
def test_ensure_without_weights_or_source(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"put the weights there, or set model\.source"):
        fetch.ensure(ModelConfig(base=str(tmp_path / "llama")), report)
    pickled_folder(tmp_path / "old")
    with pytest.raises(UserError, match="bayling model convert"):
        fetch.ensure(ModelConfig(base=str(tmp_path / "old")), report)


@pytest.mark.unit
def test_a_place_that_cannot_be_written(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write to"):
        fetch.fetch(HF, COMMIT, tmp_path / "file" / "llama", report=report)


def _fetching(to: Path, said: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "bayling.cli", "model", "fetch", HF]
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2] / "platform"),
        "HF_HUB_DOWNLOAD_TIMEOUT": "300",  # the hub may stall for as long as a test wants
    }
    with said.open("wb") as log:
        return subprocess.Popen(
            [*command, "--revision", COMMIT, "--to", str(to)],
            stdout=subprocess.DEVNULL,
            stderr=log,
            env=environment,
        )


def _until(met: Callable[[], bool], what: str, seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
