"""Models travel through MLflow also where it would send its clients to a bucket behind it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from app_server import serving
from fastapi import FastAPI, Request, Response
from mlflow.exceptions import MlflowException
from mlflow_server import mlflow_server, register

from bayling.registry import models


@contextmanager
def before_a_bucket(server: str, asked: list[str]) -> Iterator[str]:
    """An MLflow that says of itself what one with a bucket does; `asked` are its paths."""
    app = FastAPI()

    @app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "PATCH"])
    async def forward(path: str, request: Request) -> Response:
        asked.append(path)
        if "presigned" in path or "/mpu/" in path:
            return Response("the bucket is not to be reached", 500)
        async with httpx.AsyncClient(base_url=server, trust_env=False) as http:
            answer = await http.request(
                request.method,
                f"/{path}",
                params=request.query_params,
                content=await request.body(),
                headers={"content-type": request.headers.get("content-type", "")},
            )
        content = answer.content
        if path.endswith("server-info"):
            told = answer.json()
            assert "multipart_downloads_enabled" in told, "MLflow has another name for it"
            return Response(content.replace(b'_enabled":false', b'_enabled":true'))
        kind = answer.headers.get("content-type")
        return Response(content, answer.status_code, media_type=kind)

    with serving(app) as address:
        yield address


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What is registered: a file, as a model has them."""
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text('{"model_type": "llama"}')
    return made


def test_a_model_is_fetched_through_mlflow(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    with mlflow_server(tmp_path) as server, before_a_bucket(server, asked) as url:
        version = register(url, folder)
        fetched = models.fetch(url, "bayling", version, tmp_path / "fetched")
        assert (fetched / "config.json").read_bytes() == (folder / "config.json").read_bytes()
        assert not [path for path in asked if "presigned" in path]

        # Whose clients reach the bucket may say so.
        monkeypatch.setenv("MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD", "true")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        with pytest.raises(MlflowException):
            models.fetch(url, "bayling", version, tmp_path / "directly")
        assert [path for path in asked if "presigned" in path]
