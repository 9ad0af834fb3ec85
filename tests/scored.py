"""Scores as an evaluation makes them: real figures of made-up answers."""

from __future__ import annotations

from typing import Any

from bayling.evaluate.decoding import Decoding
from bayling.evaluate.run import result_of
from bayling.evaluate.suite import Row, digest_of
from bayling.evaluate.suites.heldout import HeldOut
from bayling.evaluate.suites.interactive import Interactive
from bayling.evaluate.systems import System

LANGUAGES = ["en", "de", "sw"]
TEXTS = {
    "en": ["in 5 days", "24 kilometers", "March 21, 2024", "China and Germany"],
    "de": ["in 5 Tagen", "24 Kilometer", "21. März 2024", "China und Deutschland"],
    "sw": ["baada ya siku 5", "kilomita 24", "21 Machi 2024", "Uchina na Ujerumani"],
}
_DECODING = Decoding(40)


def translations(wrong: int = 1, attack: bool = False) -> list[Row]:
    """Answers in all six directions, of which the first `wrong` of each four are."""
    rows = []
    for source in LANGUAGES:
        for target in LANGUAGES:
            if source == target:
                continue
            for number, text in enumerate(TEXTS[target]):
                # The further from English, the worse.
                output = text if number >= wrong else text[: 3 + LANGUAGES.index(source)]
                rows.append(
                    {
                        "id": f"{source}{target}{number}",
                        "prompt": f"Provide …: {TEXTS[source][number]}",
                        "source_lang": source,
                        "target_lang": target,
                        "source": TEXTS[source][number],
                        "target": text,
                        "zero_shot": "en" not in (source, target),
                        "in_other_languages": {},
                        "outputs": [
                            "<script>alert(1)</script>" if attack and not number else output
                        ],
                    }
                )
    return rows


def conversations(*, met: bool = True) -> list[Row]:
    """Two turns each; the second asks for something shorter, and that the 5 stays."""

    def turn(role: str, content: str, *wanted: tuple[str, list[str]]) -> dict[str, Any]:
        requirements = [{"kind": kind, "values": values} for kind, values in wanted]
        return {"role": role, "content": content, "requirements": requirements}

    five = ("contains", ["5"])
    messages = [
        turn("user", "Provide …", ("script", ["de"]), five),
        turn("assistant", "in 5 Tagen"),
        turn("user", "Make it shorter.", ("script", ["de"]), five, ("shorter", [])),
        turn("assistant", "in 5 T."),
    ]
    second = "in 5 T." if met else "in 5 Tagen"
    return [
        {
            "id": str(number),
            "source_lang": "en",
            "target_lang": "de",
            "messages": messages,
            "outputs": ["in 5 Tagen", second],
        }
        for number in range(4)
    ]


def answers(wrong: int = 1, *, interactive: bool = True, attack: bool = False) -> dict[str, Any]:
    """One system's answers to both suites."""
    made = {"heldout": translations(wrong, attack)}
    return {**made, "interactive": conversations(met=wrong < 2)} if interactive else made


def result(answered: dict[str, dict[str, list[Row]]], **called: str) -> dict[str, Any]:
    """What `scores.json` says of systems' answers: the model first, its baseline last."""
    first = next(iter(answered.values()))
    suites: dict[str, Any] = {"heldout": HeldOut(first["heldout"], _DECODING)}
    if "interactive" in first:
        suites["interactive"] = Interactive("interactive", first["interactive"], _DECODING)
    compared = [System(name, called.get(name, f"{name} model")) for name in answered]
    scored = {
        system: {name: suite.score(those[name]) for name, suite in suites.items()}
        for system, those in answered.items()
    }
    tests = {name: (digest_of(suite), str(suite.decoding)) for name, suite in suites.items()}
    return result_of(tests, compared, scored, {name: {} for name in answered})


ANSWERED = {"trained": answers(1, attack=True), "untrained": answers(4)}
