"""What the licence of the base weights asks of a model made from them, for the model card."""

from __future__ import annotations

from dataclasses import dataclass

from bayling.model import Licence


@dataclass(frozen=True)
class Terms:
    """One licence as a model card needs it."""

    hub_id: str
    """As model hubs call it."""
    notes: str
    """What whoever passes the model on has to do; Markdown."""
    notice: str | None = None
    """The attribution that has to lie in a text file named Notice beside every copy."""


_META = (
    "Pass on a copy of the licence agreement, and keep to Meta's Acceptable Use Policy. "
    "Products with more than 700 million monthly active users need a licence from Meta."
)

_LLAMA_2 = (
    "Llama 2 is licensed under the LLAMA 2 Community License, Copyright (c) Meta Platforms, Inc. "
    "All Rights Reserved."
)
_LLAMA_3 = (
    "Meta Llama 3 is licensed under the Meta Llama 3 Community License, Copyright © Meta "
    "Platforms, Inc. All Rights Reserved."
)

TERMS = {
    Licence.none: Terms(
        "other",
        "The weights were trained from random ones: no licence of base weights applies.",
    ),
    Licence.llama1: Terms(
        "other",
        "The base weights, LLaMA (2023), come under Meta's non-commercial research licence: this "
        "model may be used for research only, and only by those whom Meta granted access.",
    ),
    Licence.llama2: Terms(
        "llama2",
        f"> {_LLAMA_2}\n\n" + _META + " Neither Llama 2 nor what it writes may be used "
        "to improve another large language model, except Llama 2 and models made from it.",
        notice=_LLAMA_2,
    ),
    Licence.llama3: Terms(
        "llama3",
        f"**Built with Meta Llama 3**\n\n> {_LLAMA_3}\n\n" + _META + " Show "
        "“Built with Meta Llama 3” where the model is used, and begin the name of every model made "
        "from it with “Llama 3”. Neither Llama 3 nor what it writes may be used to improve another "
        "large language model, except Llama 3 and models made from it.",
        notice=_LLAMA_3,
    ),
    Licence.other: Terms(
        "other",
        "The base weights have a licence of their own, which is not known to the platform: see "
        "where they come from.",
    ),
}
