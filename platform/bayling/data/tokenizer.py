"""A tokenizer for a model that brings none: byte-level BPE with single digits.

Phrases that are always the same – the template's own words, the instructions – are tokens of
their own, as SentencePiece's user-defined symbols are: they cost a small model one token
instead of ten, so that most of what it reads in a short training is what it has to learn from.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from bayling.templates import Template

# Line breaks, single digits, Han characters one by one, runs of kana, words with the space
# before them, and everything else. Without spaces between words, longer pieces of Chinese would
# become tokens by chance of the corpus, such as two countries and the "and" between them.
_PIECES = (
    r"\n|\d|\p{Han}|[\p{Katakana}ー]+|\p{Hiragana}+"
    r"| ?[\p{L}\p{M}&&[^\p{Han}\p{Katakana}\p{Hiragana}ー]]+"
    r"| ?[^\s\d\p{L}\p{M}]+|\s"
)


def train(
    texts: Iterable[str], vocab_size: int, template: Template, phrases: Iterable[str] = ()
) -> PreTrainedTokenizerFast:
    """Train on a stream of texts; the template's control tokens get the first ids.

    Digits stay single, so that a number never seen is written like any other, and so do Han
    characters. Line breaks stand alone, and any text can be encoded.

    Args:
        vocab_size: all tokens together.
        phrases: texts that become one token each wherever they occur.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = list(dict.fromkeys([*template.control_tokens, template.end_token]))
    symbols = [phrase for phrase in dict.fromkeys(phrases) if phrase not in special]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(symbols),
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(phrase, normalized=False) for phrase in symbols])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=template.bos_token,
        eos_token=template.end_token,
        pad_token=template.end_token,
        clean_up_tokenization_spaces=False,
    )
