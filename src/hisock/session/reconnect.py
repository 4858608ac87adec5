"""When to try to come back after a cut: later each time, and never all at once."""

from __future__ import annotations

__all__ = ("Backoff",)

from collections.abc import Callable
from typing import Final

#: Seconds within which the first try falls; each next one within twice as many.
FIRST: Final = 0.25
#: Seconds within which every later try falls.
CAP: Final = 20.0


class Backoff:
    """Delays with full jitter: each anywhere between nothing and a growing bound.

    Args:
        chance: Draws a number from 0 up to 1.
    """

    __slots__ = ("_bound", "_chance")

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self._bound = FIRST

    def next(self) -> float:
        """Seconds until the next try."""
        delay = self._chance() * self._bound
        self._bound = min(CAP, self._bound * 2)
        return delay

    def after(self, least: float) -> float:
        """Seconds until the next try, where the other side asked for so many."""
        return least * (1 + self._chance())

    def reset(self) -> None:
        """It worked: begin anew the next time."""
        self._bound = FIRST
