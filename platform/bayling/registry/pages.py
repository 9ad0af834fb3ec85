"""Where people look at things in MLflow's web pages."""

from __future__ import annotations

from urllib.parse import quote

LOCAL_UI = "http://127.0.0.1:5000"
"""Where `bayling ui` listens unless it is told otherwise."""


def version_page(uri: str, name: str, version: str) -> str:
    """The page of a model version.

    Args:
        uri: of the tracking server; for a store without one, where `bayling ui` shows it.
    """
    server = uri.rstrip("/") if uri.startswith(("http://", "https://")) else LOCAL_UI
    return f"{server}/#/models/{quote(name, safe='')}/versions/{version}"
