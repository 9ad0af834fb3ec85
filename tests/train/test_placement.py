from __future__ import annotations

from pathlib import Path

import pytest

from bayling.errors import UserError
from bayling.scale import Device, ScaleConfig
from bayling.train import placement


def test_a_shared_folder_is_accepted_and_left_as_it_was(ray_cluster: None, tmp_path: Path) -> None:
    placement.check(ScaleConfig(workers=2), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_a_node_sees_otherwise_is_refused_by_the_nodes_name(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`/proc/self/cwd` is another folder in every process, as a node's own disk would be."""
    import ray

    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").mkdir()
    [node] = ray.nodes()
    with pytest.raises(UserError) as refused:
        placement.check(ScaleConfig(workers=2), Path("/proc/self/cwd/outputs"))
    text = str(refused.value)
    assert f"is not seen by {node['NodeManagerAddress']}" in text
    assert "output_dir" in text
    assert "\n" not in text
    assert list((tmp_path / "outputs").iterdir()) == [], "nothing is left behind"


@pytest.mark.parametrize(
    ("scale", "said"),
    [
        (ScaleConfig(workers=900), "scale.workers=900 needs 900 CPUs and the Ray cluster has 4"),
        (
            ScaleConfig(workers=900, min_workers=300, cpus_per_worker=2),
            "scale.min_workers=300 needs 600 CPUs",
        ),
        (ScaleConfig(workers=2, device=Device.cuda, gpu="A10"), "needs 2 GPUs"),
    ],
)
def test_too_small_a_cluster_is_refused_with_what_it_has(
    ray_cluster: None, tmp_path: Path, scale: ScaleConfig, said: str
) -> None:
    with pytest.raises(UserError) as refused:
        placement.check(scale, tmp_path)
    assert said in str(refused.value)


def test_an_elastic_run_needs_room_for_its_fewest_workers(
    ray_cluster: None, tmp_path: Path
) -> None:
    placement.check(ScaleConfig(workers=900, min_workers=1), tmp_path)
