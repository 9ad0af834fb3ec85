"""Records from Parquet and from Arrow's streams and files, a small batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bayling.data.sources.opening import seekable
from bayling.data.sources.rows import rejected
from bayling.errors import UserError
from bayling.storage import one_line

_BATCH = 1000


def parquet(address: str) -> Iterator[tuple[int, Any]]:
    """The rows of a Parquet file as records, with their numbers.

    Raises:
        UserError: it cannot be opened, or is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with seekable(address) as file:
        try:
            opened = pq.ParquetFile(file, pre_buffer=False)
            yield from _records(opened.iter_batches(_BATCH), address)
        except (pa.ArrowException, OSError) as error:
            raise UserError(_damaged(address, "Parquet", error)) from None


def arrow(address: str) -> Iterator[tuple[int, Any]]:
    """The rows of an Arrow stream, as `datasets` saves it, or of an Arrow file.

    Raises:
        UserError: it cannot be opened, or is damaged.
    """
    import pyarrow as pa

    with seekable(address) as file:
        magic = file.read(6)
        file.seek(0)
        try:
            if magic == b"ARROW1":
                opened = pa.ipc.open_file(file)
                batches = (opened.get_batch(i) for i in range(opened.num_record_batches))
            else:
                batches = iter(pa.ipc.open_stream(file))
            small = (
                batch.slice(start, _BATCH)
                for batch in batches
                for start in range(0, batch.num_rows, _BATCH)
            )
            yield from _records(small, address)
        except (pa.ArrowException, OSError) as error:
            raise UserError(_damaged(address, "Arrow", error)) from None


def _damaged(address: str, kind: str, error: Exception) -> str:
    return f"{address} is damaged {kind} data ({one_line(error)}): fetch or make it again"


def _records(batches: Iterator[Any], address: str) -> Iterator[tuple[int, Any]]:
    number = 0
    for batch in batches:
        try:
            rows = batch.to_pylist()
        except UnicodeDecodeError:
            for index in range(batch.num_rows):
                number += 1
                try:
                    yield number, batch.slice(index, 1).to_pylist()[0]
                except UnicodeDecodeError as error:
                    reason = "a byte in it is no UTF-8"
                    yield number, rejected(address, number, reason, error.object)
            continue
        for record in rows:
            number += 1
            yield number, record
