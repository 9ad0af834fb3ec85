"""What a place says that runs in it, put together as a rollout reads it.

See `observe` in `bayling.serve.rollout.target` for each key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NO_ENGINES: Mapping[str, Any] = {"running": 0, "starting": 0, "ready": False, "failed": None}
"""Of a version that does not run."""


def observed(
    report: Mapping[str, Any],
    engines: Mapping[str, Mapping[str, Any]],
    figures: Mapping[str, Any] | None,
    no_figures: str | None,
) -> dict[str, Any]:
    """One picture of two.

    Args:
        report: what the API says of itself; empty while it does not answer.
        engines: version → what Ray Serve says of its engines.
        figures: what each version did; None where nobody asked, or for the reason in `no_figures`.
    """
    shares = report.get("shares")
    return {
        "shares": shares,
        "versions": {
            version: {
                **engines.get(version, NO_ENGINES),
                "trouble": report.get("troubles", {}).get(version),
                "languages": report.get("languages", {}).get(version),
                "ongoing": report["ongoing"].get(version, 0) if report else None,
            }
            for version in {*engines, *(shares or ())}
        },
        "traffic": figures,
        "no_traffic": no_figures,
    }
