"""One HTML page that stands alone: no script, no network, good on a phone and on paper."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from bayling.evaluate.report import view


def render(result: dict[str, Any], answered: view.Answered, pictures: Mapping[str, Path]) -> str:
    """The page of what `scores.json` has.

    Args:
        pictures: name → PNG file, put into the page.
    """
    embedded = {
        name: "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
        for name, path in pictures.items()
    }
    return _template().render(**view.of(result, answered), pictures=embedded)


@cache
def _template() -> Template:
    # What models say is shown as it is, so everything is escaped.
    environment = Environment(
        loader=PackageLoader("bayling.evaluate.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2")
