"""Evaluations as the gate reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bayling.promote.evaluation import Evaluation

SURE, CHANCE = 0.00001, 0.4
"""How likely equally good models are to differ as much: hardly ever, and often."""

Pair = tuple[float, float] | tuple[float, float, float]
"""The candidate's figure and the baseline's, and how likely chance makes such a difference; left
out, a loss is certain."""


def compared(pair: Pair) -> dict[str, Any]:
    value, baseline = pair[0], pair[1]
    p = pair[2] if len(pair) == 3 else SURE if value < baseline else 1.0
    difference = value - baseline
    return {
        "value": value,
        "baseline": baseline,
        "difference": difference,
        "low": difference - 1,
        "high": difference + 1,
        "p_worse": p,
        "p_better": 1 - p,
        "items": 24,
    }


def translations(
    *,
    chrf: Pair = (60.0, 60.0),
    exact_match: Pair = (0.5, 0.5),
    off_target: float = 0.01,
    languages: dict[str, Pair] | None = None,
    **directions: Pair,
) -> dict[str, dict[str, Any]]:
    """Group → what is known of it, with its comparison under `compared`.

    Args:
        languages: `into hi` or `from hi` → chrF++.
        directions: `en_de=(50, 60)`; those without en were never trained.
    """
    groups: dict[str, dict[str, Any]] = {
        "all": {
            "kind": "overall",
            "compared": {
                "chrf": compared(chrf),
                "exact_match": compared(exact_match),
                "off_target": compared((off_target, 0.01, 1.0)),
            },
        }
    }
    pairs = {"en_de": (60.0, 60.0), "de_en": (60.0, 60.0), "de_sw": (40.0, 40.0), **directions}
    for name, pair in pairs.items():
        source, target = name.split("_")
        groups[f"{source} → {target}"] = {
            "kind": "direction",
            "source_lang": source,
            "target_lang": target,
            "zero_shot": "en" not in (source, target),
            "compared": {"chrf": compared(pair)},
        }
    for name, pair in {"into de": (60.0, 60.0), **(languages or {})}.items():
        kind, tag = name.split()
        groups[name] = {
            "kind": kind,
            "source_lang": tag if kind == "from" else None,
            "target_lang": tag if kind == "into" else None,
            "compared": {"chrf": compared(pair)},
        }
    return groups


def of_all(figure: str, pair: Pair) -> dict[str, dict[str, Any]]:
    """A suite with one group and one figure."""
    return {"all": {"kind": "overall", "compared": {figure: compared(pair)}}}


def scores(champion: str | None = "3", **suites: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What lies in `scores.json`; `champion=None` for a comparison with the untrained model."""
    trained = {
        suite: {
            "groups": {
                name: {
                    **{key: value for key, value in group.items() if key != "compared"},
                    "figures": {
                        figure: {key: one[key] for key in ("value", "items")}
                        for figure, one in group["compared"].items()
                    },
                }
                for name, group in groups.items()
            },
            "details": {},
        }
        for suite, groups in suites.items()
    }
    return {
        "systems": {"trained": trained, "untrained": {}},
        "digests": dict.fromkeys(suites, "d"),
        "decoding": dict.fromkeys(suites, "greedy"),
        "baseline": "champion" if champion else "untrained",
        "champion_version": champion,
        "comparison": {
            suite: {name: group["compared"] for name, group in groups.items()}
            for suite, groups in suites.items()
        },
    }


def evaluation(folder: Path, **suites: Any) -> Evaluation:
    path = folder / "scores.json"
    path.write_text(json.dumps(scores(**suites)), "utf-8")
    return Evaluation.read(path)
