"""Waits for one socket, without asyncio and for any number of descriptors."""

from __future__ import annotations

__all__ = ("Waiter", "check_timeout", "deadline", "end_of", "wait_for_room")

import math
import select
import selectors
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from hisock.errors import InvalidOption
from hisock.session.connection import milliseconds

#: The longest time that anybody may ask for, in seconds: 31 years.
_LONGEST: Final = 1e9
#: Systems count milliseconds in 31 bits; who waits longer than a day looks again.
_DAY: Final = 86400.0
#: Windows does not interrupt a wait for Ctrl-C, so there it is taken in slices.
_SLICE = 0.25 if sys.platform == "win32" else None


class Waiter:
    """Waits for one socket, again and again; for one thread at a time."""

    __slots__ = ("_bell", "_poll", "_sock", "_writing")

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._bell: socket.socket | None = None
        self._poll: Callable[[float | None], Any] | None = None
        self._writing: bool | None = None

    def listen(self, bell: socket.socket) -> None:
        """Wait for another socket, too: what makes it readable ends the wait."""
        self._bell = bell
        self._writing = None

    def wait(self, timeout: float | None, writing: bool) -> bool:
        """Wait until there is something to read, or room to write.

        Args:
            timeout: Seconds; ``None`` waits for ever.
            writing: Whether room counts, too.

        Returns:
            Whether it is ready; an error counts as ready, the next call tells it.
        """
        if self._poll is None or self._writing is not writing:
            self._writing = writing
            try:
                self._poll = _make_poll(self._sock, writing, self._bell)
            except ValueError:  # closed meanwhile
                return True
        if _SLICE is not None:
            return self._wait_in_slices(timeout, _SLICE)
        if timeout is not None:
            timeout = _to_poll(min(timeout, _DAY))
        return bool(self._poll(timeout))

    def _wait_in_slices(self, timeout: float | None, part: float) -> bool:
        assert self._poll is not None
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            left = part if end is None else min(part, max(0.0, end - time.monotonic()))
            if self._poll(_to_poll(left)):
                return True
            if end is not None and time.monotonic() >= end:
                return False


def check_timeout(timeout: object) -> None:
    """Refuse what is no number of seconds.

    Raises:
        InvalidOption: It is none, or nobody can wait that long.
    """
    if type(timeout) is float and timeout <= _LONGEST:
        return  # what most are (bench/calls.py)
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise InvalidOption(f"a time is a number of seconds, not {timeout!r:.40}")
    if not timeout <= _LONGEST:  # and so no NaN
        raise InvalidOption(f"a time is at most 1e9 seconds, not {timeout!r:.40}")


def wait_for_room(sock: socket.socket, timeout: float) -> None:
    """Wait until a socket can be written to, at most ``timeout`` seconds."""
    with suppress(OSError, ValueError, KeyError):  # closed meanwhile
        kind = getattr(selectors, "PollSelector", selectors.SelectSelector)
        with kind() as selector:
            selector.register(sock, selectors.EVENT_WRITE)
            selector.select(timeout)


if hasattr(select, "poll"):

    def _make_poll(
        sock: socket.socket, writing: bool, bell: socket.socket | None
    ) -> Callable[[float | None], Any]:
        # select.select ends at descriptor 1,023; poll does not.
        poller = select.poll()
        poller.register(sock, select.POLLIN | (select.POLLOUT if writing else 0))
        if bell is not None:
            poller.register(bell, select.POLLIN)
        return poller.poll

    def _to_poll(timeout: float) -> float:
        return math.ceil(timeout * 1000)

else:

    def _make_poll(
        sock: socket.socket, writing: bool, bell: socket.socket | None
    ) -> Callable[[float | None], Any]:
        readers = [sock] if bell is None else [sock, bell]

        def poll(timeout: float | None) -> bool:
            try:
                # Windows tells a failed connection in the third list.
                ready = select.select(readers, [sock] * writing, [sock], timeout)
            except (OSError, ValueError):  # closed meanwhile
                return True
            return any(ready)

        return poll

    def _to_poll(timeout: float) -> float:
        return timeout


def end_of(seconds: float) -> float:
    """When a time that begins now is over.

    Raises:
        InvalidOption: It is no time.
    """
    check_timeout(seconds)
    if not seconds > 0:
        raise InvalidOption(f"a time is more than 0 seconds, not {seconds!r:.40}")
    return time.monotonic() + seconds


def deadline(ttl: float) -> int:
    """When a life time of ``ttl`` seconds ends, as the wire writes it.

    Raises:
        InvalidOption: It is no time.
    """
    return milliseconds(end_of(ttl))
