"""How near `bayling plan` comes to the memory that training really takes.

    python benchmarks/plan.py [--json FILE] [--only SUBSTRING] [--keep-freed]

Each layout trains two steps in fresh processes, with a checkpoint between them: the trainer's own
network, loss, parameter groups, DeepSpeed configuration and writer, without Ray. On a CPU a
worker's peak is VmHWM of /proc/self/status (the most that was ever resident) less what was resident
after the imports; on a GPU it is `torch.cuda.max_memory_allocated`. Prints planned/measured for
each, and whether all lie within 15 %.

A plan counts tensors. So glibc is told to give freed blocks back (bayling.train.allocator), which
it does not by default; with --keep-freed it is left as it is.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bayling.model import ModelConfig
from bayling.scale import Device
from bayling.shape import Shape
from bayling.train import allocator, memory
from bayling.train.config import LoraConfig, Offload, Precision, TrainConfig

LONGEST = 2048
VOCAB = 16384
SUPERVISED = 0.5


@dataclass(frozen=True)
class Case:
    """One layout to measure."""

    stage: int
    precision: str = "bf16"
    workers: int = 1
    lora: int = 0
    checkpointing: bool = False
    micro_batch: int = 4
    micro_steps: int = 2
    dropout: float = 0.0
    length: int = 256
    stored: bool = False
    """The weights are read from a folder instead of drawn."""

    @property
    def name(self) -> str:
        parts = [f"zero-{self.stage}", self.precision, f"{self.workers} worker(s)"]
        parts += [f"lora {self.lora}"] if self.lora else []
        parts += ["dropout"] if self.dropout else []
        parts += ["checkpointing"] if self.checkpointing else []
        parts += ["from a folder"] if self.stored else []
        return " · ".join(
            [*parts, f"{self.length} tokens", f"micro {self.micro_batch}×{self.micro_steps}"]
        )

    @property
    def train(self) -> TrainConfig:
        return TrainConfig(
            global_batch=self.micro_batch * self.micro_steps * self.workers,
            micro_batch=self.micro_batch,
            precision=Precision(self.precision),
            zero_stage=self.stage,
            lora=LoraConfig(rank=self.lora, dropout=self.dropout),
            gradient_checkpointing=self.checkpointing,
        )


MODEL = ModelConfig(
    context_length=LONGEST,
    vocab_size=VOCAB,
    hidden_size=768,
    intermediate_size=2048,
    layers=9,
    heads=12,
    kv_heads=12,
    tie_embeddings=False,
)
CASES = (
    Case(0),
    Case(0, "fp32"),
    Case(1),
    Case(2),
    Case(2, micro_batch=1, micro_steps=1),
    Case(2, micro_batch=16, micro_steps=1),
    Case(2, "fp32"),
    Case(2, checkpointing=True, micro_batch=16),
    Case(2, lora=16),
    Case(2, lora=16, dropout=0.05, micro_batch=16, micro_steps=1),
    Case(2, lora=16, micro_batch=16, micro_steps=1, checkpointing=True),
    Case(3),
    Case(3, "fp32"),
    Case(0, workers=2),
    Case(1, workers=2),
    Case(2, workers=2),
    Case(2, "fp32", workers=2),
    Case(2, workers=2, checkpointing=True, micro_batch=8),
    Case(3, workers=2),
    Case(3, "fp32", workers=2),
    Case(3, workers=2, micro_batch=8, checkpointing=True),
    Case(2, length=1024, micro_batch=2),
    Case(2, length=2048, micro_batch=1),
    Case(2, length=2048, micro_batch=1, checkpointing=True),
    Case(2, stored=True),
    Case(2, lora=16, stored=True),
    Case(3, workers=2, stored=True),
    Case(3, lora=16, workers=2, stored=True),
)
GOAL = 0.15


def planned(case: Case, device: Device) -> memory.Memory:
    """What the plan says of `case`, without the process itself."""
    placement = memory.Placement(case.stage)
    batch = memory.Batch(case.micro_batch, case.length, case.micro_steps, SUPERVISED)
    shape = replace(Shape.of(MODEL), stored=case.stored)
    return memory.estimate(case.train, shape, placement, batch, case.workers, device)


def save(folder: Path) -> None:
    """Write random weights of the network to a folder, as a base has them."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=MODEL.hidden_size,
        intermediate_size=MODEL.intermediate_size,
        num_hidden_layers=MODEL.layers,
        num_attention_heads=MODEL.heads,
        max_position_embeddings=LONGEST,
    )
    LlamaForCausalLM(shape).to(torch.bfloat16).save_pretrained(folder, max_shard_size="50MB")


def measure(case: Case, give_back: bool = True) -> int:
    """The peak of the worker that takes most, in bytes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        if case.stored:
            save(Path(folder) / "base")
        workers = [
            subprocess.Popen(
                [
                    sys.executable,
                    __file__,
                    "--worker",
                    json.dumps(asdict(case)),
                    folder,
                    "give back" if give_back else "",
                ],
                env={
                    **os.environ,
                    "RANK": str(rank),
                    "LOCAL_RANK": str(rank),
                    "WORLD_SIZE": str(case.workers),
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": str(port),
                    "TORCHDYNAMO_DISABLE": "1",
                    **({} if _gpu() else {"DS_ACCELERATOR": "cpu"}),
                },
                stdout=subprocess.DEVNULL,
                stderr=(Path(folder) / f"log-{rank}").open("w"),
            )
            for rank in range(case.workers)
        ]
        for rank, worker in enumerate(workers):
            if worker.wait(600):
                raise SystemExit(f"{case.name}:\n" + (Path(folder) / f"log-{rank}").read_text())
        return max(int(path.read_text()) for path in Path(folder).glob("peak-*"))


def _worker(case: Case, folder: Path, give_back: bool) -> None:
    """Two optimizer steps and a checkpoint, as `train.loop` does them; writes the peak."""
    import deepspeed
    import torch
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    from bayling.train import adapters, attention, layout, network, setup, state
    from bayling.train.batches import micro_steps
    from bayling.train.checkpoint import Progress
    from bayling.train.trainer import tell_transformers
    from bayling.train.writer import Writer

    rank, train = int(os.environ["RANK"]), case.train
    if give_back:
        allocator.give_back(128 * 1024)
    gpu = torch.cuda.is_available()
    device = torch.device("cuda", rank) if gpu else torch.device("cpu")
    torch.set_num_threads(1)
    deepspeed.init_distributed("nccl" if gpu else "gloo")
    torch.ones(8, 8) @ torch.ones(8, 8)
    before = _resident()

    vocabulary = {f"<{number}>": number for number in range(VOCAB)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, "<0>")), eos_token="<1>"
    )
    dtype = setup.DTYPES[train.precision]
    kind = Device.cuda if gpu else Device.cpu
    none = Offload.none
    chosen = layout.Layout(case.stage, none, none, case.micro_batch, case.micro_steps, ())
    keep = tell_transformers(train, chosen, kind) if case.stored else None
    model = network.build(
        replace(MODEL, base=str(folder / "base")) if case.stored else MODEL,
        tokenizer,
        1,
        [1],
        dtype=dtype,
        implementation=attention.choose(device, dtype, case.length),
        device=device,
    )
    if case.lora:
        adapters.insert(model, train.lora)
    engine = setup.engine(train, network.PackedLoss(model), chosen, kind)
    del keep
    state.start(engine)
    shape = (case.micro_batch, case.length)
    writer = Writer(folder, rank=rank, workers=case.workers, attempt="a", newest=1, best=0)
    for number in range(2):
        for _ in range(micro_steps(train.global_batch, case.micro_batch, case.workers)):
            ids = torch.randint(VOCAB, shape)
            labels = ids.clone()
            labels[:, : int(case.length * (1 - SUPERVISED))] = network.IGNORED
            # Two conversations a sequence, so that the mask is block-diagonal.
            positions = torch.arange(case.length // 2).repeat(2).expand(shape)
            batch = {"input_ids": ids, "labels": labels, "position_ids": positions}
            loss = engine(**{name: tensor.to(device) for name, tensor in batch.items()})
            engine.backward(loss / labels.numel())
            engine.step()
        if number == 0:
            shapes = state.shapes(engine)
            writer.save(state.pieces(engine), Progress(1, case.workers, "plan", shapes))
            writer.wait()
    peak = torch.cuda.max_memory_allocated() if gpu else _resident("VmHWM") - before
    (folder / f"peak-{rank}").write_text(str(peak))
    torch.distributed.destroy_process_group()


def _resident(field: str = "VmRSS") -> int:
    """A field of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"/proc/self/status has no {field}: this needs Linux")


def _gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--only", default="", metavar="TEXT", help="layouts whose name has it")
    parser.add_argument(
        "--keep-freed",
        action="store_true",
        help="let glibc keep freed blocks, as it does by default: half as much again and more",
    )
    arguments = parser.parse_args()
    device = Device.cuda if _gpu() else Device.cpu
    ratios, figures = {}, {}
    print(f"{Shape.of(MODEL).parameters:,} parameters")
    for case in CASES:
        if arguments.only not in case.name:
            continue
        plan, measured = planned(case, device), measure(case, not arguments.keep_freed)
        ratios[case.name] = round((plan.total - plan.process) / measured, 3)
        figures[case.name] = {"measured": measured, **asdict(plan)}
        print(
            f"{ratios[case.name]:6.2f}  {case.name:50}  "
            f"planned {(plan.total - plan.process) / 2**20:6.0f} MiB ({plan.phase}), "
            f"measured {measured / 2**20:6.0f} MiB",
            flush=True,
        )
    if ratios:
        far = [name for name, ratio in ratios.items() if abs(ratio - 1) > GOAL]
        print(
            f"planned/measured from {min(ratios.values()):.2f} to {max(ratios.values()):.2f} over "
            f"{len(ratios)} layouts; within {GOAL:.0%}: "
            + ("all" if not far else "all but " + "; ".join(far))
        )
    if arguments.json:
        names = ("torch", "deepspeed", "transformers")
        result = {
            "ratios": ratios,
            "figures": figures,
            "machine": {"platform": platform.platform(), "cpus": os.cpu_count()},
            "versions": {name: importlib.metadata.version(name) for name in names},
        }
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        _worker(Case(**json.loads(sys.argv[2])), Path(sys.argv[3]), bool(sys.argv[4]))
    else:
        main()
