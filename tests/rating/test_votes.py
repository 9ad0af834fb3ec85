"""The file of votes: what is confirmed is on the disk, what is not leaves no trace."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from rated import no_room, vote

from bayling.errors import UserError
from bayling.rating.votes import Journal, Vote, read, withdrawal

pytestmark = pytest.mark.unit


def test_the_last_line_of_a_rater_for_an_item_counts(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "votes.jsonl")
    first, second = vote({"a": 1, "b": 2}), vote({"a": 2, "b": 1})
    others = vote({"a": 1, "b": 1}, rater="Bo", bad=True)
    gone = vote({"a": 1, "b": 2}, item="2")
    for line in (first.line(), others.line(), gone.line(), second.line()):
        journal.append(line)
    journal.append(withdrawal(gone, "2026-01-02T00:00:00+00:00"))
    assert read([journal.path]) == [others, second]


def test_several_files_are_taken_together(tmp_path: Path) -> None:
    ana, bo = vote({"a": 1, "b": 2}), vote({"a": 1, "b": 2}, rater="Bo")
    for given in (ana, bo):
        journal = Journal(tmp_path / given.rater)
        journal.append(given.line())
        journal.close()
    assert read([tmp_path / "Ana", tmp_path / "Bo"]) == [ana, bo]


def test_a_line_that_a_crash_cut_short_is_gone_and_all_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "votes.jsonl"
    journal = Journal(path)
    journal.append(vote({"a": 1, "b": 2}).line())
    journal.close()
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    assert len(read([path])) == 1
    journal = Journal(path)
    assert path.read_bytes() == whole
    journal.append(vote({"a": 1, "b": 2}, item="2").line())
    assert [given.item for given in read([path])] == ["1", "2"]


def test_a_vote_that_does_not_fit_on_the_disk_is_not_half_kept(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "votes.jsonl")
    journal.append(vote({"a": 1, "b": 2}).line())
    whole = journal.path.read_bytes()
    with no_room(journal.path), pytest.raises(OSError, match=r"full|large"):
        journal.append(vote({"a": 1, "b": 2}, item="2").line())
    assert journal.path.read_bytes() == whole
    journal.append(vote({"a": 1, "b": 2}, item="3").line())
    assert [given.item for given in read([journal.path])] == ["1", "3"]


def test_votes_of_many_raters_at_once_are_all_there(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "votes.jsonl")

    def judge(rater: str) -> None:
        for number in range(25):
            journal.append(vote({"a": 1, "b": 2}, item=str(number), rater=rater).line())

    threads = [threading.Thread(target=judge, args=(f"rater {it}",)) for it in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read([journal.path])) == 8 * 25


def test_a_file_has_one_writer(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "votes.jsonl")
    with pytest.raises(UserError, match="another `bayling rate` is writing votes to"):
        Journal(tmp_path / "votes.jsonl")
    journal.close()
    Journal(tmp_path / "votes.jsonl")


@pytest.mark.parametrize(
    "line",
    [
        "no json",
        "[]",
        "{}",
        '{"comparison": "c", "suite": "", "item": "1", "rater": "Ana", "withdrawn": true}',
    ],
)
def test_a_line_that_is_no_vote_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "votes.jsonl"
    journal = Journal(path)
    journal.append(vote({"a": 1, "b": 2}).line())
    journal.close()
    with path.open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(UserError, match=f"{path}, line 2: no vote"):
        read([path])


@pytest.mark.parametrize("ranks", [{"a": 1}, {"a": 0, "b": 1}, {"a": True, "b": 2}, [1, 2]])
def test_ranks_are_whole_numbers_of_two_systems_or_more(tmp_path: Path, ranks: object) -> None:
    path = tmp_path / "votes.jsonl"
    journal = Journal(path)
    journal.append({**vote({"a": 1, "b": 2}).line(), "ranks": ranks})
    with pytest.raises(UserError, match="line 1: no vote"):
        read([path])


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write votes to"):
        Journal(tmp_path / "file" / "votes.jsonl")
    with pytest.raises(UserError, match="cannot read the votes"):
        read([tmp_path / "nowhere"])


def test_a_line_reads_back_as_the_vote_it_was(tmp_path: Path) -> None:
    given = vote({"naïve": 2, "聪明": 1}, rater="Zoë")
    journal = Journal(tmp_path / "votes.jsonl")
    journal.append(given.line())
    [back] = read([journal.path])
    assert isinstance(back, Vote)
    assert back == given
    assert "聪明" in journal.path.read_text("utf-8"), "legible as it lies there"
