"""TMX 1.4, the exchange format of translation memories, a unit at a time.

Every `<tu>` is cut out and parsed for itself. So one that is no well-formed XML costs nothing but
itself, memory does not grow with the file, and no document type is ever read: entities other than
XML's own do not exist, whatever the file declares.

Text inside of inline codes (`<bpt>`, `<ph>`, …) is markup of the original document and is left out;
what `<hi>` and `<sub>` hold is text. Of several variants in one language the first is taken.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from xml.etree import ElementTree

from bayling.data.sources.columns import language_of
from bayling.data.sources.opening import BROKEN, LONGEST, head, plain_stream, stream
from bayling.data.sources.rows import Parallel, Place, Rejected, rejected
from bayling.errors import UserError

_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
_TEXT = ("hi", "sub")
_READ = 2**18
_BEGIN = re.compile(r"<!--|<tu(?=[\s>/])")
_END = re.compile(r"</tu\s*>|<tu(?=[\s>/])")


def units(address: str, register: str | None = None) -> Iterator[Parallel | Rejected]:
    """The translation units. One that is no well-formed XML is rejected, and reading goes on.

    Raises:
        UserError: the file cannot be opened or unpacked, or it breaks off.
    """
    text = ""
    line = 1  # of the beginning of the text
    closed = False
    for chunk in _chunks(address):
        text += chunk
        position = counted = 0
        while (begin := _BEGIN.search(text, position)) is not None:
            if begin[0] == "<!--":
                after = text.find("-->", begin.end())
                if after < 0:
                    break
                position = after + 3
                continue
            end = _END.search(text, begin.end())
            if end is None:
                break
            line += text.count("\n", counted, begin.start())
            counted = begin.start()
            whole = end[0] != "<tu"
            position = end.end() if whole else end.start()
            unit = text[begin.start() : position]
            if whole:
                yield _unit(unit, address, line, register)
            else:
                yield rejected(address, line, "no well-formed XML: it is never closed", unit)
        closed = closed or "</tmx" in text[position:]
        # What can no longer become a unit is passed over; what has begun stays.
        start = begin.start() if begin is not None else max(position, len(text) - 8)
        line, text = line + text.count("\n", counted, start), text[start:]
        if len(text) > LONGEST:
            raise UserError(f"{address}:{line} begins a unit that has no end: make it again")
    if not closed or _BEGIN.search(text):
        last = line + text.count("\n")
        raise UserError(f"{address} breaks off at line {last:,}: fetch or make it again")


def source_language(address: str) -> str | None:
    """The language of the header's `srclang`, if it names one."""
    start = head(address).data.decode("utf-8", "replace")
    found = re.search(r"<header\b[^>]*\bsrclang\s*=\s*[\"']([^\"']+)", start)
    return language_of(found[1]) if found else None


def _chunks(address: str) -> Iterator[str]:
    encoding = _declared(address)
    decoder = codecs.getincrementaldecoder(encoding or "utf-8")("bayling-broken")
    with stream(address) if encoding is None else plain_stream(address) as file:
        while chunk := file.read(_READ):
            yield decoder.decode(chunk)
    yield decoder.decode(b"", True)


def _declared(address: str) -> str | None:
    """The encoding in the XML declaration, where it is none of Unicode's.

    Raises:
        UserError: nobody knows that encoding.
    """
    start = head(address)
    found = re.match(rb"""\s*<\?xml[^>]*\bencoding\s*=\s*["']([A-Za-z0-9._-]+)""", start.data)
    name = found[1].decode() if found else "utf-8"
    # UTF-16 has become UTF-8 on the way.
    if start.encoding != "utf-8" or name.lower().startswith(("utf-8", "utf8", "utf-16", "utf16")):
        return None
    try:
        return codecs.lookup(name).name
    except LookupError:
        raise UserError(f"{address} declares the encoding {name!r}: convert it to UTF-8") from None


def _unit(text: str, address: str, line: int, register: str | None) -> Parallel | Rejected:
    if BROKEN in text:
        return rejected(address, line, "a byte in it is no text", text)
    try:
        unit = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        return rejected(address, line, f"no well-formed XML: {error.msg.partition(':')[0]}", text)
    texts: dict[str, str] = {}
    unknown = []
    for variant in unit.iterfind("tuv"):
        code = variant.get(_LANG) or variant.get("lang") or ""
        segment = variant.find("seg")
        tag = language_of(code)
        if tag is None:
            unknown.append(code)
        elif segment is not None and tag not in texts:
            texts[tag] = _text(segment)
    if len(texts) < 2:
        without = f"; the Unicode CLDR does not know {', '.join(unknown)}" if unknown else ""
        return rejected(address, line, f"it has no segments in two languages{without}", text)
    return Parallel(texts, Place(address, line), register, unit.get("tuid"))


def _text(node: ElementTree.Element) -> str:
    if not len(node):
        return node.text or ""
    parts = [node.text or ""]
    for child in node:
        inner = [child] if child.tag in _TEXT else child.iter("sub")
        parts += map(_text, inner)
        parts.append(child.tail or "")
    return "".join(parts)
