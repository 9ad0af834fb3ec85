"""Tokenizers of the two kinds that LLaMA models come with, trained in a second."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from bayling.model_folder import load_tokenizer
from bayling.templates import BAYLING3

CORPUS = (
    "I am an intelligent language assistant developed by the NLP Group of ICT/CAS.",
    "Below is a dialog consisting of instructions and responses.",
    "Write a response that completes the request.",
    "I am BayLing developed by the NLP Group of ICT/CAS.",
    "### Instruction:",
    "### Response:",
    "Provide the German translation for this sentence: in 5 days",
    "提供这句话的德语翻译：五天后",
    "Make sure to include these words: Woche",
    "In 5 Tagen. Der 21. März 2024 war ein Donnerstag.",
    "二〇二四年三月二十一日星期四",
    "नमस्ते दुनिया",
    "user system assistant",
)
# Of github.com/meta-llama/llama-models, llama3/tokenizer.py.
_LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def llama2(folder: Path, *, legacy: bool = False) -> PreTrainedTokenizerFast:
    """A byte-fallback SentencePiece model, read from a folder as Llama 2 is released.

    Its pieces cover few characters, so that most of other scripts are written in bytes.

    Args:
        legacy: a space is put after every control token, not only before the first word.
    """
    import sentencepiece

    folder.mkdir(parents=True, exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 4),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=480,
        byte_fallback=True,
        character_coverage=0.98,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        pad_id=-1,
        minloglevel=2,
    )
    config = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "add_bos_token": True,
        "legacy": legacy,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    return load_tokenizer(folder)


def llama3() -> PreTrainedTokenizerFast:
    """Byte-level BPE with Llama 3's words, and runs of line breaks as single tokens."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_LLAMA3_WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    breaks = ["a\n\nb", "a\n\n\nb", "a:\n\nb", "a:\n b"] * 8
    tokenizer.train_from_iterator([*CORPUS * 4, *breaks], trainer)
    # After the words, as in Llama 3: id 2 is an ordinary character.
    tokenizer.add_special_tokens(list(BAYLING3.control_tokens))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|begin_of_text|>",
        eos_token="<|end_of_text|>",
        pad_token="<|end_of_text|>",
        clean_up_tokenization_spaces=False,
    )
