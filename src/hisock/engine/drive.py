"""A stock asyncio loop turned by hand, one step at a time, on the caller's thread.

This is what lets ``server.run()`` run handlers where it was called. A step costs 3 µs.
"""

from __future__ import annotations

__all__ = ("LoopDrive",)

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

_get_running: Callable[[], Any] = asyncio._get_running_loop
_set_running: Callable[[Any], None] = asyncio._set_running_loop


class LoopDrive:
    """Waits for sockets and the clock, and calls what watches them."""

    __slots__ = ("_alarm", "_alarm_at", "_loop")

    def __init__(self) -> None:
        # Never uvloop: to start and stop it costs 20 µs a step.
        self._loop = asyncio.SelectorEventLoop()
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at: float | None = None

    def step(self, *, wait: bool, timeout: float | None = None) -> None:
        """Call what is ready; with ``wait`` until ``stop`` is called, or ``timeout``.

        Args:
            wait: Whether to wait for something to become ready.
            timeout: Seconds to wait at most; ``None`` for as long as it takes.
        """
        with _set_aside():
            if not wait:
                self._loop.stop()
                self._loop.run_forever()
                return
            end = None
            if timeout is not None:
                end = self._loop.call_later(timeout, self._loop.stop)
            try:
                self._loop.run_forever()
            finally:
                if end is not None:
                    end.cancel()

    def stop(self) -> None:
        """End the step after what is ready now; from the loop's own callbacks."""
        self._loop.stop()

    def wake(self) -> None:
        """End the step, or the next one, from any thread."""
        with contextlib.suppress(RuntimeError):  # closed meanwhile
            self._loop.call_soon_threadsafe(self._loop.stop)

    def watch_reading(self, fd: int, call: Callable[..., Any], *arguments: Any) -> None:
        """Call when a socket has something to read."""
        self._loop.add_reader(fd, call, *arguments)

    def watch_writing(self, fd: int, call: Callable[..., Any], *arguments: Any) -> None:
        """Call when a socket has room."""
        self._loop.add_writer(fd, call, *arguments)

    def forget_reading(self, fd: int) -> None:
        """Stop watching for something to read."""
        self._loop.remove_reader(fd)

    def forget_writing(self, fd: int) -> None:
        """Stop watching for room."""
        self._loop.remove_writer(fd)

    def alarm(self, when: float | None, call: Callable[[], Any]) -> None:
        """Call at a time of ``time.monotonic``, in place of the alarm before."""
        if when == self._alarm_at:
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = when
        self._alarm = None if when is None else self._loop.call_at(when, call)

    def later(self, seconds: float, call: Callable[[], Any]) -> None:
        """Call once after some seconds."""
        self._loop.call_later(seconds, call)

    def close(self) -> None:
        """Give the loop's own descriptors back."""
        self._loop.close()


@contextlib.contextmanager
def _set_aside() -> Iterator[None]:
    """Forget for a moment that another loop runs on this thread (a Jupyter cell)."""
    running = _get_running()
    if running is None:
        yield
        return
    _set_running(None)
    try:
        yield
    finally:
        _set_running(running)
