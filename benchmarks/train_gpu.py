"""Training on one GPU: tokens a second, MFU and memory, beside the plain HF Trainer.

    python benchmarks/train_gpu.py [--json FILE] [--layers N] [--steps N] [--smoke]

The platform's own trainer (model, batches and step of bayling.train.trainer; one process, no Ray)
on a LLaMA with the sizes of Llama-3-8B from random weights, all weights and adapters (LoRA). It
has as many layers as the plan finds room for, or `--layers`. Data: synthetic conversations of
realistic lengths, packed to 2,048 tokens. The HF Trainer gets the same conversations in its
default padded batches, as large as fit: fp32 weights under bf16 autocast for all weights, bf16 ones
below adapters. Before that, `packed` attention is compared with a dense mask: outputs and
gradients.

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
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gpu_case import (
    SEED,
    WARM_UP,
    Case,
    chat,
    conversations,
    device,
    figures,
    plan,
    reset,
    scale,
    synchronize,
)

from bayling.data import packing
from bayling.scale import Device
from bayling.shape import Shape
from bayling.train import attention, layout, network, setup

if TYPE_CHECKING:
    from bayling.train.batches import PackedTokens

MODES = ("full", "lora")
TRAINERS = ("bayling", "hf")


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
        reset()
        tokens, seconds = 0, []
        for step in range(WARM_UP, WARM_UP + case.steps):
            began = time.perf_counter()
            outcome = trainer.step(step)
            synchronize()
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
            **figures(case, model, mode, tokens, seconds),
            "attention": trainer.model.config._attn_implementation,
            "micro_batch": chosen.micro_batch,
            "loss": outcome.losses.mean,
            "load_s": round(loading, 1),
            "planned_gib": round(memory.total / 2**30, 2),
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


def _measure(what: str, case: Case) -> dict[str, Any]:
    """In a process of its own: one of `attention`, `bayling full`, `hf lora`, …"""
    import torch.distributed as dist

    if what == "attention":
        return measure_attention(case)
    trainer, mode = what.split()
    if trainer == "hf":
        import usual_trainer

        return usual_trainer.measure(case, mode)
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
    # The trainer's workers have it from Ray Train; the HF Trainer is to have no less.
    kind = Device.cuda if torch.cuda.is_available() else Device.cpu
    environment = os.environ | setup.environment(kind)
    with tempfile.NamedTemporaryFile() as file:
        done = subprocess.run(
            [*command, "--json", file.name],
            stderr=subprocess.PIPE,
            stdout=sys.stderr,
            text=True,
            env=environment,
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
    found: dict[str, Any] = {"attention": compared}
    ratios: dict[str, float] = {}
    for mode in MODES:
        for trainer in TRAINERS:
            one = in_a_process(f"{trainer} {mode}", arguments)
            found[f"{trainer}_{mode}"] = one
            print(f"{trainer:8} {mode:5} {one}", flush=True)
        ours, theirs = (found[f"{trainer}_{mode}"] for trainer in TRAINERS)
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
            "figures": found,
            "machine": {"platform": platform.platform(), "cpus": os.cpu_count(), "gpu": name},
            "versions": versions,
        }
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    own = [found[f"bayling_{mode}"] for mode in MODES]
    if compared.get("equal") is not True or any("failed" in one for one in own):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
