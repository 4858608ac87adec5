"""How often somebody may do something: a bucket that fills at a steady pace."""

from __future__ import annotations

__all__ = ("Bucket",)


class Bucket:
    """Lets through so much a second on average, and one second's worth at once.

    Args:
        rate: How much a second.
        now: The time, in seconds.
    """

    __slots__ = ("_at", "_level", "_most", "rate")

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self._most = max(rate, 1.0)
        self._level = self._most
        self._at = now

    def take(self, amount: float, now: float) -> bool:
        """Take so much out, if it is there; nothing otherwise."""
        self._fill(now)
        if self._level < amount:
            return False
        self._level -= amount
        return True

    def spend(self, amount: float, now: float) -> float:
        """Take so much out in any case; seconds until that is made good."""
        self._fill(now)
        self._level -= amount
        return max(0.0, -self._level / self.rate)

    def _fill(self, now: float) -> None:
        self._level = min(self._most, self._level + (now - self._at) * self.rate)
        self._at = now
