from __future__ import annotations

import pytest
from scored import ANSWERED, answers, result

from bayling.evaluate.card import with_scores

pytestmark = pytest.mark.unit

CARD = """---
license: other
---

# BayLing (mine)

What it is.

## Licence of the base weights

None.

## Data and licences

cldr
"""
SCORES = result(ANSWERED)


def figure(group: str, name: str) -> float:
    value: float = SCORES["systems"]["trained"]["heldout"]["groups"][group]["figures"][name][
        "value"
    ]
    return value


def test_scores_stand_before_the_licences() -> None:
    made = with_scores(CARD, SCORES)
    headings = [line for line in made.splitlines() if line.startswith("## ")]
    assert headings == ["## Scores", "## Licence of the base weights", "## Data and licences"]
    assert f"| this model | {figure('all', 'chrf'):.1f} (" in made
    assert f"directions it was not trained on | {figure('zero-shot', 'chrf'):.1f} (" in made
    assert "| before training | " in made
    assert f"test set `{SCORES['digests']['heldout']}`, greedy" in made
    assert "satisfied 100%" in made
    assert made.startswith("---\nlicense: other\n---\n\n# BayLing (mine)\n\nWhat it is.\n")
    assert made.endswith("cldr\n")


def test_the_weakest_directions_are_named() -> None:
    made = with_scores(CARD, SCORES)
    trained = {
        f"{row['source_lang']}→{row['target_lang']}": row["figures"]["chrf"]["value"]
        for row in SCORES["systems"]["trained"]["heldout"]["groups"].values()
        if row["kind"] == "direction" and not row["zero_shot"]
    }
    worst = min(trained, key=lambda name: (trained[name], name))
    assert f"chrF++: {worst} {trained[worst]:.1f}" in made
    assert len(trained) == 4


def test_later_scores_take_the_place_of_earlier_ones() -> None:
    once = with_scores(CARD, SCORES)
    other = {name: answers(0, interactive=False) for name in ("trained", "untrained")}
    again = with_scores(once, result(other))
    assert again.count("## Scores") == 1
    assert "| this model | 100.0" in again
    assert "interactive" not in again
    assert with_scores(again, result(other)) == again
