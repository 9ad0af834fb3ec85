"""Storage through fsspec: a folder of this machine, a bucket, a hub, a web server.

`s3://` and `gs://` go through Arrow's own file systems, which came along with Ray Data: they
take the usual credentials (environment, profile, the identity of the pod) and AWS_ENDPOINT_URL,
and need no further package.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bayling.errors import UserError

_CLIENTS = ("aiohttp", "httpx", "httpx2", "huggingface_hub")
"""Packages whose errors are those of a connection, and no `OSError` for all that."""


def file_system(address: str) -> tuple[Any, str]:
    """An fsspec file system and the path of the address in it, without a slash at its end.

    Raises:
        ImportError: the scheme needs a package that is not installed.
        ValueError: no file system has that scheme.
    """
    scheme = urlsplit(address).scheme
    path = address.partition("://")[2].rstrip("/")
    if scheme == "s3":
        return _wrapped(_s3()), path
    if scheme in ("gs", "gcs"):
        from pyarrow import fs

        google = fs.GcsFileSystem(retry_time_limit=timedelta(seconds=20))
        google.get_file_info(path)  # keeps to the limit; a listing would try for ever
        return _wrapped(google), path
    if scheme == "hf":
        from huggingface_hub import HfFileSystem

        # Of the environment as it is now: the client reads it once, when it is imported.
        return HfFileSystem(endpoint=os.environ.get("HF_ENDPOINT") or None), path
    from fsspec.core import url_to_fs

    files, root = url_to_fs(address if "://" in address else str(Path(address).expanduser()))
    return files, str(root).rstrip("/") or "/"


@contextmanager
def explained(address: str, missing: str) -> Iterator[None]:
    """Turn what storage raises into one sentence.

    Args:
        missing: the sentence where nothing lies at the address.

    Raises:
        UserError: nothing is there, it may not be read, or it cannot be.
    """
    try:
        yield
    except ImportError as error:
        raise UserError(
            f"{address} needs a package that is not installed: {one_line(error)}"
        ) from None
    except (FileNotFoundError, NotADirectoryError) as error:
        # fsspec also says so of a web server that does not answer.
        cause = error.__cause__
        if isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError):
            raise UserError(_unreadable(address, cause)) from None
        raise UserError(missing) from None
    except PermissionError as error:
        raise UserError(
            f"{address} may not be read ({one_line(error)}): give this process credentials for it"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(_unreadable(address, error)) from None
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in _CLIENTS:
            raise
        raise UserError(_unreadable(address, error)) from None


def _unreadable(address: str, error: BaseException) -> str:
    return (
        f"{address} cannot be read ({one_line(error)}): check the address, the credentials and "
        "the network"
    )


def one_line(error: BaseException) -> str:
    """An error's text without line ends, at most 200 characters of it."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:199]}…"


def _wrapped(files: Any) -> Any:
    from fsspec.implementations.arrow import ArrowFSWrapper

    return ArrowFSWrapper(files)


def _s3() -> Any:
    from pyarrow import fs

    options: dict[str, Any] = {"connect_timeout": 10, "request_timeout": 60}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        parts = urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}")
        options |= {"endpoint_override": parts.netloc, "scheme": parts.scheme}
    if region := os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"):
        options["region"] = region
    return fs.S3FileSystem(**options)
