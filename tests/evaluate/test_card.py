from __future__ import annotations

import pytest
from scored import LANGUAGES, SCORES, system

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


def test_scores_stand_before_the_licences() -> None:
    made = with_scores(CARD, SCORES, "abc123")
    headings = [line for line in made.splitlines() if line.startswith("## ")]
    assert headings == ["## Scores", "## Licence of the base weights", "## Data and licences"]
    assert "| this model | 60.0 | 30.0 | 25% | 5% |" in made
    assert "| before training | 20.0 | 10.0 | 25% | 5% |" in made
    assert "directions it was not trained on | 30.0" in made
    assert "test set `abc123`" in made
    assert "75% are met" in made
    assert made.startswith("---\nlicense: other\n---\n\n# BayLing (mine)\n\nWhat it is.\n")
    assert made.endswith("cldr\n")


def test_the_weakest_directions_are_named() -> None:
    made = with_scores(CARD, SCORES, "abc123")
    trained = [row for row in SCORES["trained"]["directions"] if not row["zero_shot"]]
    worst = min(trained, key=lambda row: row["chrf"])
    assert f"chrF++: {worst['source_lang']}→{worst['target_lang']} {worst['chrf']:.1f}" in made
    assert len(trained) < len(LANGUAGES) * (len(LANGUAGES) - 1)


def test_later_scores_take_the_place_of_earlier_ones() -> None:
    once = with_scores(CARD, SCORES, "abc123")
    better = {**SCORES, "trained": {**system(80.0, interactive=False), "zero_shot": None}}
    again = with_scores(once, better, "def456")
    assert again.count("## Scores") == 1
    assert "abc123" not in again
    assert "| this model | 80.0" in again
    assert "interactive" not in again
    assert with_scores(again, better, "def456") == again
