"""Objects of Ray against KubeRay's own definitions of them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jsonschema
import yaml


@functools.cache
def validator(folder: str, kind: str) -> jsonschema.protocols.Validator:
    """Of the definition in `folder` of a kind such as RayJob; unknown fields are errors."""
    path = Path(folder) / f"ray.io_{kind.lower()}s.yaml"
    crd = yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader)
    (version,) = [v for v in crd["spec"]["versions"] if v["name"] == "v1"]
    schema = version["schema"]["openAPIV3Schema"]
    return jsonschema.Draft202012Validator(_strict(schema))


def _strict(schema: Any) -> Any:
    """Refuses unknown fields, which the API server would drop without a word."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _strict(value) for key, value in schema.items()}
    if made.pop("x-kubernetes-int-or-string", False):
        made.pop("anyOf", None)
        made["type"] = ["integer", "string"]
    closed = "properties" in made and made.get("type") == "object"
    if closed and not made.get("x-kubernetes-preserve-unknown-fields"):
        # `metadata` of the object itself is the API server's to check.
        made.setdefault("additionalProperties", False)
    return made
