"""What a page's files must not have, as its strict policy would forbid it in a browser."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

from bayling import page


def complaints(folder: Path) -> list[str]:
    """Inline code and styles, addresses that lead nowhere, and names of other servers."""
    files = {
        path.name: path
        for place in (page.COMMON, folder)
        for path in place.iterdir()
        if path.suffix in (".css", ".html", ".js", ".svg")
    }
    parsed = _Inline()
    parsed.feed((folder / "index.html").read_text("utf-8"))
    found = [f"inline {name}" for name in parsed.forbidden]
    for address in parsed.addresses:
        if not address.startswith("#") and Path(address).name not in files:
            found.append(f"{address} leads nowhere")
    for path in files.values():
        named = re.findall(r"(?:https?:)?//[\w.-]+\.[\w.-]+", path.read_text("utf-8"))
        found += [f"{path.name}: {one}" for one in named if one != "http://www.w3.org"]
    return found


class _Inline(HTMLParser):
    """Finds what a strict policy forbids, and every address."""

    def __init__(self) -> None:
        super().__init__()
        self.forbidden: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "style" or (tag == "script" and "src" not in given):
            self.forbidden.append(tag)
        self.forbidden += [name for name in given if name == "style" or name.startswith("on")]
        self.addresses += [str(given[name]) for name in ("src", "href") if name in given]
