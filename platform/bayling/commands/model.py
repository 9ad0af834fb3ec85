"""`bayling model fetch|convert|delta`: bring base weights in."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayling.errors import UserError

if TYPE_CHECKING:
    from bayling.stage import Report

_EPILOG = """examples:
  bayling model fetch recipe=bayling-7b           what the recipe names, to where it wants it
  bayling model fetch hf://huggyllama/llama-7b --to models/llama-7b
  bayling model fetch s3://weights/llama-7b --to models/llama-7b
  bayling model fetch --verify recipe=bayling-7b  read every file and compare its sha256
  bayling model convert old/llama-7b models/llama-7b
  bayling model delta apply --base models/llama-7b --delta bayling-7b-diff --to models/bayling-7b

environment: HF_TOKEN or HF_TOKEN_PATH (a mounted Secret) for gated repositories, HF_HUB_OFFLINE=1
to use the client's cache only, HF_ENDPOINT for a mirror, AWS_ENDPOINT_URL for a bucket elsewhere
"""
_OVERRIDES = "Hydra overrides that name a model: recipe=bayling-7b, model=llama-2-7b-chat, …"


def register(commands: Any) -> None:
    """Add the noun `model` to the command's parsers."""
    text = "base weights: fetch them, convert them, put them together"
    noun = commands.add_parser(
        "model",
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = noun.add_subparsers(dest="verb", required=True, metavar="VERB")

    fetch = _verb(verbs, "fetch", "bring weights from a hub, a bucket or a folder", _fetch)
    fetch.add_argument(
        "what",
        nargs="*",
        metavar="SOURCE | KEY=VALUE",
        help=f"hf://OWNER/NAME, s3://…, gs://… or a folder, with --to; or {_OVERRIDES}",
    )
    fetch.add_argument("--to", metavar="FOLDER", help="where a SOURCE is to lie")
    fetch.add_argument("--revision", metavar="REV", help="the commit of a hub's repository")
    fetch.add_argument(
        "--verify",
        action="store_true",
        help="only compare what lies there with its record, byte by byte",
    )

    convert = _verb(
        verbs, "convert", "make safetensors and tokenizer.json from older forms", _convert
    )
    convert.add_argument(
        "folder", type=_path, metavar="FOLDER", help="pytorch_model*.bin and so on"
    )
    convert.add_argument("target", type=_path, metavar="TARGET", help="the new folder")
    _shard_size(convert)

    export = _verb(verbs, "export", "the model of any checkpoint of a training", _export)
    export.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="those of the training")
    export.add_argument("--step", type=int, metavar="N", help="default: the newest there is")
    export.add_argument("--to", type=_path, required=True, metavar="FOLDER")

    text = "a model as its difference to a base"
    delta = verbs.add_parser("delta", help=text, description=text[0].upper() + text[1:] + ".")
    ways = delta.add_subparsers(dest="way", required=True, metavar="apply|make")
    apply = _verb(ways, "apply", "base + delta: the model", _apply)
    make = _verb(ways, "make", "model - base: a delta that gives the model back", _make)
    for parser in (apply, make):
        parser.add_argument("--base", type=_path, required=True, metavar="FOLDER")
    apply.add_argument("--delta", type=_path, required=True, metavar="FOLDER")
    make.add_argument("--model", type=_path, required=True, metavar="FOLDER")
    for parser in (apply, make):
        parser.add_argument("--to", type=_path, required=True, metavar="FOLDER")
        _shard_size(parser)


def _verb(verbs: Any, name: str, text: str, work: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        name, help=text, description=text[0].upper() + text[1:] + "."
    )
    parser.set_defaults(work=work)
    return parser


def _path(text: str) -> Path:
    return Path(text).expanduser().resolve()


def _shard_size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--shard-gb",
        type=float,
        default=2.0,
        metavar="GB",
        help="size of a file, which is also about what it takes in memory; default: %(default)s",
    )


def _shard_bytes(arguments: argparse.Namespace) -> int:
    if not arguments.shard_gb > 0:
        raise UserError(f"--shard-gb {arguments.shard_gb:g} must be more than 0")
    return int(arguments.shard_gb * 1e9)


def _fetch(arguments: argparse.Namespace) -> None:
    from bayling.weights import fetch

    source, revision, to, licence = _asked(arguments)
    if arguments.verify:
        with _progress("verify") as report:
            record = fetch.verify(to, report)
        print(f"{to} is as it was fetched: {len(record.files)} files, every sha256 as recorded")
        return
    if source is None:
        raise UserError(
            "model.source is not set: name where the weights come from, hf://OWNER/NAME, a "
            "bucket or a folder"
        )
    with _progress("fetch") as report:
        record = fetch.fetch(source, revision, to, licence=licence, report=report)
    size = sum(file.size for file in record.files.values())
    print(f"{to} holds {record.source}: {len(record.files)} files, {_size(size)}")
    if record.via:
        print(f"  taken from {record.via}")
    if record.downloaded:
        print("  converted to safetensors with tokenizer.json")
    if record.asked:
        print(f"  {record.asked} was commit {record.revision}; --revision of it, or")
        print(f"  model.revision={record.revision} gives the same tomorrow")
    elif record.revision:
        print(f"  revision {record.revision}")
    print(f"  licence {record.licence or 'unknown: the source says none'}")


def _asked(arguments: argparse.Namespace) -> tuple[str | None, str | None, Path, str | None]:
    """Source, revision, folder and licence: from the options, or from a configuration."""
    if arguments.to:
        if len(arguments.what) > 1 or (not arguments.what and not arguments.verify):
            raise UserError("name one SOURCE with --to: hf://OWNER/NAME, a bucket or a folder")
        source = _address(arguments.what[0]) if arguments.what else None
        return source, arguments.revision, _path(arguments.to), None
    if len(arguments.what) == 1 and "=" not in arguments.what[0]:
        raise UserError(f"say where {arguments.what[0]} is to lie: --to FOLDER")
    if arguments.revision:
        raise UserError("--revision goes with a SOURCE: among overrides it is model.revision=REV")
    from bayling.config import compose
    from bayling.model import Licence

    model = compose(arguments.what).model
    if model.base is None:
        raise UserError(
            f"model {model.name!r} has no base weights: choose one that has, such as "
            "recipe=bayling-7b, or name a SOURCE and --to FOLDER"
        )
    licence = None if model.licence is Licence.none else model.licence.value
    return model.source, model.revision, Path(model.base), licence


def _address(text: str) -> str:
    return text if "://" in text else text.rstrip("/")


def _convert(arguments: argparse.Namespace) -> None:
    shard_bytes = _shard_bytes(arguments)
    from bayling.weights.convert import convert

    with _progress("convert") as report:
        done = convert(arguments.folder, arguments.target, shard_bytes=shard_bytes, report=report)
    print(f"{arguments.target}: {_files(done.tensors, done.files, done.bytes)}")
    if done.dropped:
        print(f"  {done.dropped} rotary_emb.inv_freq left out: they follow from the config")
    if done.tokenizer:
        print("  tokenizer.json made from tokenizer.model; gives the same ids as SentencePiece")


def _apply(arguments: argparse.Namespace) -> None:
    shard_bytes = _shard_bytes(arguments)
    from bayling.weights import delta

    with _progress("delta") as report:
        done = delta.apply(
            arguments.base, arguments.delta, arguments.to, shard_bytes=shard_bytes, report=report
        )
    print(f"{arguments.to}: {_files(done.tensors, done.files, done.bytes)}")
    if done.added_tokens:
        print(f"  {done.added_tokens} tokens that the base does not have")
    if done.proven:
        print("  bit for bit the model that the delta was made from")


def _make(arguments: argparse.Namespace) -> None:
    shard_bytes = _shard_bytes(arguments)
    from bayling.weights import delta

    with _progress("delta") as report:
        done = delta.make(
            arguments.base, arguments.model, arguments.to, shard_bytes=shard_bytes, report=report
        )
    print(f"{arguments.to}: {_files(done.tensors, done.files, done.bytes)}")
    if done.added_tokens:
        print(f"  {done.added_tokens} tokens that the base does not have")
    if done.corrected:
        print(
            f"  {done.corrected:,} weights do not survive the subtraction (largest difference "
            f"{done.largest:.2g}): kept as they are, in exact*.safetensors"
        )
    print("  `bayling model delta apply` gives the model back bit for bit")


def _export(arguments: argparse.Namespace) -> None:
    from bayling.config import compose
    from bayling.pipeline import Pipeline
    from bayling.watch import Plain

    pipeline = Pipeline(compose(arguments.overrides), Plain())
    step = pipeline.export(arguments.step, arguments.to)
    print(f"{arguments.to}: the model after step {step}")


def _files(tensors: int, files: int, size: int) -> str:
    shards = "1 file" if files == 1 else f"{files} files"
    return f"{tensors:,} tensors, {_size(size)} in {shards}"


def _size(number: int) -> str:
    return f"{number / 1e9:,.2f} GB" if number >= 1e8 else f"{number / 1e6:,.2f} MB"


@contextmanager
def _progress(title: str) -> Iterator[Report]:
    """Progress as stages show it; who is waited for is said at once, also in a log."""
    from bayling.watch import watcher

    shown = watcher()
    shown.stage(title, "")
    waited_for = ""

    def report(what: str, done: float, of: float) -> None:
        nonlocal waited_for
        if what.startswith("waiting for ") and what != waited_for:
            waited_for = what
            print(f"bayling: {what}", file=sys.stderr, flush=True)
        shown.progress(what, done, of)

    try:
        yield report
    finally:
        shown.close()
