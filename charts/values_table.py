"""The table of a chart's values in its README, made of the comments in values.yaml.

    python charts/values_table.py charts/platform           # writes it
    python charts/values_table.py charts/platform --check   # 1 if it is not up to date

A value is documented by a comment line `# -- What it is.` above it; what lies below a documented
value is part of it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

BEGIN, END = "<!-- values: made by charts/values_table.py -->", "<!-- end of values -->"
_KEY = re.compile(r"^( *)([A-Za-z][\w.-]*):")
_COMMENT = re.compile(r"^ *# -- (.+)$")


def documented(text: str) -> Iterator[tuple[str, Any, str]]:
    """(path, default, description) of every documented value of a values.yaml, in its order.

    Raises:
        ValueError: a value has no description, or a description no value.
    """
    values = yaml.safe_load(text)
    path: list[tuple[int, str]] = []
    description, inside = "", -1
    for number, line in enumerate(text.splitlines(), 1):
        if comment := _COMMENT.match(line):
            description = comment[1]
            continue
        if not (key := _KEY.match(line)):
            if description:
                raise ValueError(f"line {number}: a description must stand right above its value")
            continue
        indent, name = len(key[1]), key[2]
        if 0 <= inside < indent:
            continue
        inside = -1
        path = [*((i, n) for i, n in path if i < indent), (indent, name)]
        names = [n for _, n in path]
        default: Any = values
        for part in names:
            default = default[part]
        if description:
            yield ".".join(names), default, description
            description, inside = "", indent
        elif not isinstance(default, dict) or not default:
            raise ValueError(f"line {number}: {'.'.join(names)} has no description")


def table(text: str) -> str:
    """The Markdown table of a values.yaml."""
    rows = ["| value | default | what it is |", "|---|---|---|"]
    for path, default, description in documented(text):
        shown = json.dumps(default, ensure_ascii=False)
        rows.append(f"| `{path}` | `{shown}` | {description.replace('|', chr(92) + '|')} |")
    return "\n".join(rows)


def with_table(readme: str, values: str) -> str:
    """The README with the table between its two marks."""
    before, _, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"the README lacks {BEGIN} or {END}")
    return f"{before}{BEGIN}\n\n{table(values)}\n\n{END}{after}"


def main() -> int:
    """0, or 1 with --check if the README is not what it would be."""
    folder = Path(sys.argv[1])
    readme = folder / "README.md"
    wanted = with_table(
        readme.read_text(encoding="utf-8"), (folder / "values.yaml").read_text(encoding="utf-8")
    )
    if "--check" in sys.argv[2:]:
        return int(readme.read_text(encoding="utf-8") != wanted)
    readme.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
