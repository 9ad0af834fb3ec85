"""Scores as an evaluation makes them."""

from __future__ import annotations

from typing import Any

LANGUAGES = ["en", "de", "sw"]


def scored(chrf: float) -> dict[str, float]:
    return {"chrf": chrf, "bleu": chrf / 2, "exact_match": 0.25, "off_target": 0.05, "sentences": 8}


def direction(source: str, target: str, chrf: float) -> dict[str, Any]:
    zero_shot = "en" not in (source, target)
    return {
        "source_lang": source,
        "target_lang": target,
        "zero_shot": zero_shot,
        **scored(chrf),
    }


def system(chrf: float, *, interactive: bool = True) -> dict[str, Any]:
    met = {
        "interactive_satisfaction": 0.75,
        "interactive_first_turn": 0.9,
        "interactive_later_turns": 0.6,
        "interactive_exact": 0.5,
        "interactive_conversations_met": 0.4,
    }
    pairs = [(a, b) for a in LANGUAGES for b in LANGUAGES if a != b]
    return {
        "overall": scored(chrf),
        "zero_shot": scored(chrf / 2),
        "into": {tag: scored(chrf) for tag in LANGUAGES},
        "from": {tag: scored(chrf) for tag in LANGUAGES},
        "directions": [direction(a, b, chrf - index) for index, (a, b) in enumerate(pairs)],
        "interactive": met if interactive else {},
        "worst": [
            {
                "source_lang": "en",
                "target_lang": "de",
                "source": "in 5 days",
                "output": "<script>alert(1)</script>",
                "target": "in 5 Tagen",
            }
        ],
    }


SCORES = {"trained": system(60.0), "untrained": system(20.0)}
