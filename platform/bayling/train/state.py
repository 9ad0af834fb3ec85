"""The training state as named pieces that do not depend on the number of workers.

Whatever the ZeRO stage, a worker holds, of some of the parameters, a contiguous piece: fp32
weights and Adam's two moments. This module lists a worker's pieces and fills them again, so that
a checkpoint is a set of named pieces, and any number of workers can be given theirs. DeepSpeed's
own checkpoints load at the world size they were written with, and are converted by a program of
their own otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

WEIGHT, MOMENTS = "weight", ("exp_avg", "exp_avg_sq")
KEYS = (WEIGHT, *MOMENTS)

Read = Callable[[str, str, int, int], torch.Tensor]
"""Name, key, start and stop within the flattened parameter → that piece of it, 1-d, fp32."""


@dataclass(frozen=True)
class Piece:
    """What this worker holds of one parameter."""

    name: str
    start: int
    """Its place in the flattened parameter."""
    tensors: dict[str, torch.Tensor]
    """`KEYS` → 1-d tensors of one length, the optimizer's own memory. What lies on a disk is in
    memory only until the next piece is asked for."""

    @property
    def stop(self) -> int:
        return self.start + self.tensors[WEIGHT].numel()


def pieces(engine: Any) -> Iterator[Piece]:
    """This worker's pieces of all trained parameters.

    Together those of all workers cover every parameter exactly once. To be called between
    optimizer steps, after the first.
    """
    stage = engine.zero_optimization_stage()
    if stage == 3:
        yield from _partitioned(engine)
    elif stage:
        yield from _flattened(engine)
    else:
        yield from _replicated(engine)


def restore(engine: Any, read: Read, step: int) -> None:
    """Fill this worker's pieces of a fresh engine and tell the optimizer how many steps it took.

    Every worker must call it: the weights that the network computes with are gathered again.
    """
    stage = engine.zero_optimization_stage()
    if stage < 3:
        _make_moments(engine, step)
    if stage == 3:
        _restore_partitioned(engine, read, step)
    elif stage:
        for piece in _flattened(engine):
            _fill(piece, read)
        engine.optimizer.update_lp_params()
    else:
        _restore_replicated(engine, read)
    engine.global_steps = step


def start(engine: Any) -> None:
    """Undo the step that DeepSpeed takes to make the optimizer's state, where it takes one.

    Adam's first steps depend on how many there were.
    """
    if not engine.zero_optimization_stage():
        _make_moments(engine, 0)


def shapes(engine: Any) -> dict[str, list[int]]:
    """The whole shape of every trained parameter, by name."""
    return {
        name: list(getattr(parameter, "ds_shape", parameter.shape))
        for name, parameter in engine.module.model.named_parameters()
        if parameter.requires_grad
    }


def whole_weights(engine: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and value of every parameter, whole and on the CPU. Every worker must go through all."""
    import deepspeed

    partitioned = engine.zero_optimization_stage() == 3
    for name, parameter in engine.module.model.named_parameters():
        with deepspeed.zero.GatheredParameters([parameter], enabled=partitioned):
            yield name, parameter.detach().to("cpu", copy=True)


def _fill(piece: Piece, read: Read) -> None:
    for key, tensor in piece.tensors.items():
        tensor.data.copy_(read(piece.name, key, piece.start, piece.stop))


def _trained(engine: Any) -> Iterator[tuple[str, Any]]:
    for name, parameter in engine.module.model.named_parameters():
        if parameter.requires_grad:
            yield name, parameter


def _flattened(engine: Any) -> Iterator[Piece]:
    """ZeRO 1 and 2: each parameter group is one flat tensor, cut evenly among the workers."""
    for name, parameter in _trained(engine):
        mapping: Any = parameter._hp_mapping
        if mapping is None:  # another worker's
            continue
        place = mapping.get_hp_fragment_address()
        flat = engine.optimizer.single_partition_of_fp32_groups[mapping.param_group_index]
        # Not through the mapping: DeepSpeed links the moments of the first group only.
        whole = {
            WEIGHT: flat,
            **{key: engine.optimizer.optimizer.state[flat][key] for key in MOMENTS},
        }
        tensors = {key: t.narrow(0, place.start, place.numel) for key, t in whole.items()}
        yield Piece(name, mapping.lp_fragment_address.start, tensors)


def _partitioned(engine: Any) -> Iterator[Piece]:
    """ZeRO 3: each parameter is cut evenly among the workers, the last piece padded."""
    zero = engine.optimizer
    states = _optimizer(engine).state
    names = {id(parameter): name for name, parameter in _trained(engine)}
    for group in range(len(zero.fp16_groups)):
        with _at_hand(zero, group, changed=False):
            flat = zero.fp32_partitioned_groups_flat[group]
            whole = {WEIGHT: flat, **{key: states[flat][key] for key in MOMENTS}}
            for parameter, place, start, length in _parts(zero, group):
                if length > 0:
                    tensors = {key: t.narrow(0, place, length) for key, t in whole.items()}
                    yield Piece(names[id(parameter)], start, tensors)


def _restore_partitioned(engine: Any, read: Read, step: int) -> None:
    """Group by group, as DeepSpeed's own step goes over them."""
    zero, optimizer = engine.optimizer, _optimizer(engine)
    names = {id(parameter): name for name, parameter in _trained(engine)}
    for group in range(len(zero.fp16_groups)):
        with _at_hand(zero, group, changed=True):
            flat = zero.fp32_partitioned_groups_flat[group]
            _make_state(optimizer, flat, step)
            whole = {WEIGHT: flat.data, **{key: optimizer.state[flat][key] for key in MOMENTS}}
            for parameter, place, start, length in _parts(zero, group):
                for key, tensor in whole.items():
                    own = tensor.narrow(0, place, parameter.ds_tensor.ds_numel)
                    own.zero_()
                    if length > 0:
                        piece = read(names[id(parameter)], key, start, start + length)
                        own[:length].copy_(piece)
            # The half-precision parts that the network is gathered from.
            zero._reassign_or_swap_out_partitioned_parameters(group)


def _parts(zero: Any, group: int) -> Iterator[tuple[Any, int, int, int]]:
    """A group's parameters: each with the place of its part in the group's flat tensor, and the
    part's own start and length in the flattened parameter. No length: all of it is padding."""
    place, rank = 0, torch.distributed.get_rank()
    for parameter in zero.fp16_groups[group]:
        size = parameter.ds_tensor.ds_numel
        start = size * rank
        yield parameter, place, start, min(size, parameter.ds_numel - start)
        place += size


@contextmanager
def _at_hand(zero: Any, group: int, *, changed: bool) -> Iterator[None]:
    """Have a group in memory that DeepSpeed may keep on a disk, and put it back."""
    on_disk = zero._swappable_optimizer_subgroup(group)
    if on_disk:
        zero._optimizer_states_and_gradient_swap_in(group)
    yield
    if on_disk and changed:
        zero._optimizer_states_and_gradient_swap_out(group)
    elif on_disk:
        zero._release_swap_buffers(group)


def _replicated(engine: Any) -> Iterator[Piece]:
    """ZeRO 0: every worker holds everything; parameters are dealt out in turn."""
    rank, workers = torch.distributed.get_rank(), torch.distributed.get_world_size()
    states = _optimizer(engine).state
    for index, (name, master, _) in enumerate(_masters(engine)):
        if index % workers == rank:
            tensors = {WEIGHT: master.data.view(-1)}
            tensors |= {key: states[master][key].view(-1) for key in MOMENTS}
            yield Piece(name, 0, tensors)


def _restore_replicated(engine: Any, read: Read) -> None:
    states = _optimizer(engine).state
    for name, master, parameter in _masters(engine):
        tensors = {WEIGHT: master.data.view(-1)}
        tensors |= {key: states[master][key].view(-1) for key in MOMENTS}
        _fill(Piece(name, 0, tensors), read)
        parameter.data.copy_(master.data)


def _masters(engine: Any) -> Iterator[tuple[str, torch.Tensor, torch.nn.Parameter]]:
    """Under ZeRO 0: name, fp32 weights (in fp32 training the parameter itself), parameter."""
    of: dict[int, torch.Tensor] = {}
    half = getattr(engine.optimizer, "fp16_groups", None)
    if half is not None:
        for group, masters in zip(half, engine.optimizer.fp32_groups, strict=True):
            of |= {id(p): master for p, master in zip(group, masters, strict=True)}
    for name, parameter in _trained(engine):
        yield name, of.get(id(parameter), parameter), parameter


def _optimizer(engine: Any) -> torch.optim.Optimizer:
    """Torch's optimizer below DeepSpeed's wrappers."""
    inner = getattr(engine.optimizer, "optimizer", engine.optimizer)
    assert isinstance(inner, torch.optim.Optimizer)
    return inner


def _make_moments(engine: Any, step: int) -> None:
    """The optimizer's state as it is after `step` steps, moments still zero: below ZeRO-3.

    DeepSpeed leaves it to the first step to make it.
    """
    if engine.zero_optimization_stage():
        flat = list(engine.optimizer.single_partition_of_fp32_groups)
    else:
        flat = [master for _, master, _ in _masters(engine)]
    for part in flat:
        _make_state(_optimizer(engine), part, step)


def _make_state(optimizer: torch.optim.Optimizer, part: torch.Tensor, step: int) -> None:
    state = optimizer.state[part]
    if isinstance(optimizer, torch.optim.AdamW):
        # As it makes it itself: a fused step counts on the device.
        fused = any(group.get("fused") for group in optimizer.param_groups)
        place = part.device if fused else torch.device("cpu")
        state["step"] = torch.tensor(float(step), device=place)
    else:
        state["step"] = step
    for key in MOMENTS:
        if key in state and state[key].shape == part.shape:
            state[key].zero_()  # DeepSpeed may have it on a disk, under this very tensor
        else:
            state[key] = torch.zeros_like(part, memory_format=torch.preserve_format)
