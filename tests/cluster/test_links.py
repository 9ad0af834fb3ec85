"""The all-reduce of the pre-flight check, on two workers, and what is made of its figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bayling.cli import main
from bayling.cluster.links import Link, Size, Worker, _pairs, mismatches, slow

unit = pytest.mark.unit


def test_two_workers_are_measured_for_real(
    ray_cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = tmp_path / "figures.json"
    assert main(["preflight", f"output_dir={tmp_path}", "--json", str(figures)]) == 0
    told = capsys.readouterr().out
    assert "nothing is wrong with it" in told and "16 MiB, 2 workers" in told
    found = json.loads(figures.read_text("utf-8"))
    assert [size["mib"] for size in found["all_reduce"]] == [1, 4, 16]
    (link,) = found["links"]
    # Two processes of one machine: more than a disk, less than memory.
    assert 0.01 < link["gbs"] < 100
    assert all(size["bus_gbs"] == size["algorithm_gbs"] > 0 for size in found["all_reduce"])
    assert {worker["versions"]["ray"] for worker in found["workers"]} == {"2.60.0"}


@unit
def test_bandwidths_are_those_of_nccl_tests() -> None:
    size = Size(mib=1024, seconds=0.1, workers=8)
    assert size.algorithm_gbs == pytest.approx(1024 * 2**20 / 0.1 / 1e9)
    assert size.bus_gbs == pytest.approx(size.algorithm_gbs * 14 / 8)


@unit
def test_every_pair_of_nodes_is_measured_and_neighbours_within() -> None:
    assert _pairs(["a", "a", "b", "b", "c"]) == [(0, 2), (0, 4), (2, 4), (0, 1), (2, 3)]


@unit
def test_a_link_far_below_its_likes_is_named() -> None:
    fast = [Link((0, n), ("a", f"n{n}"), 40.0 + n) for n in range(2, 6)]
    # Within a node there is NVLink: another kind, not a broken one.
    inside = [Link((0, 1), ("a", "a"), 400.0), Link((8, 9), ("b", "b"), 390.0)]
    assert slow([*fast, *inside]) == []
    (told,) = slow([*fast, *inside, Link((0, 7), ("a", "n7"), 11.0)])
    assert "worker 0 on a and worker 7 on n7 has 11.00 GB/s, the median is 43" in told
    assert slow([Link((0, 1), ("a", "b"), 1.0)]) == [], "one link has no median but its own"


@unit
def test_nodes_with_other_software_are_named() -> None:
    same = {"torch": "2.13.0", "driver": "580.1"}
    workers = [Worker(n, f"n{n}", dict(same), None) for n in range(3)]
    assert mismatches(workers) == []
    workers[1].versions["driver"] = "570.9"
    del workers[2].versions["driver"]
    (told,) = mismatches(workers)
    assert told == "driver differs between workers: 570.9 on n1; 580.1 on n0; none on n2"
