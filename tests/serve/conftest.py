from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import httpx
import openai
import pytest
from tiny_model import make_model
from tiny_server import deployed

collect_ignore = [] if find_spec("vllm") else ["test_vllm_served.py"]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that share the server come last, so that it is not in the way of those with another
    one: there is one Ray Serve in a cluster."""
    here = Path(__file__).parent
    mine = [index for index, item in enumerate(items) if here in item.path.parents]
    ordered = sorted((items[index] for index in mine), key=_shares_the_server)
    for index, item in zip(mine, ordered, strict=True):
        items[index] = item


def _shares_the_server(item: pytest.Item) -> bool:
    module = item.getparent(pytest.Module)
    own = module is not None and hasattr(module.obj, "server")
    return "server" in getattr(item, "fixturenames", ()) and not own


@pytest.fixture(scope="package")
def server(ray_cluster: None, model_folder: Path) -> Iterator[str]:
    """The base URL of a server with the tiny model."""
    with deployed(model_folder) as url:
        yield url


@pytest.fixture(scope="module")
def http(server: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server, timeout=60, trust_env=False) as http:
        yield http


@pytest.fixture(scope="module")
def gpt(server: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0)
