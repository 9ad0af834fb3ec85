"""The page at `/` on which a person tries the model. Plain files, and nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter

from bayling import page

_FOLDER = Path(__file__).with_name("playground")


def router() -> APIRouter:
    """`/`, and the page's files below `/playground/`."""
    return APIRouter(routes=page.routes(_FOLDER))
