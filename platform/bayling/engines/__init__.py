"""Text generation and scoring behind one protocol. See `bayling.engines.protocol`."""

from __future__ import annotations

from pathlib import Path

from bayling.engines.protocol import Engine
from bayling.errors import UserError


def load(
    name: str,
    folder: str | Path,
    *,
    device: str = "cpu",
    dtype: str = "auto",
    max_batch: int = 32,
    context_length: int | None = None,
    threads: int | None = None,
) -> Engine:
    """A running engine over the model in a local folder.

    Args:
        name: a key of the table below, or `auto`.
        dtype: float32, bfloat16, float16, or `auto` for what the weights are stored in,
            which is float32 for bfloat16 on a CPU without instructions for it.
        max_batch: how many requests it answers side by side; more than that wait.
        context_length: prompt and answer together; the model's own limit without one.
        threads: CPU threads of this process for one operation; torch's choice without one.

    Raises:
        UserError: no engine of that name, or the folder holds no model it can run.
    """
    if name in ("auto", "transformers"):
        from bayling.engines.transformers import TransformersEngine

        return TransformersEngine(
            folder,
            device=device,
            dtype=dtype,
            max_batch=max_batch,
            context_length=context_length,
            threads=threads,
        )
    raise UserError(f"there is no engine {name!r}: choose auto or transformers")
