"""What a turn does besides messages: repeated calls, and generators that answer."""

from __future__ import annotations

__all__ = ("Pace", "check_pace")

import contextvars
import inspect
import time
from collections.abc import Callable
from typing import Any

from hisock.engine.streams import Producer, Producers
from hisock.engine.waiting import check_timeout
from hisock.errors import InvalidOption


class _Repeat:
    __slots__ = ("due", "function", "interval", "is_running")

    def __init__(self, interval: float, function: Callable[[], Any]) -> None:
        self.interval = interval
        self.function = function
        self.due = time.monotonic() + interval
        self.is_running = False

    def next(self, now: float) -> None:
        """Keep the beat: no drift, and what was missed is skipped."""
        missed = (now - self.due) // self.interval
        self.due += self.interval * (1 + max(0.0, missed))


def check_pace(interval: float, function: Callable[[], Any]) -> None:
    """Refuse what cannot be called at a pace.

    Raises:
        InvalidOption: That is no pace, or no function.
    """
    check_timeout(interval)
    if not callable(function):
        raise InvalidOption(f"every() calls a function, not {function!r:.40}")
    if not interval > 0:
        raise InvalidOption(f"every() takes more than 0 seconds, not {interval}")


class Pace:
    """The repeated calls and generators of one engine.

    Args:
        wake: Ends the engine's wait, from any thread.

    Attributes:
        is_set: Whether there is anything; false most of the time.
    """

    __slots__ = ("_producers", "_repeats", "_wake", "is_set")

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._producers = Producers(wake)
        self._repeats: list[_Repeat] = []
        self.is_set = False

    def every(self, interval: float, function: Callable[[], Any]) -> None:
        """Call a function at that pace, in seconds, while the engine turns.

        Raises:
            InvalidOption: That is no pace.
        """
        check_pace(interval, function)
        self._repeats.append(_Repeat(interval, function))
        self.is_set = True
        self._wake()

    def close(self) -> None:
        """Close the generators that answer: nobody is there any more."""
        self._producers.step()

    def produce(self, producer: Producer) -> None:
        """Turn a generator from now on."""
        self.is_set = True
        self._producers.add(producer)

    def patience(self, timeout: float | None) -> float | None:
        """How long the engine may wait, with a wait of ``timeout`` in mind."""
        if timeout == 0:
            return timeout
        if self._repeats:
            now = time.monotonic()
            waiting = [r.due for r in self._repeats if not r.is_running]
            due = max(0.0, min(waiting, default=now + 1.0) - now)
            timeout = due if timeout is None else min(timeout, due)
        return self._producers.patience(timeout)

    def work(
        self,
        failed: Callable[[Callable[[], Any], Exception], None],
        spawn: Callable[[Any, contextvars.Context, Any], None] | None,
    ) -> bool:
        """Do what is due; whether a generator came to its end.

        Args:
            failed: Told of a repeated call that raised.
            spawn: Runs a coroutine, where that is possible.
        """
        now = time.monotonic() if self._repeats else 0.0
        for repeat in self._repeats:
            if repeat.due <= now and not repeat.is_running:
                repeat.next(now)
                self._call(repeat, failed, spawn)
        return self._producers.step() if self._producers.active else False

    def _call(
        self,
        repeat: _Repeat,
        failed: Callable[[Callable[[], Any], Exception], None],
        spawn: Callable[[Any, contextvars.Context, Any], None] | None,
    ) -> None:
        function = repeat.function
        try:
            result = function()
        except Exception as error:
            failed(function, error)
            return
        if not inspect.iscoroutine(result):
            return
        if spawn is None:
            result.close()
            failed(
                function, InvalidOption("only servers and hisock.aio run coroutines")
            )
            return
        repeat.is_running = True

        def done(_: Any, error: BaseException | None) -> None:
            repeat.is_running = False
            if isinstance(error, Exception):
                failed(function, error)

        spawn(result, contextvars.copy_context(), done)
