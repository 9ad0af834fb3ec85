from __future__ import annotations

import pytest

from bayling.config import compose, options
from bayling.model import Licence
from bayling.train.licences import TERMS

pytestmark = pytest.mark.unit


def test_every_licence_has_its_terms() -> None:
    assert set(TERMS) == set(Licence)
    assert all(terms.notes and terms.hub_id for terms in TERMS.values())


@pytest.mark.parametrize(
    ("licence", "duties"),
    [
        (Licence.llama1, ["non-commercial", "research only"]),
        # https://ai.meta.com/llama/license, sections 1.b.iii, 1.b.iv, 1.b.v and 2.
        (
            Licence.llama2,
            [
                "Llama 2 is licensed under the LLAMA 2 Community License, Copyright (c) Meta "
                "Platforms, Inc. All Rights Reserved.",
                "copy of the licence agreement",
                "Acceptable Use Policy",
                "700 million",
                "improve another large language model",
            ],
        ),
        # https://llama.meta.com/llama3/license, the same sections.
        (
            Licence.llama3,
            [
                "Meta Llama 3 is licensed under the Meta Llama 3 Community License, Copyright © "
                "Meta Platforms, Inc. All Rights Reserved.",
                "Built with Meta Llama 3",
                "begin the name",
                "Acceptable Use Policy",
                "700 million",
                "improve another large language model",
            ],
        ),
    ],
)
def test_what_a_licence_asks_for_is_said(licence: Licence, duties: list[str]) -> None:
    for duty in duties:
        assert duty in TERMS[licence].notes


def test_every_shipped_base_names_its_licence() -> None:
    for option in options("model"):
        model = compose([f"model={option}"]).model
        assert (model.licence is Licence.none) == (model.base is None)
        assert (model.licence is Licence.llama3) == model.name.lower().startswith("llama-3")
