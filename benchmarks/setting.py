"""What `train.py` trains and on what: the quickstart's model, data and batch, in a folder."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayling import accelerators
from bayling.config import Config, compose

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from bayling.templates import ChatFormat
    from bayling.train.batches import PackedTokens
    from bayling.train.trainer import Trainer

WORKERS = 2


@dataclass(frozen=True)
class Setting:
    """A folder that `build` filled, and the configuration it was filled by."""

    folder: Path
    config: Config

    @staticmethod
    def read(folder: Path) -> Setting:
        return Setting(folder, compose(["recipe=quickstart"]))

    @property
    def tokenizer(self) -> Path:
        return self.folder / "tokenizer"

    @property
    def start(self) -> Path:
        """A model folder: the random weights that all start from, in fp32."""
        return self.folder / "start"

    @property
    def conversations(self) -> Path:
        """A line each, in the form that TRL takes: `{"messages": [{"role", "content"}, …]}`."""
        return self.folder / "conversations.jsonl"

    @property
    def encoded(self) -> Path:
        """A line each: `{"input_ids": […], "labels": […]}`."""
        return self.folder / "encoded.jsonl"

    @cached_property
    def packed(self) -> PackedTokens:
        from bayling.train.batches import PackedTokens

        return PackedTokens(self.folder / "packed")

    @cached_property
    def chat(self) -> ChatFormat:
        from bayling.model_folder import load_chat

        return load_chat(self.tokenizer, self.config.model.template.value)

    @property
    def bf16(self) -> bool:
        """Whether all train in bf16: the faster of the two on this CPU."""
        return accelerators.cpu_multiplies_bf16()

    @property
    def micro_batch(self) -> int:
        """Packed sequences that a worker takes through the network at once."""
        return math.ceil(self.config.train.global_batch / WORKERS)

    @property
    def padded_batch(self) -> int:
        """Conversations of as many tokens, one a row."""
        with self.encoded.open(encoding="utf-8") as file:
            conversations = sum(1 for _ in file)
        return round(self.micro_batch * conversations / len(self.packed))

    def network(self) -> PreTrainedModel:
        """The model as the trainer builds it, with the attention that it chooses."""
        import torch

        from bayling.train import attention, network

        cpu, dtype = torch.device("cpu"), torch.bfloat16 if self.bf16 else torch.float32
        return network.build(
            self.config.model,
            self.chat.tokenizer,
            self.config.seed,
            self.chat.stop_ids,
            implementation=attention.choose(cpu, dtype, self.packed.sequence_length),
        )

    def trainer(
        self, *, steps: int = 100_000, model: dict[str, Any] | None = None, **train: Any
    ) -> Trainer:
        """The platform's trainer; `model` and `train` change keys of the configuration."""
        import torch
        import torch.distributed as dist

        from bayling.shape import Shape
        from bayling.train import layout
        from bayling.train.precision import settled
        from bayling.train.trainer import Trainer

        config = settled(replace(self.config.train, **train), self.config.scale)
        network = replace(self.config.model, **(model or {}))
        chosen = layout.choose(
            config,
            Shape.of(network),
            self.config.scale,
            self.packed.sequence_length,
            dist.get_world_size(),
        )
        return Trainer(
            config,
            network,
            chosen,
            self.chat,
            self.packed,
            seed=self.config.seed,
            steps=steps,
            device=torch.device("cpu"),
        )


def build(folder: Path, conversations: int) -> Setting:
    """Make conversations, tokenizer, packed tokens and random weights as the stages do."""
    from bayling.data import conversations as corpus
    from bayling.data import packing, tokenizer
    from bayling.data.tokens import group_names
    from bayling.language_families import family_of
    from bayling.templates import TEMPLATES

    setting = Setting.read(folder)
    config, model = setting.config.data, setting.config.model
    rows = []
    for index in range(conversations):
        try:
            rows.append(corpus.build(index, config, setting.config.seed))
        except corpus.Dropped:
            continue
    template = TEMPLATES[model.template.value]
    made = tokenizer.train(
        (message.content for row in rows for message in row.messages),
        model.vocab_size,
        template,
        [*template.phrases(), *corpus.phrases(config.languages)],
    )
    made.chat_template = template.chat_template()
    made.model_max_length = model.context_length
    made.save_pretrained(setting.tokenizer)

    names = group_names(config)
    kept = []
    with (
        setting.conversations.open("w", encoding="utf-8") as plain,
        setting.encoded.open("w", encoding="utf-8") as encoded,
    ):
        all_tokens = setting.chat.encode([row.messages for row in rows])
        for row, tokens in zip(rows, all_tokens, strict=True):
            if isinstance(tokens, str) or len(tokens.ids) > config.sequence_length:
                continue
            group = names.index(f"{row.task}/{family_of(row.target_lang)}")
            kept.append(packing.Item(row.id, tokens, group))
            messages = [{"role": m.role, "content": m.content} for m in row.messages]
            plain.write(json.dumps({"messages": messages}) + "\n")
            labels = [
                token if wanted else packing.IGNORED
                for token, wanted in zip(tokens.ids, tokens.supervised, strict=True)
            ]
            encoded.write(json.dumps({"input_ids": list(tokens.ids), "labels": labels}) + "\n")
    packing.write_shard(kept, config.sequence_length, folder / "packed" / "shard-00000")
    (folder / "packed" / packing.GROUPS).write_text(json.dumps(names), "utf-8")

    network = setting.network()
    network.save_pretrained(setting.start)
    made.save_pretrained(setting.start)
    return setting
