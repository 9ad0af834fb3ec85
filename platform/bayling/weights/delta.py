"""Weight deltas: a model as its difference to a base, tensor by tensor.

BayLing v1.0 was released so, because LLaMA's licence let nobody pass its weights on. The form is
that of the published tools (github.com/lm-sys/FastChat, github.com/ictnlp/BayLing): the base is
brought to the delta's dtype and the two are added in it. Embedding and head may have more rows
than the base's, for tokens that were added; those rows stand for themselves.

Floating-point subtraction loses digits where a weight is much smaller than the base's: there
base + delta is not quite the model. A delta made here keeps the form and the size, and says for
those few weights what they are, in `exact*.safetensors`; so the model comes back bit for bit, and
tools that do not know of that file get it as nearly as from any other delta. Storing the
difference in fp32 instead would double its size and, for bf16, still not be exact. `delta.json`
holds the hash of every tensor of base and model, so that a wrong base is refused.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import torch

from bayling import __version__
from bayling.errors import StageFailed, UserError
from bayling.stage import Report, write_json
from bayling.weights import folder as folders
from bayling.weights.convert import copy_beside, made
from bayling.weights.tensors import EMBEDDING, HEAD, SHARD_BYTES, ShardWriter, Weights
from bayling.weights.tokenizer import FAST, vocabulary, write_fast

RECORD = "delta.json"
EXACT = "exact"
SCHEMA_VERSION = 1
_DTYPES = {
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
    torch.float32: torch.int32,
    torch.float64: torch.int64,
}
"""What can be added, and the integers that have the same bits."""


@dataclass
class Record:
    """What a delta made here says of itself."""

    base: dict[str, str] = field(default_factory=dict)
    """Tensor → sha256 of the base's values, in the delta's dtype."""
    model: dict[str, str] = field(default_factory=dict)
    corrected: int = 0
    """Weights that base + delta does not give, and `exact*.safetensors` does."""
    largest: float = 0.0
    """The largest difference to the model at one of them, without that file."""
    code_version: str = __version__
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True)
class Done:
    """What was made or applied."""

    tensors: int
    files: int
    bytes: int
    added_tokens: int
    """Rows of the embedding that the base does not have."""
    proven: bool
    """Whether every tensor was compared with the one the delta was made from."""
    corrected: int = 0
    largest: float = 0.0


def make(
    base: Path, model: Path, to: Path, *, shard_bytes: int = SHARD_BYTES, report: Report
) -> Done:
    """Write model - base to `to`, in the model's dtype; complete or not at all.

    Applying it to the same base gives the model's weights bit for bit, whatever the dtypes:
    where the sum would round to another value, the value itself is stored too.

    Raises:
        UserError: the two do not fit together; the sentence names the tensor or token.
    """
    was, now = _opened(base), _opened(model)
    grown = _fit(was, now)
    record = Record()
    with made(to) as aside:
        copy_beside(model, aside)
        writer = ShardWriter(aside, shard_bytes=shard_bytes)
        exact = ShardWriter(aside, EXACT, shard_bytes)
        for number, name in enumerate(now):
            report(name, number, len(now))
            target = now[name]
            start = _start(was[name], target)
            delta = target - start
            writer.add(name, delta)
            record.base[name] = _hash(start)
            record.model[name] = _hash(target)
            _correct(name, start + delta, target, exact, record)
        files = writer.finish()
        exact.finish()
        write_json(aside / RECORD, record)
    return Done(len(now), files, writer.total_bytes, grown, True, record.corrected, record.largest)


def apply(
    base: Path, delta: Path, to: Path, *, shard_bytes: int = SHARD_BYTES, report: Report
) -> Done:
    """Write base + delta to `to`, in the delta's dtype; complete or not at all.

    A delta made here gives the model it was made from bit for bit, and every tensor is compared
    with it. One from elsewhere gives what the published tools would give.

    Raises:
        UserError: the two do not fit together, or this is not the base that the delta was made
            with; the sentence names the tensor or token.
        StageFailed: the delta's files were damaged.
    """
    was, step = _opened(base), _opened(delta)
    record = _record(delta)
    grown = _fit(was, step)
    exact = Weights(delta, folders.indexed(delta, f"{EXACT}.safetensors"))
    with made(to) as aside:
        copy_beside(delta, aside)
        for path in (aside / RECORD, *aside.glob(f"{EXACT}*.safetensors*")):
            path.unlink(missing_ok=True)
        if not (delta / FAST).exists():
            write_fast(delta, aside)
        writer = ShardWriter(aside, shard_bytes=shard_bytes)
        for number, name in enumerate(step):
            report(name, number, len(step))
            change = step[name]
            start = _start(was[name], change)
            if record is not None and _hash(start) != record.base.get(name):
                raise UserError(
                    f"{delta} was made with another base than {base}: {name} differs; take the "
                    "weights and the revision that it was made with"
                )
            target = start + change
            if f"{name}.at" in exact:
                target.view(-1)[exact[f"{name}.at"].long()] = exact[f"{name}.is"]
            if record is not None and _hash(target) != record.model.get(name):
                raise StageFailed(f"{delta} is damaged: {name} does not come out; get it again")
            writer.add(name, target)
        files = writer.finish()
    return Done(len(step), files, writer.total_bytes, grown, record is not None)


def _opened(folder: Path) -> Weights:
    folders.check(folder)
    return Weights(folder)


def _fit(base: Weights, other: Weights) -> int:
    """See that names, shapes, dtypes and tokens fit; returns how many tokens were added.

    Raises:
        UserError: they do not.
    """
    for name in other:
        if name not in base:
            raise UserError(
                f"{other.folder} has a tensor {name} that {base.folder} has not: take the base "
                "that it was made from"
            )
    for name in base:
        if name not in other:
            raise UserError(
                f"{base.folder} has a tensor {name} that {other.folder} has not: take the base "
                "that it was made from"
            )
    grown = 0
    for name in other:
        before, after = base.shape(name), other.shape(name)
        if before == after:
            continue
        more = name in (EMBEDDING, HEAD) and after[0] > before[0] and after[1:] == before[1:]
        if not more:
            raise UserError(
                f"{name} is {_by(before)} in {base.folder} and {_by(after)} in {other.folder}: "
                "only embedding and head may have more rows; take the base that it was made from"
            )
        grown = after[0] - before[0]
    _fit_tokens(base, other)
    return grown


def _fit_tokens(base: Weights, other: Weights) -> None:
    """Rows mean tokens: those of the base must keep their ids, and each token have its row."""
    if EMBEDDING not in other:
        raise UserError(f"{other.folder} is no LLaMA: it has no {EMBEDDING}")
    rows = other.shape(EMBEDDING)[0]
    if HEAD in other and other.shape(HEAD)[0] != rows:
        raise UserError(
            f"{other.folder}: {EMBEDDING} has {rows} rows and {HEAD} {other.shape(HEAD)[0]}: "
            "both grow together"
        )
    size = folders.model_config(other.folder).get("vocab_size")
    if size != rows:
        raise UserError(
            f"{other.folder}: config.json says vocab_size {size}, the embedding has {rows} rows"
        )
    old, new = vocabulary(base.folder), vocabulary(other.folder)
    if max(new.values()) >= rows:
        raise UserError(
            f"{other.folder}: the tokenizer has {max(new.values()) + 1} tokens, the embedding "
            f"{rows} rows: take the tokenizer it was made with"
        )
    for token, number in old.items():
        if new.get(token) != number:
            now = f"is {new[token]}" if token in new else "is missing"
            raise UserError(
                f"token {token!r} is {number} in {base.folder} and {now} in {other.folder}: their "
                "rows do not mean the same, take the base that it was made from"
            )


def _start(base: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The base in the other's dtype, with rows of zeros for tokens that it has not."""
    if like.dtype not in _DTYPES or not base.dtype.is_floating_point:
        raise UserError(
            f"weights of type {str(like.dtype if like.dtype not in _DTYPES else base.dtype)[6:]} "
            "cannot be added: take those that were not quantised"
        )
    start = base.to(like.dtype)
    if start.shape == like.shape:
        return start
    padded = torch.zeros_like(like, memory_format=torch.contiguous_format)
    padded[: start.shape[0]] = start
    return padded


def _correct(
    name: str, total: torch.Tensor, target: torch.Tensor, exact: ShardWriter, record: Record
) -> None:
    """Store the weights that the sum does not give."""
    bits = _DTYPES[target.dtype]
    wanted = target.contiguous().view(-1)
    given = total.contiguous().view(-1)
    [at] = torch.nonzero(given.view(bits) != wanted.view(bits), as_tuple=True)
    if not len(at):
        return
    narrow = at.to(torch.int32) if wanted.numel() < 2**31 else at
    exact.add(f"{name}.at", narrow)
    exact.add(f"{name}.is", wanted[at])
    record.corrected += len(at)
    apart = (given[at].double() - wanted[at].double()).abs().max().item()
    record.largest = max(record.largest, apart)


def _hash(tensor: torch.Tensor) -> str:
    flat = tensor.contiguous().view(-1).view(_DTYPES[tensor.dtype])
    return hashlib.sha256(flat.numpy().data).hexdigest()


def _record(delta: Path) -> Record | None:
    path = delta / RECORD
    if not path.exists():
        return None
    try:
        record = Record(**json.loads(path.read_text("utf-8")))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}): get the delta again") from None
    if record.schema_version != SCHEMA_VERSION:
        raise UserError(
            f"{path} has schema version {record.schema_version}, this code reads "
            f"{SCHEMA_VERSION}: make the delta again"
        )
    return record


def _by(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "a single number"
