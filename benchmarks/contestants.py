"""The trainers that `train.py` compares: each a program that takes steps when it is told to.

    python contestants.py NAME FOLDER      with RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT set

A line on standard input is a number of steps; the answer, a line on standard output, is the
seconds they took and the tokens, not counting padding, that this process trained on. All stay
alive and idle while another is measured, so that rounds of a few seconds each can be compared.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from setting import Setting

FOREVER = 1_000_000
"""Steps: more than are ever asked for."""


class Gate:
    """Lets a training loop go on for as many steps as it is asked to, and times them."""

    def __init__(self, orders: TextIO, answers: TextIO) -> None:
        self._orders, self._answers = orders, answers
        self._left = self._tokens = 0
        self._began = 0.0

    def open(self) -> None:
        """To be called once, before the first step."""
        self._say({})
        self._wait()

    def stepped(self, tokens: int) -> None:
        """To be called after each step; waits where it was the last that was asked for."""
        self._tokens += tokens
        self._left -= 1
        if not self._left:
            self._say({"seconds": time.perf_counter() - self._began, "tokens": self._tokens})
            self._wait()

    def _say(self, answer: dict[str, float]) -> None:
        self._answers.write(json.dumps(answer) + "\n")
        self._answers.flush()

    def _wait(self) -> None:
        order = self._orders.readline()
        if not order:
            os._exit(0)  # the other worker is gone as well: nobody to say good-bye to
        self._left, self._tokens = int(order), 0
        self._began = time.perf_counter()


def bayling(setting: Setting, gate: Gate) -> None:
    """The platform's own."""
    from bayling.scale import Device
    from bayling.train import setup

    setup.prepare_process(Device.cpu, 1)
    trainer = setting.trainer()
    gate.open()
    for step in range(FOREVER):
        outcome = trainer.step(step, [0.0, 0.0])
        gate.stepped(outcome.tokens if trainer.rank == 0 else 0)


def bare(setting: Setting, gate: Gate) -> None:
    """The limit: the same network, DeepSpeed and packed batches in a loop that does nothing else.

    No schedule, no order that survives a restart, no loss over all workers, no bad step noticed.
    """
    import deepspeed
    import torch
    from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

    from bayling.train import network

    model = network.PackedLoss(setting.network())
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True),
        config={
            "train_micro_batch_size_per_gpu": setting.micro_batch,
            "gradient_clipping": 1.0,
            "bf16": {"enabled": setting.bf16},
            # The recipe's stage, and the options that are fastest on a CPU.
            "zero_optimization": {
                "stage": setting.config.train.zero_stage,
                "overlap_comm": False,
                "reduce_scatter": False,
            },
            "zero_allow_untested_optimizer": True,
        },
    )
    packed = setting.packed
    everything = packed.batch(torch.arange(len(packed)).numpy())
    data = TensorDataset(
        everything["input_ids"],
        everything["labels"],
        everything["position_ids"],
        torch.from_numpy(packed.lengths.astype("int64")),
    )
    gate.open()
    for epoch in range(FOREVER):
        sampler = DistributedSampler(data, seed=epoch, drop_last=True)
        for step, (ids, labels, positions, lengths) in enumerate(
            DataLoader(data, setting.micro_batch, sampler=sampler, drop_last=True)
        ):
            loss = engine(ids, labels, positions) / (labels != network.IGNORED).sum()
            engine.backward(loss)
            engine.step()
            if step % 10 == 0:
                loss.item()
            gate.stepped(int(lengths.sum()))


def trl_packed(setting: Setting, gate: Gate) -> None:
    """TRL's SFTTrainer as its documentation recommends: packing, its own defaults otherwise."""
    _trl(setting, gate)


def trl_tuned(setting: Setting, gate: Gate) -> None:
    """The same without gradient checkpointing, which TRL turns on by default."""
    _trl(setting, gate, gradient_checkpointing=False)


def _trl(setting: Setting, gate: Gate, **options: Any) -> None:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    rows = [json.loads(line) for line in setting.conversations.open(encoding="utf-8")]
    trainer = SFTTrainer(
        str(setting.start),
        args=SFTConfig(
            packing=True,
            max_length=setting.packed.sequence_length,
            **_common(setting, setting.micro_batch),
            **options,
        ),
        train_dataset=Dataset.from_list(rows),
    )
    _run(trainer, gate)


def hf_padded(setting: Setting, gate: Gate) -> None:
    """The HF Trainer with DeepSpeed ZeRO-2 on padded batches of as many tokens."""
    from transformers import AutoTokenizer, DataCollatorForSeq2Seq

    tokenizer = AutoTokenizer.from_pretrained(setting.tokenizer)
    rows = [json.loads(line) for line in setting.encoded.open(encoding="utf-8")]
    _hf(setting, gate, rows, DataCollatorForSeq2Seq(tokenizer), setting.padded_batch)


def hf_packed(setting: Setting, gate: Gate) -> None:
    """The HF Trainer with DeepSpeed ZeRO-2 on the platform's packed batches."""
    import torch
    from transformers import default_data_collator

    packed = setting.packed
    everything = packed.batch(torch.arange(len(packed)).numpy())
    del everything["groups"]
    rows = [{name: whole[row] for name, whole in everything.items()} for row in range(len(packed))]
    fill = float(packed.lengths.sum()) / (len(packed) * packed.sequence_length)
    _hf(setting, gate, rows, default_data_collator, setting.micro_batch, fill)


def _hf(
    setting: Setting, gate: Gate, rows: Any, collator: Any, batch: int, fill: float = 1.0
) -> None:
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

    arguments = TrainingArguments(
        deepspeed={
            "train_micro_batch_size_per_gpu": "auto",
            "train_batch_size": "auto",
            "gradient_accumulation_steps": "auto",
            "gradient_clipping": "auto",
            "bf16": {"enabled": "auto"},
            "zero_optimization": {"stage": 2},
            "zero_allow_untested_optimizer": True,
        },
        **_common(setting, batch),
    )
    model = AutoModelForCausalLM.from_pretrained(setting.start)
    # With a cache, packed conversations would see each other, and training is slower.
    model.config.use_cache = False
    _run(
        Trainer(model, args=arguments, train_dataset=rows, data_collator=collator),
        gate,
        fill,
    )


def _common(setting: Setting, batch: int) -> dict[str, Any]:
    return {
        "bf16": setting.bf16,
        "output_dir": str(setting.folder / "not-used"),
        "per_device_train_batch_size": batch,
        "max_steps": FOREVER,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "ddp_backend": "gloo",
        "dataloader_pin_memory": False,
    }


def _run(trainer: Any, gate: Gate, fill: float = 1.0) -> None:
    """Train with a transformers Trainer; `fill` is the part of a row that is not padding."""
    from transformers import TrainerCallback

    seen = 0

    def count(module: Any, positional: Any, named: dict[str, Any]) -> None:
        nonlocal seen
        mask = named.get("attention_mask")
        seen += int(mask.sum()) if mask is not None else round(named["input_ids"].numel() * fill)

    class Steps(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            gate.open()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            nonlocal seen
            done, seen = seen, 0
            gate.stepped(done)

    trainer.model.register_forward_pre_hook(count, with_kwargs=True)
    trainer.add_callback(Steps())
    trainer.train()


CONTESTANTS: dict[str, Callable[[Setting, Gate], None]] = {
    "bayling": bayling,
    "bare": bare,
    "trl": trl_packed,
    "trl-tuned": trl_tuned,
    "hf-padded": hf_padded,
    "hf-packed": hf_packed,
}


def main() -> None:
    import torch
    import torch.distributed as dist

    # What libraries print goes to the log.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    torch.set_num_threads(1)
    name, folder = sys.argv[1], Path(sys.argv[2])
    if name in ("bayling", "bare"):
        dist.init_process_group("gloo")
    setting = Setting.read(folder)
    if os.environ.get("BENCH_GIVE_BACK"):
        from bayling.train import allocator

        allocator.give_back()
    CONTESTANTS[name](setting, Gate(sys.stdin, answers))


if __name__ == "__main__":
    main()
