"""From SentencePiece's `tokenizer.model` to `tokenizer.json`, checked against SentencePiece."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayling.errors import UserError
from bayling.stage import write_json
from bayling.weights import folder as folders

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

MODEL = "tokenizer.model"
FAST = "tokenizer.json"
_CONFIG = "tokenizer_config.json"
_BLANK = "▁"
SAMPLES = (
    "Provide the German translation for this sentence: in 5 days",
    "  two spaces before, two  within, two after  ",
    "提供这句话的德语翻译：二〇二四年三月二十一日",
    "日本語とひらがな、カタカナ",
    "नमस्ते दुनिया, आज का दिन अच्छा है।",
    "مرحبا بالعالم، اليوم جميل",
    "17 марта 2038 г. стоит 1 234,50 ₽",
    "한국어 문장입니다.",
    "Übergrößenträger naïve façade",
    "line\n\nbreaks\tand tabs",
    "def f(x):\n    return x ** 2  # 🙂 e\u0301",
)
"""Texts in many scripts, with what tokenizers fall out over: blanks, breaks, bytes, digits."""


def write_fast(folder: Path, target: Path) -> None:
    """Make `tokenizer.json` and its config in `target` from a folder's `tokenizer.model`.

    Left to itself, the library takes a folder without `tokenizer_config.json` for another kind,
    and puts no blank before a text that begins with one, where SentencePiece does. So the class
    is named, the blanks are put right, and what is written is read back as it is written.

    Raises:
        UserError: it is no SentencePiece model, or the result gives other ids than it does.
    """
    from sentencepiece import SentencePieceProcessor
    from transformers import LlamaTokenizerFast

    path = folder / MODEL
    try:
        pieces: Any = SentencePieceProcessor(model_file=str(path))
    except (RuntimeError, OSError):
        raise UserError(
            f"{path} is no SentencePiece model (Llama 3's is tiktoken's): put the model's "
            f"{FAST} beside it"
        ) from None
    try:
        config = _config(folder)
        fast = LlamaTokenizerFast.from_pretrained(
            str(folder),
            local_files_only=True,
            trust_remote_code=False,
            add_bos_token=config.get("add_bos_token", True),
        )
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} cannot be converted: {reason}") from None
    _put_blanks(fast, config)
    check_same_ids(fast, pieces, path)
    size = folders.model_config(folder).get("vocab_size")
    if isinstance(size, int) and len(fast) > size:
        raise UserError(
            f"{folder}: the tokenizer has {len(fast)} tokens, the model's config {size}: take "
            "the tokenizer the model was made with"
        )
    fast.save_pretrained(target)
    # Under the name of LLaMA's class, the library would not read the file but build its own.
    saved = {**_config(target), "tokenizer_class": "PreTrainedTokenizerFast"}
    write_json(target / _CONFIG, saved)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / _CONFIG
    config = json.loads(path.read_text("utf-8")) if path.exists() else {}
    if not isinstance(config, dict):
        raise ValueError(f"{_CONFIG} is no JSON object")
    return config


def _put_blanks(fast: PreTrainedTokenizerFast, config: dict[str, Any]) -> None:
    """One blank before a text, whatever it begins with; `legacy` ones, after control tokens too.

    Where the config does not say, the tokenizer is from a time when all were `legacy`.
    """
    from tokenizers import normalizers, pre_tokenizers

    scheme = "always" if config.get("legacy") in (None, True) else "first"
    if config.get("add_prefix_space") is False:
        scheme = "never"
    backend = fast.backend_tokenizer
    backend.normalizer = normalizers.Replace(" ", _BLANK)
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            # Puts " " before a text that does not begin with " ": none does any more.
            pre_tokenizers.Metaspace(" ", prepend_scheme=scheme, split=False),
            pre_tokenizers.Metaspace(_BLANK, prepend_scheme="never", split=False),
        ]
    )


def check_same_ids(fast: PreTrainedTokenizerFast, pieces: Any, path: Path) -> None:
    """See that a fast tokenizer writes the samples as SentencePiece does.

    Raises:
        UserError: it does not; names the first text.
    """
    for text in SAMPLES:
        ours = fast(text, add_special_tokens=False).input_ids
        theirs = pieces.encode(text)
        if list(ours) != list(theirs):
            raise UserError(
                f"{path} was converted, but gives other tokens than SentencePiece for {text!r} "
                f"({ours[:8]} instead of {theirs[:8]}): take a tokenizer.json that the model's "
                "makers provide"
            )


def vocabulary(folder: Path) -> dict[str, int]:
    """Every token of a folder's tokenizer and its id, added ones included.

    Raises:
        UserError: the folder has no tokenizer, or one that cannot be read.
    """
    from transformers import LlamaTokenizerFast
    from transformers import PreTrainedTokenizerFast as Fast

    if not any((folder / name).exists() for name in (FAST, MODEL)):
        raise UserError(
            f"{folder} has no tokenizer: put the {FAST} or {MODEL} that the model was made "
            "with there"
        )
    kind = Fast if (folder / FAST).exists() else LlamaTokenizerFast
    try:
        read = kind.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{folder} holds no usable tokenizer: {reason}") from None
    table: dict[str, int] = read.get_vocab()
    return table
