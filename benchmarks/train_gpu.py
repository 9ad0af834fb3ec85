"""Training on one GPU: tokens a second, MFU and memory, beside the plain HF Trainer.

    python benchmarks/train_gpu.py [--json FILE] [--layers N] [--steps N] [--smoke]

The platform's own trainer (model, batches and step of bayling.train.trainer; one process, no Ray)
on a LLaMA with the sizes of Llama-3-8B from random weights, all weights and adapters (LoRA). It
has as many layers as the plan finds room for, or `--layers`. Data: synthetic conversations of
realistic lengths, packed to 2,048 tokens. The HF Trainer gets the same conversations in its
default padded batches: fp32 weights under bf16 autocast for all weights, bf16 ones below adapters.
Before that, `packed` attention is compared with a dense mask: outputs and gradients.

`--smoke` runs all of it with a tiny network on whatever there is, in under a minute on a CPU.

Runs where torch and transformers are; what else it needs is small enough to carry:

    pip wheel --no-deps -w wheels deepspeed hjson ninja py-cpuinfo einops peft accelerate babel
    pip install --no-index --no-deps wheels/*.whl        # there
    PYTHONPATH=platform python benchmarks/train_gpu.py --json gpu.json

Each measurement is a fresh process, so that one's memory is not another's.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bayling import accelerators
from bayling.data import packing
from bayling.errors import UserError
from bayling.model import ModelConfig
from bayling.scale import Device, ScaleConfig
from bayling.shape import Shape
from bayling.templates import TEMPLATES, ChatFormat, Encoded
from bayling.train import attention, flops, layout, network, setup
from bayling.train.config import LoraConfig, Offload, TrainConfig
from bayling.train.precision import settled

if TYPE_CHECKING:
    from bayling.train.batches import PackedTokens

LLAMA_3_8B = ModelConfig(
    name="llama-3-8b-shaped",
    context_length=8192,
    vocab_size=128256,
    hidden_size=4096,
    intermediate_size=14336,
    layers=32,
    heads=32,
    kv_heads=8,
    tie_embeddings=False,
    rope_theta=500000.0,
)
TINY = replace(
    LLAMA_3_8B,
    vocab_size=1024,
    hidden_size=64,
    intermediate_size=160,
    layers=2,
    heads=4,
    kv_heads=2,
)
MODES = ("full", "lora")
TRAINERS = ("bayling", "hf")
SEED = 1
WARM_UP = 3
"""Steps before the clock runs."""


@dataclass(frozen=True)
class Case:
    """What is trained, and how long."""

    smoke: bool
    layers: int | None
    steps: int

    @property
    def sequence_length(self) -> int:
        return 128 if self.smoke else 2048

    @property
    def global_batch(self) -> int:
        return 4 if self.smoke else 16

    @property
    def model(self) -> ModelConfig:
        sizes = TINY if self.smoke else LLAMA_3_8B
        return replace(sizes, layers=self.layers or sizes.layers)

    def train(self, mode: str) -> TrainConfig:
        train = TrainConfig(
            global_batch=self.global_batch,
            learning_rate=1e-5,
            lora=LoraConfig(rank=16 if mode == "lora" else 0),
            zero_stage=2,
            offload_optimizer=Offload.none,
            offload_parameters=Offload.none,
            gradient_checkpointing=True,
        )
        return settled(train, scale())


def device() -> torch.device:
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def scale() -> ScaleConfig:
    """One device, of the kind that is here."""
    if not torch.cuda.is_available():
        return ScaleConfig(workers=1)
    gpu = accelerators.of_device(torch.cuda.get_device_name(0))
    if gpu is None:
        raise SystemExit(f"{torch.cuda.get_device_name(0)} is not in bayling.accelerators")
    name = next(name for name, known in accelerators.GPUS.items() if known is gpu)
    return ScaleConfig(device=Device.cuda, workers=1, gpu=name, gpus_per_node=1)


def plan(case: Case, mode: str) -> tuple[ModelConfig, layout.Layout]:
    """The model with as many layers as fit, and the layout that training takes."""
    model, train = case.model, case.train(mode)
    while True:
        shape = Shape.of(model)
        try:
            return model, layout.choose(train, shape, scale(), case.sequence_length, 1)
        except UserError:
            if case.layers is not None or model.layers == 1:
                raise
            model = replace(model, layers=model.layers - 1)


def chat(vocabulary: int) -> ChatFormat:
    """A tokenizer of as many tokens as the model has rows; nothing is tokenised with it."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    template = TEMPLATES["bayling"]
    names = list(dict.fromkeys([*template.control_tokens, template.end_token]))
    names += [f"<{number}>" for number in range(vocabulary - len(names))]
    words = Tokenizer(models.WordLevel({name: n for n, name in enumerate(names)}, names[-1]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token=template.end_token)
    return ChatFormat(tokenizer, template)


def conversations(case: Case, count: int) -> list[Encoded]:
    """Random tokens. Lengths are log-normal with a median of 350 tokens, cut at the sequence's
    length, as instruction data's are; the answers are half of them."""
    generator = np.random.default_rng(SEED)
    median = 350 * case.sequence_length / 2048
    lengths = np.exp(generator.normal(np.log(median), 0.8, count))
    made = []
    for length in lengths.clip(8, case.sequence_length).astype(int).tolist():
        ids = generator.integers(8, case.model.vocab_size, length).tolist()
        made.append(Encoded(ids, [place >= length // 2 for place in range(length)]))
    return made


def pack(case: Case, folder: Path) -> PackedTokens:
    from bayling.train.batches import PackedTokens

    rows = conversations(case, 64 if case.smoke else 2000)
    items = [packing.Item(str(number), encoded) for number, encoded in enumerate(rows)]
    packing.write_shard(items, case.sequence_length, folder / "shard-00000")
    (folder / packing.GROUPS).write_text(json.dumps(["all"]), "utf-8")
    return PackedTokens(folder)


def measure_bayling(case: Case, mode: str) -> dict[str, Any]:
    """The platform's trainer."""
    from bayling.train.trainer import Trainer

    model, chosen = plan(case, mode)
    train = case.train(mode)
    with tempfile.TemporaryDirectory() as folder:
        packed = pack(case, Path(folder))
        began = time.perf_counter()
        trainer = Trainer(
            train,
            model,
            chosen,
            chat(model.vocab_size),
            packed,
            seed=SEED,
            steps=1000,
            device=device(),
        )
        loading = time.perf_counter() - began
        for step in range(WARM_UP):
            trainer.step(step)
        _reset()
        tokens, seconds = 0, []
        for step in range(WARM_UP, WARM_UP + case.steps):
            began = time.perf_counter()
            outcome = trainer.step(step)
            _synchronize()
            seconds.append(time.perf_counter() - began)
            tokens += outcome.tokens
        supervised = float(packed.supervised.sum()) / (len(packed) * packed.sequence_length)
        memory = layout.plan_memory(
            train,
            Shape.of(model),
            scale(),
            chosen.placement,
            packed.sequence_length,
            1,
            chosen.micro_batch,
            supervised,
        )
        return {
            **_figures(case, model, mode, tokens, seconds),
            "attention": trainer.model.config._attn_implementation,
            "micro_batch": chosen.micro_batch,
            "loss": outcome.losses.mean,
            "load_s": round(loading, 1),
            "planned_gib": round(memory.total / 2**30, 2),
        }


def measure_hf(case: Case, mode: str) -> dict[str, Any]:
    """The plain HF Trainer, on padded batches of about as many tokens."""
    from transformers import (
        DataCollatorForSeq2Seq,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    from bayling.train import adapters

    model, chosen = plan(case, mode)
    train, tokens = case.train(mode), chat(model.vocab_size)
    tokens.tokenizer.pad_token = tokens.tokenizer.eos_token
    with torch.device(device()):
        # Trained weights in fp32, as the HF Trainer's mixed precision wants them.
        made = network.build(model, tokens.tokenizer, SEED, tokens.stop_ids)
    if mode == "lora":
        made.to(torch.bfloat16)
        adapters.insert(made, train.lora)
    encoded = conversations(case, 64 if case.smoke else 2000)
    rows = [
        {
            "input_ids": row.ids,
            "labels": [
                token if wanted else network.IGNORED
                for token, wanted in zip(row.ids, row.supervised, strict=True)
            ],
        }
        for row in encoded
    ]
    mean = sum(len(row.ids) for row in encoded) / len(encoded)
    wanted = case.global_batch * case.sequence_length / mean  # conversations in a step
    micro = max(1, round(wanted / chosen.micro_steps))
    seconds: list[float] = []
    counted: list[int] = []
    seen = 0

    def count(module: Any, positional: Any, named: dict[str, Any]) -> None:
        nonlocal seen
        seen += int(named["attention_mask"].sum())

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            nonlocal seen
            seen = 0
            if len(seconds) == WARM_UP:
                _reset()
            _synchronize()
            self.began = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            _synchronize()
            seconds.append(time.perf_counter() - self.began)
            counted.append(seen)

    made.register_forward_pre_hook(count, with_kwargs=True)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=chosen.micro_steps,
            max_steps=WARM_UP + case.steps,
            learning_rate=train.learning_rate,
            bf16=True,
            gradient_checkpointing=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=device().type == "cpu",
        )
        Trainer(
            made,
            args=arguments,
            train_dataset=rows,
            data_collator=DataCollatorForSeq2Seq(tokens.tokenizer),
            callbacks=[Clock()],
        ).train()
    return {
        **_figures(case, model, mode, sum(counted[WARM_UP:]), seconds[WARM_UP:]),
        "attention": made.config._attn_implementation,
        "micro_batch": micro,
    }


def _figures(
    case: Case, model: ModelConfig, mode: str, tokens: int, seconds: list[float]
) -> dict[str, Any]:
    shape = Shape.of(model)
    frozen = shape.parameters if mode == "lora" else 0
    each = flops.per_token(
        shape.parameters, shape.layers, shape.attention, case.sequence_length, frozen
    )
    speed = tokens / sum(seconds)
    peak = flops.peak(device(), torch.bfloat16)
    return {
        "layers": model.layers,
        "parameters": shape.parameters,
        "tokens_per_second": round(speed, 1),
        "step_s": round(float(np.median(seconds)), 4),
        "mfu": round(speed * each / peak, 4) if peak else None,
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2)
        if torch.cuda.is_available()
        else None,
    }


def measure_attention(case: Case) -> dict[str, Any]:
    """How far `packed` and a dense mask in bf16 are from a dense mask in fp32, relative to it.

    Outputs of a network of two layers on packed sequences, and gradients of all its weights.
    """
    sizes = replace(case.model, layers=2, vocab_size=1024)
    format_ = chat(sizes.vocab_size)
    with tempfile.TemporaryDirectory() as folder:
        packed = pack(case, Path(folder))
        batch = packed.batch(np.arange(2))
    batch = {name: tensor.to(device()) for name, tensor in batch.items()}
    batch["input_ids"] %= sizes.vocab_size
    batch["labels"] = torch.where(batch["labels"] < 0, batch["labels"], batch["input_ids"])

    def run(implementation: str, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        made = network.build(
            sizes,
            format_.tokenizer,
            SEED,
            format_.stop_ids,
            implementation=implementation,
        )
        buffers = network.exact_buffers(made)
        made.to(device=device(), dtype=dtype)
        network.restore_buffers(made, buffers)
        module = network.PackedLoss(made)
        outputs: list[torch.Tensor] = []
        made.base_model.norm.register_forward_hook(lambda *call: outputs.append(call[2]))
        loss = module(**batch)
        loss.backward()
        gradients = [p.grad.float().flatten() for p in made.parameters() if p.grad is not None]
        return outputs[0].detach().float(), torch.cat(gradients)

    exact = run("eager", torch.float32)
    result: dict[str, Any] = {}
    for name in (attention.PACKED, "eager"):
        got = run(name, torch.bfloat16)
        result[name] = [float((a - b).norm() / b.norm()) for a, b in zip(got, exact, strict=True)]
        del got
        gc.collect()
    ours, dense = result[attention.PACKED], result["eager"]
    result["equal"] = all(a <= 1.5 * b + 1e-3 for a, b in zip(ours, dense, strict=True))
    result["chosen"] = attention.choose(device(), torch.bfloat16, case.sequence_length)
    return result


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _reset() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _measure(what: str, case: Case) -> dict[str, Any]:
    """In a process of its own: one of `attention`, `bayling full`, `hf lora`, …"""
    import torch.distributed as dist

    if what == "attention":
        return measure_attention(case)
    trainer, mode = what.split()
    if trainer == "hf":
        return measure_hf(case, mode)
    kind = Device.cuda if torch.cuda.is_available() else Device.cpu
    setup.prepare_process(kind, torch.get_num_threads())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ |= {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    dist.init_process_group("nccl" if kind is Device.cuda else "gloo", rank=0, world_size=1)
    try:
        return measure_bayling(case, mode)
    finally:
        dist.destroy_process_group()


def in_a_process(what: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """What `_measure` returns, or `{"failed": the last line of its output}`."""
    command = [sys.executable, __file__, "--measure", what, "--steps", str(arguments.steps)]
    command += ["--smoke"] if arguments.smoke else []
    command += ["--layers", str(arguments.layers)] if arguments.layers else []
    with tempfile.NamedTemporaryFile() as file:
        done = subprocess.run(
            [*command, "--json", file.name], stderr=subprocess.PIPE, stdout=sys.stderr, text=True
        )
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            print("\n".join(lines[-15:]), file=sys.stderr)
            return {"failed": lines[-1] if lines else f"exit code {done.returncode}"}
        return dict(json.loads(Path(file.name).read_text("utf-8")))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--layers", type=int, metavar="N", help="instead of as many as fit")
    parser.add_argument("--steps", type=int, default=10, metavar="N", help="that are timed (10)")
    parser.add_argument("--smoke", action="store_true", help="a tiny network, to try the script")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    case = Case(arguments.smoke, arguments.layers, arguments.steps)
    if arguments.measure:
        arguments.json.write_text(json.dumps(_measure(arguments.measure, case)), "utf-8")
        return
    if not (arguments.smoke or torch.cuda.is_available()):
        parser.error("there is no GPU here; --smoke tries the script on a CPU")

    compared = in_a_process("attention", arguments)
    print(f"attention: {compared}", flush=True)
    figures: dict[str, Any] = {"attention": compared}
    ratios: dict[str, float] = {}
    for mode in MODES:
        for trainer in TRAINERS:
            found = in_a_process(f"{trainer} {mode}", arguments)
            figures[f"{trainer}_{mode}"] = found
            print(f"{trainer:8} {mode:5} {found}", flush=True)
        ours, theirs = (figures[f"{trainer}_{mode}"] for trainer in TRAINERS)
        if "failed" not in ours and "failed" not in theirs:
            ratio = ours["tokens_per_second"] / theirs["tokens_per_second"]
            ratios[f"{mode}_over_hf"] = round(ratio, 3)
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.2f}")
    if arguments.json:
        name = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
        versions = {p: importlib.metadata.version(p) for p in ("torch", "transformers")}
        versions["deepspeed"] = importlib.metadata.version("deepspeed")
        result = {
            "ratios": ratios,
            "figures": figures,
            "machine": {"platform": platform.platform(), "cpus": os.cpu_count(), "gpu": name},
            "versions": versions,
        }
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    # The HF Trainer may run out of memory where the platform's trainer does not: a figure too.
    own = [figures[f"bayling_{mode}"] for mode in MODES]
    if compared.get("equal") is not True or any("failed" in found for found in own):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
