"""COMET (Rei et al. 2020), where its package and a model are at hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bayling.errors import UserError

_BATCH = 32


def scorer(model: str) -> Callable[[Sequence[str], Sequence[str], Sequence[str]], list[float]]:
    """A function of sources, outputs and references to one score each.

    Args:
        model: a checkpoint (`…/checkpoints/model.ckpt`) or its folder, or a model's name on a hub,
            which has to be in the cache already: nothing is downloaded.

    Raises:
        UserError: the package is not installed, or there is no such model.
    """
    try:
        import comet
    except ImportError:
        raise UserError(
            "COMET needs a package that does not come along, in an environment of its own, as it "
            "wants older versions of others: pip install unbabel-comet"
        ) from None
    path = Path(model)
    if path.is_dir():
        path = path / "checkpoints" / "model.ckpt"
    try:
        if not path.exists():
            path = Path(comet.download_model(model, local_files_only=True))
        _refuse_code(path)
        loaded: Any = comet.load_from_checkpoint(str(path), local_files_only=True)
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"no COMET model at {model}: {error}") from None

    def score(
        sources: Sequence[str], outputs: Sequence[str], references: Sequence[str]
    ) -> list[float]:
        rows = [
            {"src": source, "mt": output, "ref": reference}
            for source, output, reference in zip(sources, outputs, references, strict=True)
        ]
        return list(map(float, loaded.predict(rows, batch_size=_BATCH, progress_bar=False).scores))

    return score


def _refuse_code(path: Path) -> None:
    """A checkpoint is a pickle, which may hold code: loaded once in a way that runs none."""
    import pickle

    import torch

    try:
        torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds more than weights, and loading it could run code: {error}"
        ) from None
