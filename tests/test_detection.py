"""Which language a text is in: long and short, with and without candidates."""

from __future__ import annotations

import random

import pytest

from bayling import detection
from bayling.data import cldr
from bayling.detection import Detected, detect

pytestmark = pytest.mark.unit

SERVED = ["en", "zh", "de", "ru", "ar", "hi", "sw", "ja"]
SENTENCES = {
    "en": "The weather is fine today, so we will walk to the station.",
    "zh": "今天天气很好，我们走路去车站。",
    "de": "Das Wetter ist heute schön, also gehen wir zu Fuß zum Bahnhof.",
    "ru": "Сегодня хорошая погода, поэтому мы пойдём на вокзал пешком.",
    "ar": "الطقس جميل اليوم، لذلك سنمشي إلى المحطة.",
    "hi": "आज मौसम अच्छा है, इसलिए हम स्टेशन तक पैदल चलेंगे।",
    "sw": "Hali ya hewa ni nzuri leo, kwa hiyo tutatembea hadi kituoni.",
    "ja": "今日は天気がいいので、駅まで歩いて行きます。",
}


@pytest.mark.parametrize(("language", "sentence"), SENTENCES.items())
def test_a_sentence_is_told_with_and_without_candidates(language: str, sentence: str) -> None:
    for among in (SERVED, None):
        detected = detect(sentence, among)
        assert detected is not None and detected.language == language
        assert detected.confidence > 0.4


def test_most_short_texts_are_told_and_the_confident_ones_nearly_all() -> None:
    """Dates, amounts and quantities of a few characters, as people paste them."""
    rng = random.Random(0)
    right = confident = confident_right = total = 0
    for language in SERVED:
        for _ in range(60):
            value = cldr.draw(rng, rng.choice(("date", "relative", "quantity", "money")))
            try:
                written = {tag: cldr.write(value, "long", tag).text for tag in SERVED}
            except (cldr.NotInCldr, KeyError):
                continue
            text = written[language]
            detected = detect(text, SERVED)
            if detected is None:
                continue
            # "81 km" is the same in several.
            correct = written[detected.language] == text
            total += 1
            right += correct
            confident += detected.confidence >= 0.9
            confident_right += correct and detected.confidence >= 0.9
    assert total > 200
    assert right / total > 0.75
    assert confident / total > 0.35
    assert confident_right / confident > 0.97


@pytest.mark.parametrize("text", ["", "   ", "12:30", "€ 5.00 – 7.50", "٢٠٢٤", "!?…", "👍"])
def test_a_text_without_letters_is_in_no_language(text: str) -> None:
    assert detect(text) is None
    assert detect(text, SERVED) is None


def test_a_script_of_none_of_the_candidates_is_none_of_them() -> None:
    assert detect("Привет, как дела?", ["en", "zh"]) is None
    assert detect("Привет, как дела?", ["en", "ru"]) == Detected("ru", 1.0)


def test_a_script_tells_a_language_that_the_model_does_not_know() -> None:
    assert detect("བོད་སྐད་ནི་བོད་ཀྱི་སྐད་ཡིག་ཡིན།", ["en", "bo", "zh"]) == Detected("bo", 1.0)


def test_a_word_that_could_be_anything_has_little_confidence() -> None:
    detected = detect("OK", SERVED)
    assert detected is None or detected.confidence < 0.5


def test_candidates_come_back_as_they_were_given() -> None:
    bokmal = detect("Jeg vet ikke hvor mye klokka er.", ["nb", "de", "en"])
    assert bokmal is not None and bokmal.language == "nb"
    traditional = detect("今天天氣很好。", ["zh-Hant", "ja", "en"])
    assert traditional is not None and traditional.language == "zh-Hant"


def test_a_long_text_takes_no_longer_than_its_beginning() -> None:
    sentence = SENTENCES["de"] + " "
    assert detect(sentence * 20_000, SERVED) == detect((sentence * 200)[:2000], SERVED)


def test_many_texts_at_once_are_judged_as_each_alone() -> None:
    texts = [
        "",
        "12:30",
        "a",
        "GROSSE BUCHSTABEN",
        "\u200b",
        "текст на српском",
        "tekst na srpskom",
    ]
    texts += ["Der Vertrag wurde gestern unterzeichnet.", "条約は昨日調印された。", "x" * 300]
    texts += [f"{number} Dinge, {number} things, {number} choses" for number in range(600)]
    judged = detection.judge(texts, "de")
    for text, told in zip(texts, judged, strict=True):
        ranked = detection._model().rank(f" {text[:200]} ")
        if ranked[0][1] == ranked[-1][1]:
            assert told is None
            continue
        assert told is not None
        assert told.expected == pytest.approx(dict(ranked)["de"], abs=1e-5)
        assert told.probability == pytest.approx(ranked[0][1], abs=1e-5)
        [alone] = detection.judge([text], "de")
        assert alone is not None and alone.likeliest == told.likeliest
        assert alone.expected == pytest.approx(told.expected, abs=1e-5)
