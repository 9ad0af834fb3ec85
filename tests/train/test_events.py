from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bayling.train import events

pytestmark = pytest.mark.unit


def test_a_reader_gets_every_event_once_and_in_order(tmp_path: Path) -> None:
    reader = events.Reader(tmp_path)
    assert reader.new() == []
    events.record(tmp_path, "第一", step=1)
    events.record(tmp_path, "second", names=["a", "b"])
    first, second = reader.new()
    assert (first["text"], first["step"]) == ("第一", 1)
    assert (second["text"], second["names"]) == ("second", ["a", "b"])
    assert first["time"] <= second["time"]
    assert reader.new() == []
    events.record(tmp_path, "third")
    assert [event["text"] for event in reader.new()] == ["third"]


def test_a_reader_does_not_repeat_what_an_earlier_command_recorded(tmp_path: Path) -> None:
    events.record(tmp_path, "yesterday")
    reader = events.Reader(tmp_path)
    events.record(tmp_path, "today")
    assert [event["text"] for event in reader.new()] == ["today"]


def test_half_a_line_waits_for_its_other_half(tmp_path: Path) -> None:
    reader = events.Reader(tmp_path)
    events.record(tmp_path, "whole")
    with (tmp_path / events.EVENTS).open("a") as file:
        file.write('{"text": "ha')
    assert [event["text"] for event in reader.new()] == ["whole"]
    with (tmp_path / events.EVENTS).open("a") as file:
        file.write('lf"}\n')
    assert [event["text"] for event in reader.new()] == ["half"]


def test_lines_of_several_processes_do_not_mix(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from bayling.train import events\n"
        "for i in range(200): events.record(Path(sys.argv[1]), sys.argv[2] * 500, number=i)"
    )
    reader = events.Reader(tmp_path)
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), letter]) for letter in "abc"
    ]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    read = reader.new()
    for letter in "abc":
        mine = [event["number"] for event in read if event["text"] == letter * 500]
        assert mine == list(range(200))
    assert len(read) == 600


def test_what_cannot_be_written_is_written_later(tmp_path: Path) -> None:
    folder = tmp_path / "not there"
    events.record(folder, "the disk is full")
    events.retry(folder)
    assert not folder.exists()
    folder.mkdir()
    reader = events.Reader(folder)
    events.retry(folder)
    events.retry(folder)
    events.record(folder, "there is room again")
    assert [event["text"] for event in reader.new()] == ["the disk is full", "there is room again"]
