"""The server's figures for each version, out of the JSON that it gives them in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bayling.serve.rollout.comparison import Traffic
from bayling.serve.stats import VersionStats


def read_traffic(figures: Mapping[str, Any]) -> dict[str, Traffic]:
    """Version → its figures.

    Args:
        figures: what `bayling.serve.monitoring.figures` returned, or `/internal/versions`.

    Raises:
        KeyError, TypeError, ValueError: they are of another form.
    """
    stats = {version: VersionStats.from_json(one) for version, one in figures["versions"].items()}
    return {
        version: Traffic(
            requests=one.requests,
            errors=one.errors,
            ttft_s=tuple(sample.seconds for sample in one.ttft_s),
            tpot_s=tuple(sample.seconds for sample in one.tpot_s),
            judged=one.judged,
            off_target=one.off_target,
        )
        for version, one in stats.items()
    }
