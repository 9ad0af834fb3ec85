"""The data stage: from sentences to packed tokens."""

from bayling.data.config import DataConfig

__all__ = ["DataConfig"]
