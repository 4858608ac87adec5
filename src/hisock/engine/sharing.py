"""One link that several threads wait for: one of them reads, all of them hear of it."""

from __future__ import annotations

__all__ = ("SharedPump",)

import socket
import threading
from contextlib import suppress

from hisock.engine.link import Link
from hisock.engine.threads import StateLock
from hisock.engine.waiting import Waiter


class SharedPump:
    """Reads a link into its inbox for whoever waits.

    Whoever comes first pumps; the others wait until it has read something or stops,
    and then look for themselves.

    Attributes:
        news: How often something changed. A caller notes it, looks for what it wants,
            and passes it to ``pump``, so that nothing comes unnoticed in between.
    """

    __slots__ = (
        "_changed",
        "_link",
        "_lock",
        "_pumping",
        "_waiter",
        "_waiting",
        "news",
    )

    def __init__(self, link: Link, lock: StateLock) -> None:
        self._link = link
        self._lock = lock
        self._waiter = Waiter(link.sock)
        # Reentrant, so that a KeyboardInterrupt just after taking it does not lock the
        # thread out of its own link.
        self._pumping = threading.RLock()
        self._changed = threading.Condition(threading.Lock())
        self._waiting = 0
        self.news = 0

    def pump(self, timeout: float | None, seen: int) -> None:
        """Wait for something new and read it, or let another thread do that.

        Args:
            timeout: Seconds to wait at most; ``None`` for as long as it takes.
            seen: ``news`` from before the caller looked for what it wants.
        """
        if self._pumping.acquire(False):
            self._pump(timeout, seen)
            return
        with self._changed:
            self._waiting += 1
        try:
            # From here on whoever lets the pump go tells us, so look once more.
            if self._pumping.acquire(False):
                self._pump(timeout, seen)
                return
            with self._changed:
                self._changed.wait_for(lambda: self.news != seen, timeout)
        finally:
            with self._changed:
                self._waiting -= 1

    def _pump(self, timeout: float | None, seen: int) -> None:
        try:
            writing = self._link.outbox.size > 0
            if self.news == seen and self._waiter.wait(timeout, writing=writing):
                self._lock.run(self._read)
                self.news += 1
        finally:
            self._pumping.release()
            if self._waiting:
                self.announce()

    def _read(self) -> None:
        link = self._link
        if link.outbox.size:
            link.flush()
        link.read()
        if not link.connection.is_open:
            link.settle()

    def announce(self) -> None:
        """Wake the threads that wait: something changed."""
        if self._waiting:
            with self._changed:
                self.news += 1
                self._changed.notify_all()

    def drop(self) -> None:
        """Close the socket; a thread that waits for it wakes up first."""
        with suppress(OSError):  # it is not connected any more
            self._link.sock.shutdown(socket.SHUT_RDWR)
        with self._pumping:
            self._lock.run(self._link.drop)
        self.announce()
