"""Log lines that somebody else could cause without end, thinned out."""

from __future__ import annotations

__all__ = ("Repeats",)

from typing import Final

#: Different things that are counted apart; all others are counted as one.
_APART: Final = 100


class Repeats:
    """Counts what happens again and again, and says when to log it: the first time,
    and then whenever the count has one more digit."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[object, int] = {}

    def due(self, what: object) -> int:
        """Count something; how often it happened if that is to be logged, else 0."""
        if what not in self._counts and len(self._counts) >= _APART:
            what = None
        count = self._counts[what] = self._counts.get(what, 0) + 1
        return count if str(count).strip("0") == "1" else 0
