"""What the page shows, worked out: numbers as text, verdicts in words, examples to read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bayling.evaluate import constraints, conversing, translation
from bayling.evaluate.directions import ZERO_SHOT, sentence_chrf
from bayling.evaluate.report.verdicts import (
    BETTER,
    SAME,
    WORSE,
    together,
    translation_suites,
    two_sided,
    verdict,
)
from bayling.evaluate.suite import ALL, Row
from bayling.language_families import OTHER
from bayling.languages import name_of

FROM_0_TO_100 = ("bleu", "chrf", "ter", "final_chrf")
TITLES = {
    **translation.TITLES,
    **constraints.TITLES,
    **conversing.TITLES,
    "accuracy": "right answers",
    "unextracted": "answers without a choice",
    "win_rate": "questions won",
    "tie_rate": "… tied",
    "loss_rate": "… lost",
    "score_ratio": "the judge's scores, over the other's",
    "agreement": "both orders alike",
}
_COLUMNS = ("chrf", "bleu", "comet", "exact_match", "off_target", "copies", "empty", "loops")
_WORST_DIRECTIONS, _EXAMPLES = 6, 3
_NAMED = 4
SUITES = {
    "heldout": "Translation",
    "translation": "Translation of test sets",
    "interactive": "Interactive translation",
    "constrained": "Required words",
    "knowledge": "Knowledge",
    "harness": "Knowledge (harness)",
    "chat": "Chat",
    "safety": "Safety",
}
"""What suites are called for people who have not configured them."""
_CARDS = {
    "heldout": ("chrf", "off_target"),
    "translation": ("chrf", "off_target"),
    "interactive": ("satisfied", "wishes_kept"),
    "constrained": ("constraints_met",),
    "knowledge": ("accuracy",),
    "harness": ("accuracy",),
    "chat": ("score_ratio", "win_rate"),
    "safety": ("satisfied",),
}
Answered = Mapping[str, Mapping[str, list[Row]]]


def number(figure: str, value: float) -> str:
    """A figure's value as people write it."""
    if figure in FROM_0_TO_100:
        return f"{value:.1f}"
    if figure in ("length_ratio", "comet"):
        return f"{value:.2f}"
    return f"{value:.1%}"


def change(figure: str, value: float) -> str:
    """A difference, with its sign: `+0.8`, or `−1.2 points` of a share."""
    if figure in FROM_0_TO_100:
        text = f"{value:+.1f}"
    elif figure in ("length_ratio", "comet"):
        text = f"{value:+.2f}"
    else:
        text = f"{100 * value:+.1f} points"
    return text.replace("-", "−")


def interval(figure: str, one: Mapping[str, float]) -> str:
    low, high = number(figure, one["low"]), number(figure, one["high"])
    return f"{low.removesuffix('%')}–{high}"


def of(result: dict[str, Any], answered: Answered) -> dict[str, Any]:
    """Everything that the template names."""
    main, baseline = result["main"], result["baseline"]
    return {
        "called": result["called"][main],
        "against": result["called"][baseline] if baseline else None,
        "in_short": _in_short(result),
        "cards": _cards(result),
        "translations": [
            _translation(result, suite, answered) for suite in translation_suites(result)
        ],
        "others": [
            _other(result, suite)
            for suite in result["systems"][main]
            if suite not in translation_suites(result)
        ],
        "tests": [
            {"suite": suite, "digest": digest, "decoding": result["decoding"][suite]}
            for suite, digest in result["digests"].items()
        ],
    }


def _in_short(result: dict[str, Any]) -> list[str]:
    """What a reader who reads no further should know, a sentence a suite and more."""
    if not result["baseline"]:
        return []
    against = result["called"][result["baseline"]]
    said = []
    for suite, groups in result["comparison"].items():
        figure = next(
            (name for name in (*_CARDS.get(suite, ()), "chrf") if name in groups.get(ALL, {})), None
        )
        if figure is None:
            continue
        one = groups[ALL][figure]
        word = verdict(figure, one["difference"], two_sided(one))
        title = TITLES.get(figure, figure)
        numbers = f"{number(figure, one['value'])} after {number(figure, one['baseline'])}"
        found = f"{word} than" if word != SAME else "no clear difference to"
        said.append(f"{SUITES.get(suite, suite)}: {found} the {against} ({title} {numbers}).")
        if suite in translation_suites(result):
            said += _languages(result, suite)
    return said


def _languages(result: dict[str, Any], suite: str) -> list[str]:
    """The languages into or from which translations changed clearly."""
    groups = result["systems"][result["main"]][suite]["groups"]
    verdicts = together(result, suite, ("into", "from"))
    said = []
    for word in (WORSE, BETTER):
        those = [group for group, found in verdicts.items() if found == word]
        those.sort(key=lambda one: -abs(result["comparison"][suite][one]["chrf"]["difference"]))
        named = []
        for group in those[:_NAMED]:
            tag = groups[group].get("target_lang") or groups[group]["source_lang"]
            one = result["comparison"][suite][group]["chrf"]
            lost = change("chrf", one["difference"])
            named.append(f"{groups[group]['kind']} {name_of(tag)} (chrF++ {lost})")
        if named:
            more = f" and {len(those) - _NAMED} more" if len(those) > _NAMED else ""
            said.append(f"Clearly {word} {', '.join(named)}{more}.")
    return said


def _cards(result: dict[str, Any]) -> list[dict[str, Any]]:
    cards = []
    for suite, scored in result["systems"][result["main"]].items():
        figures = scored["groups"].get(ALL, {}).get("figures", {})
        for figure in _CARDS.get(suite, tuple(figures)[:1]):
            if figure not in figures:
                continue
            one = figures[figure]
            compared = result["comparison"].get(suite, {}).get(ALL, {}).get(figure)
            card = {
                "title": TITLES.get(figure, figure.replace("_", " ")),
                "suite": SUITES.get(suite, suite),
                "value": number(figure, one["value"]),
                "interval": interval(figure, one),
            }
            if compared is not None:
                card["change"] = change(figure, compared["difference"])
                card["verdict"] = verdict(figure, compared["difference"], two_sided(compared))
            cards.append(card)
    return cards


def _translation(result: dict[str, Any], suite: str, answered: Answered) -> dict[str, Any]:
    main, baseline = result["main"], result["baseline"]
    scored = result["systems"][main][suite]
    groups = scored["groups"]
    columns = [name for name in _COLUMNS if name in groups[ALL]["figures"]]
    compared = result["comparison"].get(suite, {})
    directions = _directions(groups, compared, together(result, suite, ("direction",)), columns)
    counts = {
        word: [row for row in directions if row.get("verdict") == word]
        for word in (BETTER, WORSE, SAME)
    }
    return {
        "suite": suite,
        "title": SUITES.get(suite, suite),
        "several": len(directions) > 1,
        "columns": [TITLES[name] for name in columns],
        "overall": [
            {
                "name": f"{result['called'][system]}, {title}",
                "cells": _cells(suites[suite]["groups"][group]["figures"], columns, wide=True),
            }
            for system, suites in result["systems"].items()
            for group, title in ((ALL, "trained directions"), (ZERO_SHOT, "zero-shot directions"))
            if suite in suites and group in suites[suite]["groups"]
        ],
        "counts": {word: len(rows) for word, rows in counts.items()} if baseline else None,
        "worse": [row["name"] for row in counts["worse"]],
        "kinds": [
            {"title": title, "rows": rows}
            for kind, title in (
                ("resources", "By resources of the target language"),
                ("family", "By family of the target language"),
                ("into", "Into each language"),
                ("from", "From each language"),
            )
            if len(rows := _of_kind(groups, compared, kind, columns)) > 1
        ],
        "directions": directions,
        "examples": _examples(result, suite, directions, answered),
        "signatures": scored["details"].get("signatures", {}),
    }


def _directions(
    groups: dict[str, Any],
    compared: dict[str, Any],
    verdicts: dict[str, str],
    columns: list[str],
) -> list[dict[str, Any]]:
    """Every direction, the weakest first, with what is clear about its difference."""
    named = [group for group, known in groups.items() if known.get("kind") == "direction"]
    rows = []
    for group in sorted(named, key=lambda one: groups[one]["figures"]["chrf"]["value"]):
        known = groups[group]
        row = {
            "name": group,
            "title": f"{name_of(known['source_lang'])} → {name_of(known['target_lang'])}"
            if known["source_lang"] != "?"
            else name_of(known["target_lang"]),
            "zero_shot": known["zero_shot"],
            "source_lang": known["source_lang"],
            "target_lang": known["target_lang"],
            "cells": _cells(known["figures"], columns, first_wide=True),
            "items": known["figures"]["chrf"]["items"],
        }
        if group in verdicts:
            one = compared[group]["chrf"]
            row["change"] = change("chrf", one["difference"])
            row["range"] = f"{one['low']:+.1f} to {one['high']:+.1f}".replace("-", "−")
            row["verdict"] = verdicts[group]
        rows.append(row)
    return rows


def _of_kind(
    groups: dict[str, Any], compared: dict[str, Any], kind: str, columns: list[str]
) -> list[dict[str, Any]]:
    rows = []
    for group, known in groups.items():
        if known.get("kind") != kind:
            continue
        tag = known.get("target_lang") or known.get("source_lang")
        name = f"{name_of(tag)} ({tag})" if tag else known.get("family") or known.get("level", "")
        one = compared.get(group, {}).get("chrf")
        rows.append(
            {
                "name": "families with one language" if name == OTHER else name,
                "directions": known.get("directions"),
                "cells": _cells(known["figures"], columns, first_wide=True),
                "value": known["figures"]["chrf"]["value"],
                "change": change("chrf", one["difference"]) if one else None,
            }
        )
    return rows if kind == "resources" else sorted(rows, key=lambda row: row["value"])


def _cells(
    figures: dict[str, Any], columns: list[str], *, wide: bool = False, first_wide: bool = False
) -> list[dict[str, str]]:
    cells = []
    for index, name in enumerate(columns):
        one = figures.get(name)
        cell = {"value": number(name, one["value"]) if one else ""}
        if one and (wide or (first_wide and index == 0)):
            cell["interval"] = interval(name, one)
        cells.append(cell)
    return cells


def _examples(
    result: dict[str, Any], suite: str, directions: list[dict[str, Any]], answered: Answered
) -> list[dict[str, Any]]:
    """The weakest directions and those that got worse, each with its worst answers."""
    main, baseline = result["main"], result["baseline"]
    trained = [row for row in directions if not row["zero_shot"]] or directions
    chosen = {row["name"]: row for row in trained[:_WORST_DIRECTIONS]}
    chosen |= {row["name"]: row for row in directions if row.get("verdict") == "worse"}
    others = {row["id"]: row for row in answered[baseline][suite]} if baseline else {}
    found = []
    for direction in chosen.values():
        rows = [
            row
            for row in answered[main][suite]
            if (row["source_lang"], row["target_lang"])
            == (direction["source_lang"], direction["target_lang"])
            and row["outputs"][0].strip() != row["target"].strip()
        ]
        rows.sort(key=lambda row: (sentence_chrf(row), row["id"]))
        if rows:
            shown = [
                {
                    "source": row["source"],
                    "output": row["outputs"][0].strip() or "(nothing)",
                    "target": row["target"],
                    "other": others[row["id"]]["outputs"][0] if row["id"] in others else None,
                }
                for row in rows[:_EXAMPLES]
            ]
            found.append({**direction, "rows": shown, "wrong": len(rows)})
    return found


def _other(result: dict[str, Any], suite: str) -> dict[str, Any]:
    """A suite that is not about directions: its figures, its groups, what broke."""
    main, baseline = result["main"], result["baseline"]
    scored = result["systems"][main][suite]
    compared = result["comparison"].get(suite, {})
    others = result["systems"].get(baseline, {}).get(suite, {}).get("groups", {})
    rows = []
    for group, known in scored["groups"].items():
        for figure, one in known["figures"].items():
            beside = others.get(group, {}).get("figures", {}).get(figure)
            difference = compared.get(group, {}).get(figure)
            title = TITLES.get(figure, figure.replace("_", " "))
            row = {
                "name": title if group == ALL else f"{group}: {title}",
                "overall": group == ALL,
                "value": number(figure, one["value"]),
                "interval": interval(figure, one),
                "items": one["items"],
                "baseline": number(figure, beside["value"]) if beside else "",
            }
            if difference is not None:
                row["change"] = change(figure, difference["difference"])
                row["verdict"] = verdict(figure, difference["difference"], two_sided(difference))
            rows.append(row)
    details = scored["details"]
    return {
        "suite": suite,
        "title": SUITES.get(suite, suite),
        "rows": rows,
        "broken": [
            {**one, "turns": [{**turn, "missed": _missed(turn)} for turn in one["turns"]]}
            for one in details.get("broken", [])
        ],
        "missed": details.get("missed", []),
        "notes": _notes(details),
        "lost": details.get("lost", []),
    }


def _notes(details: dict[str, Any]) -> list[str]:
    """What a judge's figures rest on, and what was left out."""
    said = []
    if "judge" in details:
        said.append(
            f"{details['judge']} judged each question in both orders, against "
            f"{details['against']}: {details['wins']} won, {details['ties']} tied, "
            f"{details['losses']} lost; "
            f"{details['unjudged']} could not be judged and are in none of the figures."
        )
        if details["cost"]["price"] is not None:
            said.append(f"The judge cost {details['cost']['price']:.2f}.")
    for name, number_of in details.get("unlabelled", {}).items():
        said.append(f"{name}: {number_of} questions do not say what is right and were not asked.")
    return said


_WISHES = {
    "script": "an answer in {values}",
    "contains": "the words {values}",
    "lacks": "without {values}",
    "shorter": "a shorter answer",
    "changed": "another answer than before",
    "json": "a JSON object with {values}",
    "wrapped": "{values} around it",
    "extends": "the sentence before, and more",
    "resembles": "the sentence it was made from",
    "language": "an answer in {values}",
    "revises": "the answer before, but for what was asked",
}
"""Kind of requirement → what was wanted, for a sentence that begins with "missed"."""


def _missed(turn: dict[str, Any]) -> list[str]:
    said = []
    for item in turn["missed"]:
        values = item["values"]
        if item["kind"] == "script":
            values = [name_of(tag) for tag in values]
        if item["kind"] == "language":
            values = [name_of(values[0])]  # the others are those that it must not be in
        form = _WISHES.get(item["kind"], item["kind"])
        said.append(form.format(values=", ".join(values)))
    return said
