"""Wakes coroutines that have waited long enough, with one timer of the loop for all.

Most calls are answered long before; to set and cancel a timer for each of them costs
more than all else that waiting does (bench/calls.py).
"""

from __future__ import annotations

__all__ = ("Alarms",)

import asyncio
import contextvars
import time


def _ring(news: asyncio.Future[None]) -> None:
    if not news.done():
        news.set_result(None)


class Alarms:
    """Alarms of one loop; in its thread only.

    Who waits longer than all others is put behind them, and the timer is that of the
    first. Who does not has a timer of his own.

    Args:
        loop: The loop.

    Attributes:
        loop: As above.
    """

    __slots__ = ("_latest", "_timer", "_waiting", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        #: Who waits, and until when, the first to be woken first.
        self._waiting: dict[asyncio.Future[None], float] = {}
        #: No timer is later than this.
        self._latest = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def set(self, news: asyncio.Future[None], end: float) -> asyncio.TimerHandle | None:
        """Give a future its result at that time of the monotonic clock.

        Returns:
            What ``clear`` needs to know.
        """
        if end < self._latest:
            if self._waiting:
                left = max(0.0, end - time.monotonic())
                return self.loop.call_later(left, _ring, news)
            self.close()
        self._latest = self._waiting[news] = end
        if self._timer is None:
            self._arm(end)
        return None

    def clear(
        self, news: asyncio.Future[None], timer: asyncio.TimerHandle | None
    ) -> None:
        """Wake it no more; what else waits has its timer, which looks again."""
        if timer is None:
            self._waiting.pop(news, None)
        else:
            timer.cancel()

    def _arm(self, end: float) -> None:
        left = max(0.0, end - time.monotonic())
        # It belongs to none of those who wait, and so keeps nothing of theirs.
        context = contextvars.Context()
        self._timer = self.loop.call_later(left, self._look, context=context)

    def _look(self) -> None:
        self._timer = None
        now = time.monotonic()
        over: list[asyncio.Future[None]] = []
        for news, end in self._waiting.items():
            if end > now:
                self._arm(end)
                break
            over.append(news)
        for news in over:
            del self._waiting[news]
            _ring(news)

    def close(self) -> None:
        """Let go of the timer, if nobody waits."""
        if self._timer is not None and not self._waiting:
            self._timer.cancel()
            self._timer = None
