from __future__ import annotations

import pytest

from bayling.registry.pages import version_page

pytestmark = pytest.mark.unit


def test_a_versions_page_is_on_its_server_or_where_the_local_dashboard_shows_it() -> None:
    page = version_page("https://mlflow.example.org/", "bay ling", "3")
    assert page == "https://mlflow.example.org/#/models/bay%20ling/versions/3"
    local = version_page("sqlite:////tmp/mlflow.db", "bayling", "3")
    assert local == "http://127.0.0.1:5000/#/models/bayling/versions/3"
