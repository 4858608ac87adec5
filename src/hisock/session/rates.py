"""How often somebody may do something: a bucket that fills at a steady pace."""

from __future__ import annotations

__all__ = ("Bucket", "read_rate")

import re
from typing import Final

from hisock.errors import InvalidOption

_SECONDS: Final = {"s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}


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


def read_rate(rate: object) -> float:
    """How often a second ``"20/s"``, ``"100/min"`` or a number is.

    Raises:
        InvalidOption: It is no rate.
    """
    if isinstance(rate, int | float) and not isinstance(rate, bool):
        value = float(rate)
    else:
        text = rate if isinstance(rate, str) else ""
        found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)/(s|sec|m|min|h)", text.strip())
        value = float(found[1]) / _SECONDS[found[2]] if found else 0.0
    if not 0 < value < 1e12:
        raise InvalidOption(f'a rate is like "20/s" or "100/min", not {rate!r:.40}')
    return value
