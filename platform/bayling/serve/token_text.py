"""What single tokens say, for clients that look at log-probabilities."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from bayling.engines.protocol import Scored

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def _byte_alphabet() -> dict[str, int]:
    """The characters that byte-level tokenizers write bytes with, as GPT-2 did first."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}


_ALPHABET = _byte_alphabet()


class TokenTexts:
    """The text and the bytes of each token of a tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        described = json.loads(tokenizer.backend_tokenizer.to_str())
        self._byte_level = '"ByteLevel"' in json.dumps(described.get("decoder"))
        self._added = {token["id"]: token["content"] for token in described["added_tokens"]}
        self._known: dict[int, bytes] = {}

    @staticmethod
    @lru_cache(maxsize=8)
    def of(tokenizer: PreTrainedTokenizerFast) -> TokenTexts:
        """Those of a tokenizer, made once."""
        return TokenTexts(tokenizer)

    def bytes_of(self, token: int) -> bytes:
        """What the token adds to a text, in UTF-8; perhaps a part of a character only."""
        if token not in self._known:
            self._known[token] = self._find(token)
        return self._known[token]

    def text_of(self, token: int) -> str:
        """The same as text; `bytes:\\xe4\\xb8` for what is no text by itself, as OpenAI has it."""
        written = self.bytes_of(token)
        try:
            return written.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in written)

    def _find(self, token: int) -> bytes:
        if token in self._added:
            return str(self._added[token]).encode()
        piece = self._tokenizer.convert_ids_to_tokens(token)
        if piece is None:  # the model's vocabulary may be padded beyond the tokenizer's
            return b""
        if self._byte_level:
            return bytes(_ALPHABET[character] for character in piece)
        byte = _BYTE.fullmatch(piece)
        return bytes([int(byte[1], 16)]) if byte else piece.replace("▁", " ").encode()

    def chat(self, ids: Sequence[int], scores: Sequence[Scored]) -> dict[str, Any]:
        """`logprobs` of a choice of a chat completion."""

        def entry(token: int, logprob: float) -> dict[str, object]:
            return {
                "token": self.text_of(token),
                "logprob": logprob,
                "bytes": list(self.bytes_of(token)),
            }

        return {
            "content": [
                {
                    **entry(token, score.logprob),
                    "top_logprobs": [entry(*one) for one in score.top],
                }
                for token, score in zip(ids, scores, strict=True)
            ],
            "refusal": None,
        }

    def completion(
        self, ids: Sequence[int], scores: Iterable[Scored | None], start: int
    ) -> dict[str, Any]:
        """`logprobs` of a choice of a text completion.

        Args:
            scores: one for each token; None for the first of a text, which nothing precedes.
            start: how many characters of the choice's text stand before these tokens.
        """
        texts = [self.text_of(token) for token in ids]
        scores = list(scores)
        offsets = []
        for token in ids:
            offsets.append(start)
            start += len(self.bytes_of(token).decode(errors="ignore"))
        return {
            "tokens": texts,
            "token_logprobs": [None if score is None else score.logprob for score in scores],
            "top_logprobs": [
                None if score is None else self._by_text(score.top) for score in scores
            ],
            "text_offset": offsets,
        }

    def _by_text(self, top: Sequence[tuple[int, float]]) -> dict[str, float]:
        found: dict[str, float] = {}
        for token, logprob in top:  # the likeliest of those that read the same
            found.setdefault(self.text_of(token), logprob)
        return found
