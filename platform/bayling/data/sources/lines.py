"""Line-aligned text: one file a language, and line n of each is the same sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import cast

from bayling.data.sources.addresses import folder_of, name_of
from bayling.data.sources.columns import named_in
from bayling.data.sources.opening import Broken, Stretch, lines
from bayling.data.sources.rows import Parallel, Place, Rejected, rejected
from bayling.data.sources.stretches import in_stretches
from bayling.errors import UserError

_SIDE = re.compile(r"[-_](?:src|ref|source|reference|tgt|trg|target)$")
_STR = {str}


def aligned(
    files: Sequence[str],
    tags: Sequence[str],
    register: str | None = None,
    stretches: Sequence[Stretch] = (),
) -> Iterator[Parallel | Rejected]:
    """The sentences of aligned files, in all their languages.

    Args:
        stretches: of each file one, of the same lines; without, all is read.

    Raises:
        UserError: a file cannot be opened or unpacked, or they have different numbers of lines;
            the message names the files and the numbers.
    """
    first = files[0]
    readers = [lines(file, stretch) for file, stretch in zip_longest(files, stretches)]
    start = stretches[0].first if stretches else 1
    for number, texts in enumerate(zip_longest(*readers), start):
        if _STR.issuperset(map(type, texts)):
            whole = cast(tuple[str, ...], texts)
            yield Parallel(dict(zip(tags, whole, strict=True)), Place(first, number), register)
        elif None in texts:
            counts = [
                number - (text is None) + sum(1 for _ in reader)
                for text, reader in zip(texts, readers, strict=True)
            ]
            raise UserError(_unequal(files, counts))
        else:
            file, broken = next(
                (file, text)
                for file, text in zip(files, texts, strict=True)
                if isinstance(text, Broken)
            )
            yield rejected(file, number, broken.reason, broken.text)


def split(files: Sequence[str], each: int) -> list[tuple[Stretch, ...]]:
    """Aligned files in stretches of so many lines, or nothing where one of them cannot be split.

    Raises:
        UserError: as `aligned` does.
    """
    found = [in_stretches(file, each) for file in files]
    known = [one for one in found if one is not None]
    if len(known) < len(files):
        return []
    counts = [one.total for one in known]
    if len(set(counts)) > 1:
        raise UserError(_unequal(files, counts))
    return list(zip(*(one.stretches for one in known), strict=True))


def groups(files: Sequence[str]) -> tuple[list[tuple[str, ...]], dict[str, str]]:
    """Which of the files belong together, and the language of each of those files.

    `x.en` belongs to `x.zh` (Moses, OPUS), `eng.devtest` to `zho_simpl.devtest` (FLORES),
    `x.en.txt` to `x.de.txt`. Both tell the language by a part of the name between full stops.
    """
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for file in files:
        parts = name_of(file).split(".")
        for place in _places(len(parts)):
            tag = named_in(parts[place])
            if tag is not None:
                # WMT's `newstest-src.en` and `newstest-ref.zh` are one test set.
                before = [_SIDE.sub("", part) for part in parts[:place]]
                key = (folder_of(file), *before, "", *parts[place + 1 :])
                found.setdefault(key, {}).setdefault(tag, file)
    tags: dict[str, str] = {}
    made = []
    # The largest first: in `train.en.de` the file has two parts that name languages.
    for key in sorted(found, key=lambda key: (-len(found[key]), key)):
        members = {tag: file for tag, file in found[key].items() if file not in tags}
        if len(members) > 1:
            made.append(tuple(sorted(members.values())))
            tags |= {file: tag for tag, file in members.items()}
    return sorted(made), tags


def _places(number: int) -> list[int]:
    """Where a language can stand: last, last but one (before .txt), or first of two."""
    if number < 2:
        return []
    return [number - 1, 0] if number == 2 else [number - 1, number - 2]


def _unequal(files: Sequence[str], counts: Sequence[int]) -> str:
    each = ", ".join(
        f"{file} has {count:,} lines" for file, count in zip(files, counts, strict=True)
    )
    if len(files) > 4:
        odd = max(set(counts), key=counts.count)
        each = f"most have {odd:,} lines, but " + ", ".join(
            f"{file} has {count:,}"
            for file, count in zip(files, counts, strict=True)
            if count != odd
        )
    return f"aligned files must have the same number of lines: {each}"
