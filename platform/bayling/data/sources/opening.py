"""From an address to lines of text: fetched, unpacked, decoded, in bounded memory.

Compression is told by the first bytes, never by the name. Text is UTF-8 with or without a byte
order mark, or UTF-16. A line ends at `\\n` and nowhere else: U+2028, U+0085 and vertical tabs stand
inside of sentences, and aligned files whose lines were split there would no longer be aligned.
"""

from __future__ import annotations

import codecs
import io
import lzma
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from bayling.errors import UserError
from bayling.storage import explained, file_system, one_line

LONGEST = 16 * 2**20
"""Bytes of the longest line: one that is longer is no sentence, and would fill the memory."""
HEAD = 256 * 2**10
"""Bytes, unpacked, that the format is told from."""
_READ = 2**20
# Unpacked at once; what a few kilobytes can become is bounded.
_PIECE = 16 * 2**10

BROKEN = "\ufdd0"
"""Stands for bytes that are no text where a parser could not go on: Unicode keeps this code point
for such uses, and no text has it."""

_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ\x00": "xz",
}
_UTF16 = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}


@dataclass(frozen=True, slots=True)
class Broken:
    """A line that is no text."""

    text: str
    """What can be shown of it: broken bytes as `\\xff`."""
    reason: str


@dataclass(frozen=True)
class Stretch:
    """Lines of a file that follow each other."""

    first: int
    """The number of its first line, from 1."""
    begin: int
    """Bytes before it."""
    end: int
    """Bytes up to the end of its last line."""


@dataclass(frozen=True)
class Head:
    """The beginning of a file."""

    data: bytes
    """Unpacked, in UTF-8 if it is text, at most `HEAD` bytes."""
    whole: bool
    """Whether that is all there is."""
    compression: str | None
    encoding: str


def head(address: str) -> Head:
    """The beginning of a file.

    Raises:
        UserError: it is not there or cannot be read, or what it is packed in is damaged.
    """
    chunks = raw(address)
    first = next(chunks, b"")
    packed_in = compression(first)
    unpacked = _unpacked(_again(first, chunks), packed_in, address)
    start = next(unpacked, b"")
    encoding = _encoding(start)
    found = b""
    for chunk in _utf8(_again(start, unpacked), encoding):
        found += chunk
        if len(found) > HEAD:
            break
    return Head(found[:HEAD], len(found) <= HEAD, packed_in, encoding)


def lines(address: str, stretch: Stretch | None = None) -> Iterator[str | Broken]:
    """The lines of a text, without their ends. An end after the last one makes no further line.

    Args:
        stretch: those alone, of a file that is UTF-8 and not packed.

    Raises:
        UserError: the file is not there or cannot be read, or what it is packed in is damaged.
    """
    rest = b""
    too_long = False
    for chunk in _text(address, stretch):
        cut = chunk.rfind(b"\n")
        if cut < 0:
            rest += chunk
            if len(rest) > LONGEST:
                rest, too_long = rest[:HEAD], True
            continue
        block = rest + chunk[:cut]
        if too_long:
            end = chunk.find(b"\n")
            yield _over_long(rest)
            if end == cut:
                rest, too_long = chunk[cut + 1 :], False
                continue
            block, too_long = chunk[end + 1 : cut], False
        yield from _decoded(block)
        rest = chunk[cut + 1 :]
    if too_long:
        yield _over_long(rest)
    elif rest:
        yield from _decoded(rest)


def stream(address: str) -> BinaryIO:
    """The text as UTF-8 for a parser, with `BROKEN` in place of bytes that are none.

    Raises:
        UserError: now or while reading, as `lines` does.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("bayling-broken")

    def mended() -> Iterator[bytes]:
        for chunk in _text(address):
            yield decoder.decode(chunk).encode()
        yield decoder.decode(b"", True).encode()

    return io.BufferedReader(_Chunks(mended()), 2**16)


def plain_stream(address: str) -> BinaryIO:
    """The unpacked bytes as they are, for a parser that knows their encoding.

    Raises:
        UserError: now or while reading, as `lines` does.
    """
    return io.BufferedReader(_Chunks(_bytes(address)), 2**16)


def seekable(address: str) -> Any:
    """A file as it is, for formats that are read from their end.

    Raises:
        UserError: it is not there or cannot be read.
    """
    with explained(address, missing(address)):
        files, path = file_system(address)
        return files.open(path, "rb")


def compression(start: bytes) -> str | None:
    """What a file that begins with these bytes is packed in: gzip, zstd, xz or nothing."""
    return next((name for magic, name in _MAGIC.items() if start.startswith(magic)), None)


def missing(address: str) -> str:
    """The sentence for an address where nothing is."""
    return f"there is no {address}: check the path, or put a glob in quotes"


def raw(address: str, stretch: Stretch | None = None) -> Iterator[bytes]:
    """A file's bytes as they are, or those of a stretch.

    Raises:
        UserError: it is not there or cannot be read.
    """
    begin, left = (stretch.begin, stretch.end - stretch.begin) if stretch else (0, 2**62)
    with explained(address, missing(address)):
        files, path = file_system(address)
        # In one go: not every web server gives parts of a file, nor says how long it is.
        whole = {"block_size": 0} if address.startswith(("http://", "https://")) else {}
        with files.open(path, "rb", **whole) as file:
            if begin:
                file.seek(begin)
            while left and (chunk := file.read(min(_READ, left))):
                left -= len(chunk)
                yield chunk


def _text(address: str, stretch: Stretch | None = None) -> Iterator[bytes]:
    """Unpacked, in UTF-8 without a byte order mark; broken bytes are still in it."""
    unpacked = raw(address, stretch) if stretch else _bytes(address)
    if stretch and stretch.begin:
        return unpacked
    start = next(unpacked, b"")
    return _utf8(_again(start, unpacked), _encoding(start))


def _bytes(address: str) -> Iterator[bytes]:
    chunks = raw(address)
    first = next(chunks, b"")
    return _unpacked(_again(first, chunks), compression(first), address)


def _again(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _unpacked(chunks: Iterator[bytes], packed_in: str | None, address: str) -> Iterator[bytes]:
    if packed_in is None:
        yield from chunks
        return
    try:
        yield from _joined(_members(chunks, packed_in))
    except (EOFError, zlib.error, lzma.LZMAError) as error:
        raise UserError(_damaged(address, packed_in, error)) from None
    except Exception as error:
        # The library is only imported where something is packed with it.
        if type(error).__name__ != "ZstdError":
            raise
        raise UserError(_damaged(address, packed_in, error)) from None


def _damaged(address: str, packed_in: str, error: Exception) -> str:
    return f"{address} is damaged {packed_in} data ({one_line(error)}): fetch or make it again"


def _members(chunks: Iterable[bytes], packed_in: str) -> Iterator[bytes]:
    """Unpack what may be several packed files after each other, as parallel packers write."""
    unpacker: Any = None
    for chunk in chunks:
        for start in range(0, len(chunk), _PIECE):
            piece = chunk[start : start + _PIECE]
            while piece:
                if unpacker is None:
                    piece = piece.lstrip(b"\0")  # padding between members
                    if not piece:
                        break
                    unpacker = _unpacker(packed_in)
                yield unpacker.decompress(piece)
                piece = b""
                if unpacker.eof:
                    piece, unpacker = unpacker.unused_data, None
    if unpacker is not None:
        raise EOFError("it breaks off")


def _unpacker(packed_in: str) -> Any:
    if packed_in == "gzip":
        return zlib.decompressobj(wbits=31)
    if packed_in == "xz":
        return lzma.LZMADecompressor()
    import zstandard

    return zstandard.ZstdDecompressor().decompressobj()


def _joined(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Large enough to be worth a step in what follows."""
    kept: list[bytes] = []
    size = 0
    for piece in pieces:
        kept.append(piece)
        size += len(piece)
        if size >= _READ:
            yield b"".join(kept)
            kept, size = [], 0
    yield b"".join(kept)


def _encoding(start: bytes) -> str:
    if start.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    if start[:2] in _UTF16:
        return "utf-16"
    # Without a mark: the letters of most scripts' digits, spaces and markup have a byte of 0.
    sample = start[:4096]
    zeros = [sample[offset::2].count(0) for offset in (0, 1)]
    if len(sample) >= 4 and max(zeros) > len(sample) / 8 and min(zeros) < max(zeros) / 20:
        return "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
    return "utf-8"


def _utf8(chunks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    if encoding == "utf-8":
        yield from chunks
    elif encoding == "utf-8-sig":
        yield next(chunks)[len(codecs.BOM_UTF8) :]
        yield from chunks
    else:
        decoder = codecs.getincrementaldecoder(encoding)("bayling-surrogate")
        for chunk in chunks:
            yield decoder.decode(chunk).encode("utf-8", "surrogatepass")
        yield decoder.decode(b"", True).encode("utf-8", "surrogatepass")


def _decoded(block: bytes) -> Iterable[str | Broken]:
    try:
        text = block.decode()
    except UnicodeDecodeError:
        return [_line(line) for line in block.split(b"\n")]
    found = text.split("\n")
    return [line.removesuffix("\r") for line in found] if "\r" in text else found


def _line(line: bytes) -> str | Broken:
    try:
        return line.decode().removesuffix("\r")
    except UnicodeDecodeError as error:
        shown = line.decode("utf-8", "backslashreplace")
        return Broken(shown, f"byte {error.start + 1} of the line is no UTF-8")


def _over_long(start: bytes) -> Broken:
    shown = start[:HEAD].decode("utf-8", "backslashreplace")
    return Broken(shown, f"the line is longer than {LONGEST // 2**20} MiB")


class _Chunks(io.RawIOBase):
    """Chunks of bytes as a file that is read from beginning to end."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


# Lone surrogates are no UTF-8: `lines` finds them like any other broken byte.
codecs.register_error("bayling-surrogate", lambda error: ("\udcff", _end(error)))
codecs.register_error("bayling-broken", lambda error: (BROKEN, _end(error)))


def _end(error: UnicodeError) -> int:
    assert isinstance(error, UnicodeDecodeError)
    return error.end
