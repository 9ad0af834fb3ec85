from __future__ import annotations

import pytest

from bayling.scale import Device
from bayling.train import setup

pytestmark = pytest.mark.unit


def test_workers_on_gpus_have_memory_without_holes_unless_it_is_set_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(setup.ALLOCATOR, raising=False)
    assert setup.environment(Device.cpu) == {}
    assert setup.environment(Device.cuda) == {setup.ALLOCATOR: "expandable_segments:True"}
    monkeypatch.setenv(setup.ALLOCATOR, "max_split_size_mb:512")
    assert setup.environment(Device.cuda) == {setup.ALLOCATOR: "max_split_size_mb:512"}
