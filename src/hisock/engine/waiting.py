"""Waits for one socket, without asyncio and for any number of descriptors."""

from __future__ import annotations

__all__ = ("wait_ready",)

import math
import select
import socket
import sys
import time

#: Windows does not interrupt a wait for Ctrl-C, so there it is taken in slices.
_SLICE = 0.25 if sys.platform == "win32" else None


def wait_ready(
    sock: socket.socket, *, reading: bool, writing: bool, timeout: float | None
) -> bool:
    """Wait until a socket has something to read, or room to write.

    Args:
        sock: A non-blocking socket.
        reading: Whether to wait for something to read.
        writing: Whether to wait for room.
        timeout: Seconds; ``None`` waits for ever.

    Returns:
        Whether it is ready; an error counts as ready, the next call tells it.
    """
    end = None if timeout is None else time.monotonic() + timeout
    while True:
        part = timeout if end is None else max(0.0, end - time.monotonic())
        if _SLICE is not None and (part is None or part > _SLICE):
            part = _SLICE
        if _wait(sock, reading, writing, part):
            return True
        if end is not None and time.monotonic() >= end:
            return False


if hasattr(select, "poll"):

    def _wait(
        sock: socket.socket, reading: bool, writing: bool, timeout: float | None
    ) -> bool:
        # select.select ends at descriptor 1,023; poll does not.
        poller = select.poll()
        wanted = (select.POLLIN if reading else 0) | (select.POLLOUT if writing else 0)
        try:
            poller.register(sock, wanted)
        except ValueError:  # closed meanwhile
            return True
        milliseconds = None if timeout is None else math.ceil(timeout * 1000)
        return bool(poller.poll(milliseconds))

else:

    def _wait(
        sock: socket.socket, reading: bool, writing: bool, timeout: float | None
    ) -> bool:
        try:
            ready = select.select(
                [sock] if reading else [],
                [sock] if writing else [],
                [sock],  # Windows tells a failed connection here
                timeout,
            )
        except (OSError, ValueError):  # closed meanwhile
            return True
        return any(ready)
