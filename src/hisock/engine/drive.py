"""A selector turned by hand, one step at a time, on the caller's thread.

This is what lets ``server.run()`` run handlers where it was called. It needs no asyncio
and so runs inside any loop's callback, a Jupyter cell included.
"""

from __future__ import annotations

__all__ = ("CAPACITY", "Drive")

import contextlib
import select
import selectors
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, Final, TypeAlias

#: What is called when a socket is ready: with its own argument.
Call: TypeAlias = Callable[[Any], None]

#: Windows does not interrupt a wait for Ctrl-C, so there it is taken in slices.
_LONGEST: Final = 0.25 if sys.platform == "win32" else None
#: Systems count milliseconds in 31 bits; who waits longer than a day looks again.
_DAY: Final = 86400.0
#: Sockets that can be watched; 0 for any number. Windows' select ends at 512.
CAPACITY: Final = 500 if sys.platform == "win32" else 0
#: Sockets told of in one step; the others are told of in the next.
_AT_ONCE: Final = 256


class Drive:
    """Waits for sockets and a clock, and calls what watches them."""

    __slots__ = ("_bell", "_ears", "_poller", "_watched", "alarm", "spin")

    def __init__(self) -> None:
        self._poller = _Poller()
        self._watched: dict[int, tuple[Call | None, Call | None, object]] = {}
        # Another thread rings the bell to end the wait.
        self._ears, self._bell = socket.socketpair()
        self._ears.setblocking(False)
        self._bell.setblocking(False)
        self.watch(self._ears.fileno(), self._hear, None)
        #: The time of ``time.monotonic`` at which a wait ends; ``None`` for never.
        self.alarm: float | None = None
        #: Seconds at the beginning of a wait in which the thread does not sleep.
        self.spin = 0.0

    def step(self, timeout: float | None) -> None:
        """Wait until something is ready, the alarm, or ``timeout``; call what is ready.

        Args:
            timeout: Seconds; 0 does not wait, ``None`` has no bound of its own.
        """
        if self.alarm is not None and timeout != 0:
            left = max(0.0, self.alarm - time.monotonic())
            timeout = left if timeout is None else min(left, timeout)
        if _LONGEST is not None and (timeout is None or timeout > _LONGEST):
            timeout = _LONGEST
        elif timeout is not None and timeout > _DAY:
            timeout = _DAY
        watched = self._watched
        wait = self._spin if self.spin else self._poller.poll
        for fd, events in wait(timeout, _AT_ONCE):
            calls = watched.get(fd)
            if calls is None:  # forgotten by what was called before
                continue
            read, write, argument = calls
            if write is not None and events & _ROOM:
                write(argument)
            if read is not None and events & _NEWS:
                read(argument)

    def _spin(self, timeout: float | None, most: int) -> list[tuple[int, int]]:
        """As the poller's wait, that looks again and again before it sleeps."""
        poll, clock = self._poller.poll, time.monotonic
        part = self.spin if timeout is None else min(self.spin, timeout)
        end = clock() + part
        while not (ready := poll(0, most)):
            if clock() >= end:
                return poll(None if timeout is None else timeout - part, most)
        return ready

    def wait(self, timeout: float) -> None:
        """Wait until something is ready, at most that many seconds; call nothing."""
        with contextlib.suppress(OSError, ValueError):  # closed meanwhile
            self._poller.poll(timeout, 1)

    @property
    def fileno(self) -> int | None:
        """What becomes readable when something is ready, so that an event loop can
        watch it; ``None`` where the system has no such thing."""
        get = getattr(self._poller, "fileno", None)
        try:
            return None if get is None else int(get())
        except (OSError, ValueError):  # closed
            return None

    def wake(self) -> None:
        """End the wait, or the next one, from any thread."""
        # Full: it rings already. Closed meanwhile: nobody waits.
        with contextlib.suppress(OSError):
            self._bell.send(b"\0")

    def _hear(self, _: None) -> None:
        with contextlib.suppress(BlockingIOError, InterruptedError):
            self._ears.recv(4096)

    def watch(
        self,
        fd: int,
        read: Call | None,
        write: Call | None,
        argument: object = None,
    ) -> None:
        """Call ``read`` when there is something to read, ``write`` when there is room.

        In place of what watched the descriptor before; an error counts as both.
        """
        events = (_READ if read else 0) | (_WRITE if write else 0)
        # A socket that its user closed is gone from the system's list, but not from
        # ours; its descriptor may by now be another's.
        with contextlib.suppress(KeyError, OSError, ValueError):
            if fd in self._watched:
                self._poller.modify(fd, events)
                self._watched[fd] = (read, write, argument)
                return
        with contextlib.suppress(KeyError, OSError, ValueError):
            self._poller.unregister(fd)
        self._poller.register(fd, events)
        self._watched[fd] = (read, write, argument)

    def forget(self, fd: int, argument: object = None) -> None:
        """Watch a descriptor no longer, if it is still watched for this ``argument``;
        before it is closed."""
        if fd in self._watched and self._watched[fd][2] is argument:
            del self._watched[fd]
            with contextlib.suppress(KeyError, OSError, ValueError):
                self._poller.unregister(fd)

    def close(self) -> None:
        """Give the drive's own descriptors back."""
        self._watched.clear()
        self._poller.close()
        self._ears.close()
        self._bell.close()


if hasattr(select, "epoll"):
    # Directly: ``selectors`` wraps the same call in 1 µs of Python.
    _READ: Final = select.EPOLLIN
    _WRITE: Final = select.EPOLLOUT
    _NEWS: Final = ~select.EPOLLOUT
    _ROOM: Final = ~select.EPOLLIN
    _Poller = select.epoll

else:
    _READ: Final = selectors.EVENT_READ  # type: ignore[misc]  # the other branch
    _WRITE: Final = selectors.EVENT_WRITE  # type: ignore[misc]  # the other branch
    _NEWS: Final = selectors.EVENT_READ  # type: ignore[misc]  # the other branch
    _ROOM: Final = selectors.EVENT_WRITE  # type: ignore[misc]  # the other branch

    class _Poller:  # type: ignore[no-redef]  # the other branch
        """``select.epoll`` in the words of the selector this system has."""

        def __init__(self) -> None:
            self._selector = selectors.DefaultSelector()
            self.modify = self._selector.modify
            self.register = self._selector.register
            self.unregister = self._selector.unregister
            self.close = self._selector.close
            if hasattr(self._selector, "fileno"):  # kqueue
                self.fileno = self._selector.fileno

        def poll(self, timeout: float | None, _: int) -> list[tuple[int, int]]:
            ready = self._selector.select(timeout)
            return [(key.fd, events) for key, events in ready]
