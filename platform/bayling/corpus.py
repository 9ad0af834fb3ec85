"""How much there is to train on: counted where the data stage has run, estimated where not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bayling.config import Config
from bayling.errors import UserError

SAMPLE = 300
"""Conversations that an estimate is made from."""
FILL = 0.99
"""The part of a packed sequence that is not padding, where it is not known: packing is a
subset-sum, and what is counted is 99 to 100 %."""
BYTES_PER_TOKEN = {"own": 10.0, "small": 2.5, "large": 3.5}
"""UTF-8 bytes a token of rendered text, where there is no tokenizer to ask. `own` is the data
stage's, whose fixed phrases are one token each (the quickstart's: 10.2). A base with a vocabulary
of 32,000 writes most scripts but Latin and Cyrillic byte by byte; `large` is one of 100,000 and
more. An assumption, and the plan says so."""


@dataclass(frozen=True)
class Corpus:
    """Sizes of the packed corpus."""

    source: str
    """Where the figures come from, in words."""
    counted: bool
    conversations: int
    tokens: int
    sequences: int
    fill: float
    """The part of the positions that is not padding."""
    supervised: float
    """The part of the positions that the model is trained to write; 1 where that is not known,
    which is the worst case for memory."""


def corpus(config: Config) -> Corpus:
    """The sizes of the configuration's corpus.

    Raises:
        UserError: the base's tokenizer cannot be used, or no conversation can be built.
    """
    return _counted(config) or _estimated(config)


def _counted(config: Config) -> Corpus | None:
    """From the manifest of the data stage, where it ran with this configuration."""
    from bayling.pipeline import Pipeline
    from bayling.stage import Manifest
    from bayling.watch import Plain

    # The manifest alone: whether the tracking store still knows the run makes no difference here,
    # and asking it takes seconds.
    pipeline = Pipeline(config, Plain())
    manifest = Manifest.read(pipeline.folder("data"))
    if manifest is None or manifest.fingerprint != pipeline.fingerprints["data"]:
        return None
    counts = manifest.counts
    positions = counts["sequences"] * config.data.sequence_length
    return Corpus(
        source=f"counted by the data stage in {pipeline.folder('data')}",
        counted=True,
        conversations=counts["conversations"],
        tokens=counts["tokens"],
        sequences=counts["sequences"],
        fill=counts["tokens"] / positions,
        supervised=counts["supervised_tokens"] / positions,
    )


def _estimated(config: Config) -> Corpus:
    """From a sample of the conversations that the data stage would build."""
    from bayling.data.sample import sample
    from bayling.templates import TEMPLATES

    data, model = config.data, config.model
    size = min(SAMPLE, data.conversations)
    rows = sample(data, config.seed, size)
    if not rows:
        raise UserError(
            "none of the first conversations can be built: see data.languages and data.sources"
        )
    base = Path(model.base) if model.base is not None else None
    if base is not None and base.exists():
        from bayling.model_folder import load_chat

        encoded = load_chat(base, model.template.value).encode(rows)
        each = sum(len(made.ids) for made in encoded if not isinstance(made, str)) / len(rows)
        how = f"the tokenizer in {base}"
    else:
        template = TEMPLATES.get(model.template.value) or TEMPLATES["chatml"]
        size_in_bytes = sum(len(template.render(row).text.encode()) for row in rows) / len(rows)
        kind = "own" if base is None else "small" if model.vocab_size < 100_000 else "large"
        each = size_in_bytes / BYTES_PER_TOKEN[kind]
        how = f"the assumption of {BYTES_PER_TOKEN[kind]:g} bytes a token"
    number = round(data.conversations * len(rows) / size)
    tokens = round(number * each)
    return Corpus(
        source=f"estimated from {len(rows)} conversations with {how}",
        counted=False,
        conversations=number,
        tokens=tokens,
        sequences=max(1, round(tokens / FILL / data.sequence_length)),
        fill=FILL,
        supervised=1.0,
    )
