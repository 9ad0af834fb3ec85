"""Which pairs translate the same sentence.

They are the pairs of one row in several languages, or rows that translate a sentence differently:
those of a partition, and what was fetched for it from others (`data.links`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from bayling.data.instructions.building import turned
from bayling.data.tables import Pair

_MOST = 32
"""Of one sentence: "Yes." has hundreds."""


class Siblings:
    """Pairs by their source, in both directions.

    Args:
        pairs: those that may be used: none that is held out.
    """

    def __init__(self, pairs: Iterable[Pair]) -> None:
        self._by_source: dict[tuple[str, str], list[Pair]] = defaultdict(list)
        for pair in pairs:
            for one in (pair, turned(pair)):
                known = self._by_source[one.source_lang, one.source]
                if len(known) < _MOST:
                    known.append(one)

    def of(self, pair: Pair) -> tuple[Pair, ...]:
        """The pairs that translate what this one translates, itself among them."""
        return tuple(self._by_source.get((pair.source_lang, pair.source), ()))
