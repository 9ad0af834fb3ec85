"""A model folder on this machine: its tokenizer, its chat format, and what it says of itself.

Beside the files that every library reads, an export holds `bayling.json`: how to serve it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bayling.errors import UserError
from bayling.stage import write_json
from bayling.templates import TEMPLATES, ChatFormat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SERVING, CARD = "bayling.json", "README.md"


@dataclass(frozen=True)
class Serving:
    """How a model is to be served."""

    template: str
    """A key of `templates.TEMPLATES`, or `own` for the tokenizer's chat template."""
    context_length: int
    languages: list[str]
    """BCP-47 tags of the languages it was trained on."""
    base_model: str | None

    def write(self, folder: Path) -> None:
        write_json(folder / SERVING, self)

    @staticmethod
    def read(folder: Path) -> Serving:
        """What the folder says.

        Raises:
            UserError: the folder is not an export of this platform.
        """
        path = folder / SERVING
        try:
            return Serving(**json.loads(path.read_text("utf-8")))
        except FileNotFoundError:
            raise UserError(f"{folder} is no exported model: it has no {SERVING}") from None
        except (ValueError, TypeError) as error:
            raise UserError(f"{path} cannot be read: {error}") from None


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerFast:
    """The fast tokenizer of a folder; never fetches one.

    Raises:
        UserError: the folder holds none, or only a slow one, which has no character offsets.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{folder} holds no usable tokenizer: {reason}") from None
    if not tokenizer.is_fast:
        raise UserError(f"{folder} has no tokenizer.json, and character offsets need one")
    return tokenizer


def load_chat(folder: str | Path, template: str) -> ChatFormat:
    """The folder's tokenizer joined with a template by name.

    Raises:
        UserError: no usable tokenizer, or one that the template does not fit.
    """
    return ChatFormat(load_tokenizer(folder), TEMPLATES.get(template))
