"""A model folder as the train stage exports it, small enough to be made in a second."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from bayling.data.tokenizer import train
from bayling.languages import letters_in_script
from bayling.model_folder import Serving
from bayling.templates import TEMPLATES

CONTEXT = 32768
"""Long enough for an answer that is still being made when a test has left."""
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
"""Where the tests of engines compute."""
SENTENCES = (
    "Provide the German translation for this sentence: 21 March 2024",
    "提供这句话的德语翻译：二〇二四年三月二十一日",
    "नमस्ते दुनिया, आज का दिन अच्छा है।",
    "مرحبا بالعالم، اليوم جميل",
    "Der 21. März 2024 war ein Donnerstag.",
    "Now in Chinese. Make it shorter.",
    str(TEMPLATES["bayling"].system),
    "### Instruction:\n### Response:\n",
)


def make_model(
    folder: Path,
    *,
    template: str = "bayling",
    seed: int = 0,
    writes: str | None = None,
    languages: Sequence[str] = ("en", "de", "zh", "hi", "ar"),
    ends: bool = False,
) -> Path:
    """A random LLaMA with a tokenizer for five scripts, its template and its `bayling.json`.

    Args:
        writes: a language whose letters are all that its greedy answers have.
        languages: what `bayling.json` says that it was trained on.
        ends: whether it may end an answer by itself, and then often does.
    """
    tokenizer = train(SENTENCES, 600, TEMPLATES[template])
    tokenizer.chat_template = TEMPLATES[template].chat_template()
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=CONTEXT,
        # The usual 0.02 makes so small a model repeat one token for ever.
        initializer_range=0.3,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    # With 0 never the likeliest: a greedy answer is as long as it was asked to be.
    model.lm_head.weight.data[tokenizer.eos_token_id] *= 4 if ends else 0
    if writes is not None:
        for token in range(len(tokenizer)):
            right, letters = letters_in_script(tokenizer.decode([token]), writes)
            if not 0 < right == letters:
                model.lm_head.weight.data[token] = 0
    model.save_pretrained(folder)
    Serving(template, CONTEXT, list(languages), base_model=None).write(folder)
    return folder
