"""How much one client may send, and how often; how often one address may come."""

from __future__ import annotations

__all__ = ("Allowance", "ByAddress", "allowance_of")

from typing import TYPE_CHECKING, Final

from hisock.handlers.table import HandlerEntry
from hisock.session.rates import Bucket
from hisock.types import Limits

if TYPE_CHECKING:
    from hisock.engine.link import Link

#: Addresses of which one keeps count.
_ADDRESSES: Final = 4096


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


class ByAddress:
    """How often something may happen for each remote address.

    Args:
        rate: Times a second, on average; 0 for any number.
    """

    __slots__ = ("_buckets", "_rate")

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._buckets: dict[str, Bucket] = {}

    def take(self, host: str, now: float) -> bool:
        """Whether it may happen once more; counts it if so."""
        return not self._rate or self._bucket(host, now).take(1, now)

    def note(self, host: str, now: float) -> None:
        """It has happened, whether it might or not."""
        if self._rate:
            self._bucket(host, now).spend(1, now)

    def is_spent(self, host: str, now: float) -> bool:
        """Whether it has happened too often."""
        bucket = self._buckets.get(host)
        return bucket is not None and bucket.spend(0, now) > 0

    def _bucket(self, host: str, now: float) -> Bucket:
        bucket = self._buckets.get(host)
        if bucket is None:
            if len(self._buckets) >= _ADDRESSES:
                self._buckets.clear()
            bucket = self._buckets[host] = Bucket(self._rate, now)
        return bucket


def allowance_of(link: Link, limits: Limits, now: float) -> Allowance:
    """What is left of it for the client of a link."""
    if link.allowance is None:
        link.allowance = Allowance(limits, now)
    return link.allowance
