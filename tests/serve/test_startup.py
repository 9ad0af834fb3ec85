"""What a person reads when the model cannot be served."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tiny_server import small

from bayling.errors import StageFailed
from bayling.scale import ScaleConfig
from bayling.serve import run
from bayling.serve.application import ServedModel


@pytest.mark.usefixtures("ray_cluster")
def test_a_replica_that_cannot_start_gives_its_own_reason_and_leaves_nothing_running(
    model_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(model_folder, tmp_path / "broken")
    (folder / "model.safetensors").unlink()
    config = small()
    with pytest.raises(StageFailed, match=r"broken holds no model.*safetensors") as caught:
        run.deploy(
            config, ServedModel("", "bayling", {"1": str(folder)}), {"1": 1.0}, ScaleConfig()
        )
    assert "\n" not in str(caught.value) and "Traceback" not in str(caught.value)
    run.check_port(config.host, config.port)


@pytest.mark.usefixtures("ray_cluster")
def test_a_server_whose_keys_cannot_be_read_does_not_start(
    model_folder: Path, tmp_path: Path
) -> None:
    config = small()
    config.keys_file = str(tmp_path / "none.jsonl")
    with pytest.raises(StageFailed, match=r"none\.jsonl \(No such file or directory\)"):
        served = ServedModel("", "bayling", {"1": str(model_folder)})
        run.deploy(config, served, {"1": 1.0}, ScaleConfig())
