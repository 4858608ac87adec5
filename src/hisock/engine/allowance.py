"""How much one client may send, and how often it may have a handler run."""

from __future__ import annotations

__all__ = ("Allowance",)

from hisock.handlers.table import HandlerEntry
from hisock.session.rates import Bucket
from hisock.types import Limits


class Allowance:
    """What is left of it for one client.

    Args:
        limits: How much it is.
        now: The time, in seconds.
    """

    __slots__ = ("_bytes", "_by_handler", "_messages")

    def __init__(self, limits: Limits, now: float) -> None:
        by_message, by_byte = limits.message_rate, limits.byte_rate
        self._messages = Bucket(by_message, now) if by_message else None
        self._bytes = Bucket(by_byte, now) if by_byte else None
        self._by_handler: dict[HandlerEntry, Bucket] | None = None

    def spend(self, messages: int, size: int, now: float) -> float:
        """So much came; for how many seconds nothing more is to be read."""
        wait = 0.0
        if self._messages is not None:
            wait = self._messages.spend(messages, now)
        if self._bytes is not None:
            wait = max(wait, self._bytes.spend(size, now))
        return wait

    def allows(self, entry: HandlerEntry, now: float) -> bool:
        """Whether a handler has not run too often for it; counts it if so."""
        assert entry.rate is not None
        if self._by_handler is None:
            self._by_handler = {}
        bucket = self._by_handler.get(entry)
        if bucket is None:
            bucket = self._by_handler[entry] = Bucket(entry.rate, now)
        return bucket.take(1, now)
