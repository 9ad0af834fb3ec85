"""Rollouts without a cluster: a place that runs versions in memory, and a real MLflow store."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bayling.registry import runs
from bayling.serve.stats import Sample, VersionStats


def make_store(folder: Path) -> Path:
    """A store with versions 1 to 4 of a model; 1 is the champion. To be copied: making one takes
    seconds."""
    mlflow = runs.client(f"sqlite:///{folder / 'mlflow.db'}")
    mlflow.create_registered_model("bayling")
    for _ in range(4):
        mlflow.create_model_version("bayling", source=str(folder))
    mlflow.set_registered_model_alias("bayling", "champion", "1")
    return folder / "mlflow.db"


@dataclass
class Place:
    """Engines are up at once, and each look finds as many more requests as the shares say."""

    requests_a_look: int = 400
    errors: dict[str, float] = field(default_factory=dict)
    """Version → the share of its requests that fail."""
    broken: dict[str, str] = field(default_factory=dict)
    """Version → why it cannot start."""
    shares: dict[str, float] = field(default_factory=dict)
    leaving: tuple[str, ...] = ()
    applied: list[tuple[dict[str, float], tuple[str, ...]]] = field(default_factory=list)
    answer: str = "March 21, 2031"
    _figures: list[tuple[float, str, int]] = field(default_factory=list)

    def apply(self, shares: Mapping[str, float], leaving: Collection[str]) -> None:
        self.shares, self.leaving = dict(shares), tuple(leaving)
        self.applied.append((self.shares, self.leaving))

    def observe(self, since: float | None) -> Mapping[str, Any]:
        now = time.time()
        for version, share in self.shares.items():
            self._figures.append((now, version, round(self.requests_a_look * share)))
        return {
            "shares": self.shares,
            "versions": {
                version: {
                    "running": int(version not in self.broken),
                    "starting": 0,
                    "ready": version not in self.broken,
                    "failed": [self.broken[version]] if version in self.broken else None,
                    "trouble": None,
                    "languages": ["en"],
                    "ongoing": 0,
                }
                for version in (*self.shares, *self.leaving)
            },
            "traffic": {"versions": {one: self._traffic(one, since) for one in self.shares}},
            "no_traffic": None,
        }

    def ask(self, model: str, prompt: str, max_tokens: int) -> Mapping[str, Any]:
        return {"text": self.answer}

    def _traffic(self, version: str, since: float | None) -> dict[str, Any]:
        requests = sum(
            count for at, one, count in self._figures if one == version and at > (since or 0)
        )
        return VersionStats(
            version=version,
            since=since or 0.0,
            requests=requests,
            errors=round(requests * self.errors.get(version, 0.0)),
            prompt_tokens=0,
            completion_tokens=0,
            judged=0,
            off_target=0,
            ttft_s=(Sample(time.time(), 0.1),) * requests,
        ).to_json()
