"""Readers of parallel text and conversations: from an address to a stream of rows."""

from bayling.data.sources.config import SourceConfig, source_config, source_configs
from bayling.data.sources.gathering import Part
from bayling.data.sources.rows import Pair, Parallel, Place, Question, Rejected, Row, Talk
from bayling.data.sources.source import Source, open_source
from bayling.data.sources.stretches import is_large

__all__ = [
    "Pair",
    "Parallel",
    "Part",
    "Place",
    "Question",
    "Rejected",
    "Row",
    "Source",
    "SourceConfig",
    "Talk",
    "is_large",
    "open_source",
    "source_config",
    "source_configs",
]
